"""Edits as people make them, asked as people ask: what comes out, and what else gets an answer.

    python benchmarks/real_use.py [--judge encoder] [--scope broad] [--edits 80]

All edits of ``real_use.jsonl`` are in one store, given by prompt and target alone. Of each, other
wordings (``same``) should get the target, word for word in free generation, and other questions
(``other``) nothing. Printed are totals, with 95% intervals that resample whole edits.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import editkit

DATA = Path(os.environ.get("EDITKIT_DATA", Path(__file__).parents[2] / "shared" / "data"))
BATCH = 32
TOKENS = 24


def interval(by_edit: list[list[bool]]) -> str:
    """Returns a share with its interval."""
    draw = random.Random(0)
    values = sorted(
        sum(sum(one) for one in found) / sum(map(len, found))
        for found in (draw.choices(by_edit, k=len(by_edit)) for _ in range(1000))
    )
    share = sum(map(sum, by_edit)) / sum(map(len, by_edit))
    return f"{share:.3f} [{values[25]:.3f}, {values[975]:.3f}]"


def main() -> None:
    """Adds, asks and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--judge", default=None)
    parser.add_argument("--scope", default="balanced")
    parser.add_argument("--edits", type=int, default=80)
    parser.add_argument("--model", default="smollm2-135m")
    asked = parser.parse_args()
    lines = (DATA / "real_use.jsonl").read_text(encoding="utf-8").splitlines()
    blocks: list[dict[str, Any]] = [json.loads(line) for line in lines if line][: asked.edits]
    with (
        tempfile.TemporaryDirectory() as folder,
        editkit.open(
            Path(folder) / "history.db", model=asked.model, judge=asked.judge, scope=asked.scope
        ) as kit,
    ):
        started = time.monotonic()
        requests = [{"prompt": block["prompt"], "target": block["target"]} for block in blocks]
        added = kit.add_many(requests)
        print(f"{asked.model}, judge {asked.judge or 'by default'}, scope {asked.scope}: "
              f"{sum(one.verified for one in added)} of {len(added)} verified, "
              f"{(time.monotonic() - started) / len(added):.2f} s an edit", flush=True)  # fmt: skip
        for kind in ("same", "other"):
            prompts = [text for block in blocks for text in block[kind]]
            answers = []
            for start in range(0, len(prompts), BATCH):
                part = prompts[start : start + BATCH]
                answers += kit.generate(part, max_new_tokens=TOKENS)
            at = iter(answers)
            found: dict[str, list[list[bool]]] = {"right": [], "own": [], "fires": []}
            for block, one in zip(blocks, added, strict=True):
                mine = [next(at) for _ in block[kind]]
                found["right"].append([a.text.strip() == block["target"].strip() for a in mine])
                found["own"].append([one.edit.id in a.fired for a in mine])
                found["fires"].append([bool(a.fired) for a in mine])
            print(f"{kind}: fires {interval(found['fires'])}, its own edit "
                  f"{interval(found['own'])}, says the target {interval(found['right'])}",
                  flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
