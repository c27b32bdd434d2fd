"""What a judge finds of the same questions where so many of the others fire, and its calibration.

    python benchmarks/judge/measure.py            the shipped judge on the blocks held out
    python benchmarks/judge/measure.py FILE ...   on files of edits with `same` and `other`: totals

Of a file of edits only totals are printed, and never a line of it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from learning import Learner
from lines import Block, load

from editkit.scope.encoder import Reading
from editkit.scope.judge import Judge, JudgeCard

__all__ = ["card_of", "found_at", "judged", "table"]

HERE = Path(__file__).parent
RATES = {"strict": 0.01, "balanced": 0.05, "broad": 0.10}
"""Share of other questions that may fire, by how far edits reach."""

Row = dict[str, Any]
"""A line: ``same``, ``kind``, ``domain``, ``language`` and the ``logit`` of the judge."""


@torch.no_grad()
def judged(learner: Learner, blocks: list[Block], at_a_time: int = 24) -> list[Row]:
    """Returns every line of blocks with the logit of asking what its block's prompt asks."""
    rows: list[Row] = []
    learner.eval()
    for start in range(0, len(blocks), at_a_time):
        readings: list[Reading] = []
        one: list[int] = []
        other: list[int] = []
        part: list[Row] = []
        for block in blocks[start : start + at_a_time]:
            prompt = len(readings)
            readings.append(learner.read(block.same[0].said))
            meant = readings[-1].asked
            for at, line in enumerate([*block.same[1:], *block.other], 1):
                readings.append(learner.read(line.said, meant))
                one.append(prompt)
                other.append(prompt + at)
                part.append({
                    "same": at < len(block.same), "kind": line.kind, "domain": block.domain,
                    "language": block.language,
                })  # fmt: skip
        states = learner.states(readings, learner.lower(readings))
        logits = states.logits(learner.head, torch.tensor(one), torch.tensor(other))
        for row, logit in zip(part, logits.tolist(), strict=True):
            row["logit"] = logit
        rows += part
    learner.train()
    return rows


def found_at(rows: list[Row], rate: float) -> tuple[float, float]:
    """Returns the share of the same that is found where so many others fire, and the threshold."""
    logits = np.array([row["logit"] for row in rows])
    same = np.array([row["same"] for row in rows])
    others = np.sort(logits[~same])[::-1]
    threshold = float(others[min(int(rate * len(others)), len(others) - 1)])
    return float((logits[same] > threshold).mean()), threshold


def table(rows: list[Row]) -> str:
    """Returns shares found and fired: overall, and by kind, language and domain at 3% and 5%."""
    lines = []
    for rate in (0.01, 0.02, 0.03, 0.05, 0.1):
        low, high = _interval(rows, rate)
        found = found_at(rows, rate)[0]
        lines.append(f"{rate:.2f} of others fire: {found:.3f} [{low:.3f}, {high:.3f}] of the same")
    cuts = [found_at(rows, rate)[1] for rate in (0.03, 0.05)]
    for field in ("kind", "language", "domain"):
        for sign, same in (("+", True), ("-", False)):
            for value in sorted({str(row[field]) for row in rows}):
                logits = np.array([
                    row["logit"] for row in rows if row[field] == value and row["same"] == same
                ])  # fmt: skip
                if not len(logits):
                    continue
                first, second = (float((logits > cut).mean()) for cut in cuts)
                error = 1.96 * (second * (1 - second) / len(logits)) ** 0.5
                lines.append(
                    f"{sign} {value:20} {first:.3f}  {second:.3f} ± {error:.3f}  of {len(logits)}"
                )
    return "\n".join(lines)


def _interval(rows: list[Row], rate: float, draws: int = 200) -> tuple[float, float]:
    """95%, over draws of lines; of whole domains it would be somewhat wider."""
    rng = np.random.default_rng(0)
    picked = (rng.integers(len(rows), size=len(rows)) for _ in range(draws))
    shares = [found_at([rows[at] for at in draw], rate)[0] for draw in picked]
    return float(np.quantile(shares, 0.025)), float(np.quantile(shares, 0.975))


def calibration(rows: list[Row]) -> tuple[float, float]:
    """Returns slope and shift that make the logits of held-out lines probabilities (Platt)."""
    logits = torch.tensor([row["logit"] for row in rows], dtype=torch.float64)
    same = torch.tensor([float(row["same"]) for row in rows], dtype=torch.float64)
    numbers = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([numbers], max_iter=100)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            numbers[0] * logits + numbers[1], same
        )
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    slope, shift = numbers.tolist()
    return slope, shift


def card_of(
    rows: list[Row], learner: Learner, fingerprint: str, training: dict[str, float | str]
) -> JudgeCard:
    """Returns what the file says of itself, by what the judge says of the lines held out."""
    slope, shift = calibration(rows)
    thresholds, finds = {}, {}
    for name, rate in RATES.items():
        found, cut = found_at(rows, rate)
        thresholds[name] = round(1 / (1 + float(np.exp(-(slope * cut + shift)))), 4)
        finds[name] = round(found, 3)
    head = learner.head
    return JudgeCard(
        encoder="all-minilm-l6-v2", fingerprint=fingerprint, first=learner.first, window=256,
        width=head.project.in_features, size=head.project.out_features,
        hidden=head.own.out_features, slope=slope, shift=shift, thresholds=thresholds,
        fires=RATES, finds=finds, training=training,
    )  # fmt: skip


def said_of(judge: Judge, edits: Iterable[Row]) -> list[Row]:
    """Returns lines of edits with what the judge itself says of them, each against its edit."""
    rows = []
    for edit in edits:
        prompt = judge.encode([edit["prompt"]])[0]
        lines = judge.encode([*edit["same"], *edit["other"]], near=[prompt])
        scores = np.clip([judge.score(line, [prompt])[0] for line in lines], 1e-9, 1 - 1e-9)
        kinds = [*edit.get("same_kinds", ()), *edit.get("other_kinds", ())]
        for at, score in enumerate(scores):
            is_same = at < len(edit["same"])
            place = at if is_same else at - len(edit["same"])
            rows.append({
                "same": is_same, "kind": kinds[at] if kinds else f"{place:02}",
                "language": edit.get("language", "en"), "domain": edit.get("domain", ""),
                "logit": float(np.log(score / (1 - score))), "score": float(score),
            })  # fmt: skip
    return rows


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--judge", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    judge = Judge.load(given.judge)
    sets: dict[str, list[Row]] = {
        str(path): [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in given.files
    }
    if not sets:
        sets["held out"] = [_edit(block) for block in load(HERE / "blocks")[1]]
    for name, edits in sets.items():
        begin = time.process_time()
        rows = said_of(judge, edits)
        print(f"{name}: {len(edits)} edits, {len(rows)} lines, {time.process_time() - begin:.0f} s")
        for reach, threshold in judge.thresholds.items():
            fired = {
                same: np.mean([row["score"] >= threshold for row in rows if row["same"] == same])
                for same in (True, False)
            }
            print(f"{reach}: {fired[True]:.3f} of the same fire, {fired[False]:.3f} of others")
        print(table(rows))


def _edit(block: Block) -> Row:
    return {
        "prompt": block.same[0].said, "same": [line.said for line in block.same[1:]],
        "other": [line.said for line in block.other], "language": block.language,
        "same_kinds": [line.kind for line in block.same[1:]],
        "other_kinds": [line.kind for line in block.other], "domain": block.domain,
    }  # fmt: skip


if __name__ == "__main__":
    main()
