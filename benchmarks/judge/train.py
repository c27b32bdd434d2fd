"""Trains the judge of pairs from the blocks, and writes the file that ships with the package.

    python benchmarks/judge/train.py --minutes 150        a full training
    python benchmarks/judge/train.py --minutes 5 --out /tmp/judge.safetensors   a try

What is learned, and on what: README.md beside this file. Choices (when to stop, thresholds) are
made on the blocks held out by domain; nothing else is looked at.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from learning import Learner, States
from lines import Block, Group, Line, disturbed, groups, length, load
from measure import card_of, found_at, judged, table

from editkit.models.sentences import load_encoder
from editkit.scope.judge import write_judge

HERE = Path(__file__).parent
JUDGE = HERE.parents[1] / "editkit" / "scope" / "judge.safetensors"


class Pool:
    """All lines, read and behind the layers that are not learned.

    Args:
        learner: What is trained.
        of: The subjects.
        seed: Of chance.
        share: Of lines that are there a second time, disturbed.
        kept: File in which the states are kept for a later training with the same settings.
    """

    def __init__(
        self, learner: Learner, of: list[Group], seed: int, share: float, kept: Path | None = None
    ) -> None:
        rng = random.Random(seed)
        strangers = [line for group in of for block in group for line in block.other]
        self.at: dict[int, list[int]] = {}
        said: list[str | tuple[str, ...]] = []
        for group in of:
            for block in group:
                for line in [*block.same, *block.other]:
                    mine = self.at.setdefault(id(line), [])
                    mine.append(len(said))
                    said.append(line.said)
                    if rng.random() < share:
                        mine.append(len(said))
                        said.append(disturbed(line, rng, strangers, much=4))
        self.readings = [learner.read(one) for one in said]
        lengths = [len(reading.ids) for reading in self.readings]
        if kept and kept.exists():
            flat = torch.load(kept)
        else:
            found: list[torch.Tensor] = []
            for start in range(0, len(said), 4096):
                found += learner.lower(self.readings[start : start + 4096])
                print(f"  read {start} of {len(said)} lines", flush=True)
            flat = torch.cat(found)
            if kept:
                torch.save(flat, kept)
        self.low = flat.split(lengths)

    def one(self, line: Line, rng: random.Random) -> int:
        """Returns a form of a line."""
        return rng.choice(self.at[id(line)])


def neighbours(pool: Pool, of: list[Group], k: int = 8) -> list[list[int]]:
    """Returns the groups nearest to each, by their prompts and before anything is learned."""
    firsts = [pool.low[pool.at[id(group[0].same[0])][0]].float().mean(0) for group in of]
    pooled = torch.stack(firsts)
    pooled = F.normalize(pooled - pooled.mean(0), dim=-1)
    near = pooled @ pooled.T
    near.fill_diagonal_(-1)
    near[near > 0.97] = -1  # the same question once more
    languages = [group[0].language for group in of]
    for row, language in enumerate(languages):
        near[row, torch.tensor([other != language for other in languages])] = -1
    return near.topk(k, dim=-1).indices.tolist()


class Batches:
    """Draws batches: the lines of a subject and of its neighbour, and which pairs to compare."""

    def __init__(self, pool: Pool, of: list[Group], near: list[list[int]]) -> None:
        self._pool, self._groups, self._near = pool, of, near
        self.shuffle(0)

    def shuffle(self, seed: int) -> None:
        """Begins anew, in another order."""
        self._rng = random.Random(seed)
        self._order: list[int] = []
        self.rounds = 0

    def states(self, learner: Learner, texts: list[int]) -> States:
        """Returns texts of the pool behind the whole encoder."""
        readings, low = self._pool.readings, self._pool.low
        return learner.states([readings[at] for at in texts], [low[at] for at in texts])

    def draw(self, pairs: int) -> tuple[list[int], list[tuple[int, int, int]]]:
        """Returns texts of the pool, and pairs of them with 1 for the same, 0 for another."""
        rng = self._rng
        if not self._order:
            self._order = list(range(len(self._groups)))
            rng.shuffle(self._order)
            self.rounds += 1
        first = self._order.pop()
        chosen = rng.sample(self._groups[first], min(3, len(self._groups[first])))
        chosen.append(rng.choice(self._groups[rng.choice(self._near[first])]))
        texts: list[int] = []
        sames: list[list[int]] = []
        good: list[tuple[int, int, int]] = []
        bad: list[tuple[int, int, int]] = []
        hard: list[tuple[int, int, int]] = []
        alike: list[tuple[int, int, int]] = []
        for block in chosen:
            lines = [block.same[0], *_some(block.same[1:], 6, rng)]
            same = list(range(len(texts), len(texts) + len(lines)))
            texts += [self._pool.one(line, rng) for line in lines]
            others = _some(block.other, 8, rng)
            other = list(range(len(texts), len(texts) + len(others)))
            texts += [self._pool.one(line, rng) for line in others]
            sames.append(same)
            # What is the same to the letter is hardly ever in a block, and has to be known as well:
            # else a judge trusts nothing that is all too near, as the hard ones of others are.
            alike += [(a, a, 1) for a in (same[0], rng.choice(same))]
            for form in self._pool.at[id(block.same[0])]:
                if form != texts[same[0]]:
                    alike.append((same[0], len(texts), 1))
                    texts.append(form)
            good += [(a, b, 1) for a in same[1:] for b in same[1:] if a < b]
            hard += [(same[0], b, 1) for b in same[1:]] + [(same[0], b, 0) for b in other]
            bad += [(a, b, 0) for a in same[1:] for b in other]
        for at, same in enumerate(sames):
            for before, other in zip(chosen[:at], sames[:at], strict=True):
                if before.target.casefold() != chosen[at].target.casefold():
                    bad += [(a, b, 0) for a in same for b in other]
        rng.shuffle(bad)
        rng.shuffle(good)
        rest = max(0, pairs - len(hard))
        return texts, [*hard, *alike, *good[: rest // 3], *bad[: rest - rest // 3]]


def _some(lines: list[Line], most: int, rng: random.Random) -> list[Line]:
    """Returns some lines; a long one costs as much as many short ones, so it comes less often."""
    kept = [line for line in lines if length(line) < 110 or rng.random() < 40 / length(line)]
    return rng.sample(kept, min(most, len(kept)))


def loss_of(logits: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """Binary cross-entropy; of the other questions those count most that look the same."""
    each = F.binary_cross_entropy_with_logits(logits, same, reduction="none")
    with torch.no_grad():
        hard = (logits.sigmoid() * 0.9 + 0.1) * (1 - same)
        hard = hard / hard.sum()
    return (
        0.45 * (same * each).sum() / same.sum()
        + 0.3 * (hard * each).sum()
        + 0.25 * ((1 - same) * each).sum() / (1 - same).sum()
    )


def nearness(pooled: torch.Tensor, pairs: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """How well the texts' vectors alone tell what belongs together, for who looks up by them."""
    cosine = (pooled[pairs[:, 0]] * pooled[pairs[:, 1]]).sum(-1)
    return F.binary_cross_entropy_with_logits(
        (cosine - 0.6) * 12, same, weight=torch.where(same > 0, 1.0, 0.3)
    )


def parsed() -> argparse.Namespace:
    """Returns what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=150, help="0 only measures")
    parser.add_argument("--out", type=Path, default=JUDGE)
    parser.add_argument("--kept", type=Path, help="the weights as they are learned, to go on from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=3, help="first encoder layer that is adapted")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3, help="of learning")
    parser.add_argument("--pairs", type=int, default=260, help="compared in a step")
    parser.add_argument("--disturbed", type=float, default=0.25, help="share of lines")
    parser.add_argument("--near", type=float, default=0.15, help="weight of the vectors' loss")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--start", type=Path, help="go on from what was learned before")
    parser.add_argument("--before", type=float, default=0, help="minutes that --start had taken")
    parser.add_argument("--pool", type=Path, help="keeps what the frozen layers say of all lines")
    parser.add_argument("--every", type=float, default=12, help="minutes between looks at the held")
    return parser.parse_args()


class Together:
    """What workers share: their weights, averaged every few steps.

    A worker a core, of one thread each, learns from other subjects than the others and takes the
    mean of all every ``_APART`` steps (local SGD, Stich 2018, arXiv 1805.09767): two such learn
    more in the same time than one with two threads, which waits for the slower at every product.
    """

    def __init__(self, workers: int, numbers: int) -> None:
        context = torch.multiprocessing.get_context("fork")
        self.workers = workers
        self._barrier = context.Barrier(workers)
        self._all = torch.zeros(workers, numbers).share_memory_()
        self._done = torch.zeros(1).share_memory_()

    def average(self, me: int, weights: list[torch.nn.Parameter], share: float) -> bool:
        """Gives all workers the mean of their weights; returns whether time is up."""
        with torch.no_grad():
            self._all[me] = torch.cat([one.reshape(-1) for one in weights])
            if me == 0:
                self._done[0] = float(share >= 1)
            self._barrier.wait()
            mean = self._all.mean(0)
            is_done = bool(self._done[0])
            self._barrier.wait()
            start = 0
            for one in weights:
                one.copy_(mean[start : start + one.numel()].view_as(one))
                start += one.numel()
        return is_done


_APART = 8  # steps between averages


def learn(
    me: int, together: Together, learner: Learner, batches: Batches, held: list[Block],
    given: argparse.Namespace,
) -> None:  # fmt: skip
    """Learns until time is up; the first worker looks at what is held out, and keeps the best."""
    torch.set_num_threads(1)
    batches.shuffle(given.seed * 100 + me + (50 if given.start else 0))
    weights = [p for p in learner.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=given.rate, betas=(0.9, 0.98), weight_decay=0.01)
    begin, looked, step, total, best = time.time(), time.time(), 0, 0.0, 0.0
    while True:
        share = (time.time() - begin) / 60 / given.minutes
        if step % _APART == 0 and together.average(me, weights, share):
            break
        if me == 0 and step % _APART == 0 and time.time() - looked > given.every * 60:
            rows = judged(learner, held)
            found = found_at(rows, 0.05)[0]
            print(f"  held: {found:.3f} at .05, {found_at(rows, 0.02)[0]:.3f} at .02", flush=True)
            if found > best:
                best = found
                torch.save(learner.learned(), given.kept)
            looked = time.time()
        for group in optimizer.param_groups:
            group["lr"] = given.rate * min(1.0, (step + 1) / 40) * max(1 - share, 0.0) + 1e-6
        texts, pairs = batches.draw(given.pairs)
        index = torch.tensor(pairs)
        same = index[:, 2].float()
        states = batches.states(learner, texts)
        logits = states.logits(learner.head, index[:, 0], index[:, 1])
        loss = loss_of(logits, same)
        whole = loss + given.near * nearness(states.pooled, index, same)
        optimizer.zero_grad()
        whole.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        total += loss.item()
        step += 1
        if step % 50 == 0:
            print(
                f"[{me}] step {step} round {batches.rounds} loss {total / 50:.4f} "
                f"{time.time() - begin:.0f} s, cpu {time.process_time():.0f} s", flush=True,
            )  # fmt: skip
            total = 0.0
    print(f"[{me}] {step} steps, {batches.rounds} rounds, {time.time() - begin:.0f} s", flush=True)
    if me == 0:
        torch.save(learner.learned(), given.kept)


def _short(lines: list[Line]) -> list[Line]:
    return [line for line in lines if length(line) < 250]


def train(learner: Learner, of: list[Group], held: list[Block], given: argparse.Namespace) -> None:
    """Trains on as many workers as were asked for, and keeps what was learned in a file."""
    pool = Pool(learner, of, given.seed, given.disturbed, given.pool)
    batches = Batches(pool, of, neighbours(pool, of))
    weights = [p for p in learner.parameters() if p.requires_grad]
    print(f"{sum(p.numel() for p in weights):,} numbers to learn", flush=True)
    quick = [
        dataclasses.replace(block, same=_short(block.same), other=_short(block.other))
        for block in random.Random(1).sample(held, min(60, len(held)))
    ]
    together = Together(given.workers, sum(p.numel() for p in weights))
    torch.multiprocessing.start_processes(
        learn, (together, learner, batches, quick, given), given.workers, start_method="fork"
    )
    learner.take(torch.load(given.kept))


def main() -> None:
    """Trains, measures on what is held out, and writes the judge's file."""
    given = parsed()
    given.kept = given.kept or HERE / "judge.pt"
    torch.manual_seed(given.seed)
    torch.set_num_threads(1)
    loaded = load_encoder("all-minilm-l6-v2")
    learner = Learner(loaded.model, loaded.tokenizer, rank=given.rank, first=given.first)
    if given.start:
        learner.take(torch.load(given.start))
    learned, held = load(HERE / "blocks")
    of = groups(learned)
    print(f"{len(learned)} blocks about {len(of)} subjects, {len(held)} held out", flush=True)
    if given.minutes > 0:
        train(learner, of, held, given)
    rows = judged(learner, held)
    print(table(rows))
    training: dict[str, float | str] = {
        "blocks": float(len(learned)), "subjects": float(len(of)), "held_blocks": float(len(held)),
        "minutes": given.minutes + given.before, "workers": float(given.workers),
        "seed": float(given.seed),
    }  # fmt: skip
    card = card_of(rows, learner, loaded.fingerprint, training)
    write_judge(given.out, card, learner.learned())
    print(card.model_dump_json(indent=2))
    print(f"{given.out}: {given.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
