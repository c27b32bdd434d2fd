"""What ELDER costs: to learn, to store, to swap, and to every generation.

    python benchmarks/elder_cost.py [--model NAME] [--edits N] [--rounds R]

Edits of zsRE with one rephrasing each are added one by one to a history in a folder of its own, as
`editkit add --method elder` does. Then:

learning      seconds an edit, learning and verification, median of each tenth of the edits.
bytes         what the store keeps of each version's adaptors (tensors and manifest), against all
              of them once: as float32, as save_pretrained writes them; in half precision; and as
              the store keeps them when it keeps them whole.
swap          from asking for a version's view to having it: one that is not in memory (read,
              inflated, compared with its digests), and one that is.
generation    one call of model.generate for a prompt and 16 more tokens, on the untouched model
              and with the adaptors in place: for prompts of edits, and for others. Every round
              times both, in an order that changes; reported are medians, and the median of the
              ratios with its standard error. The answers' lengths are fixed, so that both do the
              same work.

Data: `zsre.jsonl` in the folder EDITKIT_DATA, by default `../shared/data`.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from quality import rows

import editkit
from editkit.kit import Kit

TOKENS = 16
PROMPTS = 12


def learned(kit: Kit, edits: list[dict[str, Any]]) -> None:
    """Adds edits one by one, and prints how long that took."""
    seconds, lost = [], 0
    for edit in edits:
        added = kit.add(
            edit["prompt"], edit["target"], rephrases=edit["rephrases"][:1], method="elder",
            on_failure="keep",
        )  # fmt: skip
        seconds.append(added.seconds)
        lost += len(added.lost)
    step = max(1, len(seconds) // 5)
    for start in range(0, len(seconds), step):
        part = seconds[start : start + step]
        print(f"learning    edits {start + 1:4d} to {start + len(part):4d}   "
              f"median {statistics.median(part):5.2f} s an edit")  # fmt: skip
    said = [
        str(one)
        for one in kit.generate(
            [edit["prompt"] for edit in edits], max_new_tokens=24, delivery="free"
        )
    ]
    kept = sum(one == edit["target"].strip() for one, edit in zip(said, edits, strict=True))
    print(f"learning    {kept} of {len(edits)} prompts give their target at the end; reported as "
          f"lost on the way: {lost}")  # fmt: skip


def stored(kit: Kit) -> None:
    """Prints what versions take in the store."""
    database = kit.store._db
    (tensors, manifests), = database.query(
        "SELECT (SELECT sum(octet_length(bytes)) FROM tensors), "
        "(SELECT sum(length(manifest)) FROM snapshots)"
    )  # fmt: skip
    placed = kit.store.snapshots.placed(kit.fingerprint)
    versions = len({one.digest for one in placed})
    newest = kit.store.snapshots.get(str(placed[-1].digest))
    numbers = {
        name: math.prod(one.shape) for name, one in newest.tensors.items() if one.dtype != "U8"
    }
    codes = sum(len(one.data) for one in newest.tensors.values() if one.dtype == "U8")
    single, half = (size * sum(numbers.values()) + codes for size in (4, 2))
    from editkit_store.artifacts.deltas import packed
    from editkit_store.artifacts.snapshots import ITEMS

    whole = sum(len(packed(one.data, b"", ITEMS[one.dtype])) for one in newest.tensors.values())
    mean = (tensors + manifests) / versions
    (wholes, changes), = database.query(
        "SELECT count(*) FILTER (base IS NULL), count(*) FILTER (base IS NOT NULL) FROM tensors"
    )  # fmt: skip
    print(f"bytes       {mean:,.0f} a version over {versions} versions "
          f"({wholes} tensors whole, {changes} as differences)")  # fmt: skip
    for name, size in (("float32", single), ("half precision", half), ("whole as stored", whole)):
        print(f"bytes       {mean / size:6.1%} of all of them once, {name} ({size:,} bytes)")


def swapped(kit: Kit, rounds: int) -> None:
    """Prints how long a version's view takes."""
    adaptors, views = kit.methods.of("elder")._adaptors, kit._running.views
    last = kit.store.history.current()
    noise = np.random.default_rng(0)
    cold, warm = [], []
    for version in noise.integers(1, last, rounds).tolist():
        adaptors._states.clear()
        views._kept.clear()
        for spent in (cold, warm):
            started = time.perf_counter()
            kit._running.view(f"v{version}")
            spent.append(time.perf_counter() - started)
            views._kept.clear()
    print(f"swap        from the file {statistics.median(cold) * 1e3:6.1f} ms (worst "
          f"{max(cold) * 1e3:.1f}), in memory {statistics.median(warm) * 1e3:5.2f} ms")  # fmt: skip


def generated(kit: Kit, prompts: list[str], rounds: int, name: str) -> None:
    """Prints how much longer generation takes with the adaptors."""
    model = kit.model
    pairs = []
    for number in range(rounds):
        for prompt in prompts:
            ids = torch.tensor([kit.encoder.prompt(prompt)])
            spent: dict[str, float] = {}
            sides = ["without", "with"] if number % 2 else ["with", "without"]
            for side in sides:
                context = kit._running.engine.paused() if side == "without" else None
                started = time.perf_counter()
                if context is None:
                    _run(model, ids)
                else:
                    with context:
                        _run(model, ids)
                spent[side] = time.perf_counter() - started
            pairs.append((spent["without"], spent["with"]))
    ratios = np.array([after / before for before, after in pairs])
    spread = 1.2533 * ratios.std(ddof=1) / math.sqrt(len(ratios))  # of a median
    print(f"generation  {name:9s} {statistics.median(one for one, _ in pairs) * 1e3:7.1f} ms "
          f"without, {statistics.median(one for _, one in pairs) * 1e3:7.1f} ms with: "
          f"{np.median(ratios) - 1:+6.1%} +- {spread:.1%}")  # fmt: skip


def _run(model: Any, ids: torch.Tensor) -> None:
    with torch.no_grad():
        model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=TOKENS,
            min_new_tokens=TOKENS, pad_token_id=0,
        )  # fmt: skip


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--edits", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=12)
    asked: Any = parser.parse_args()
    print(
        f"{asked.model}, CPU, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, Python {platform.python_version()}"
    )
    edits = rows("zsre", asked.edits)
    with (
        tempfile.TemporaryDirectory() as folder,
        editkit.open(Path(folder) / "history.db", model=asked.model) as kit,
    ):
        learned(kit, edits)
        stored(kit)
        swapped(kit, 2 * asked.rounds)
        generated(kit, [one["prompt"] for one in edits[:PROMPTS]], asked.rounds, "in scope")
        others = [one["locality_prompt"] for one in edits[:PROMPTS]]
        fired = sum(bool(one.fired) for one in kit.generate(others, max_new_tokens=1))
        assert not fired, "a probe fires; take others"
        generated(kit, others, asked.rounds, "deferred")


if __name__ == "__main__":
    main()
