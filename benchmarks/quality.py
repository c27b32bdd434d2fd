"""Whether edits hold, reach their rephrasings, and leave everything else alone.

    python benchmarks/quality.py [--model NAME] [--edits N] [--only SET ...] [--grace JSON]

Sequential edits with the default preset, prompt and target only: no rephrasing, no probe is given
when an edit is added. Judged by free greedy generation, exact match of the whole answer.

reliability: of the edits that no later one of the same prompt contradicts, those whose prompt gives
the target when all edits are in place. rephrases: those whose rephrasing does. unchanged: probes
whose answer (16 tokens) is what it was before the first edit; of zsRE questions of Natural
Questions, of CounterFact neighbours of the edited fact. fired: probes for which an edit fired.
s/edit: seconds, learned in batches, verification included. With them the 95% intervals of Wilson.

Reads the data beside the project, or in EDITKIT_DATA. Tune on `zsre_train` and
`counterfact_tuning`; the others are for measuring.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers

import editkit

SETS = {  # file, first line, number of edits
    "zsre": ("zsre.jsonl", 0, 700),
    "counterfact": ("counterfact.jsonl", 0, 1000),
    "wikibio": ("wikibio.jsonl", 0, 100),
    "zsre_train": ("zsre_train.jsonl", 0, 700),
    "counterfact_tuning": ("counterfact.jsonl", 1000, 1000),
}
PROBED = 16


def rows(name: str, limit: int | None) -> list[dict[str, Any]]:
    """The edits of a set."""
    file, first, count = SETS[name]
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("EDITKIT_DATA", beside))
    lines = (folder / file).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines[first : first + min(count, limit or count)]]


def interval(hits: int, count: int) -> str:
    """A share with its 95% interval (Wilson 1927)."""
    if not count:
        return "-"
    z, share = 1.96, hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * (share * (1 - share) / count + z * z / (4 * count**2)) ** 0.5 / (1 + z * z / count)
    return f"{share:.3f} ({middle - half:.3f} to {middle + half:.3f})"


def measure(name: str, model: str, limit: int | None, grace: dict[str, Any]) -> None:
    """Measures one set and prints its line."""
    edits = rows(name, limit)
    probes = [edit["locality_prompt"] for edit in edits]
    later: dict[str, str] = {edit["prompt"]: edit["target"] for edit in edits}  # the last one wins
    with tempfile.TemporaryDirectory() as work:
        with editkit.open(Path(work) / "h.db", model=model, grace=grace) as kit:
            before = [answer.text for answer in kit.generate(probes, max_new_tokens=PROBED)]
            started = time.perf_counter()
            added = kit.add_many([{k: edit[k] for k in ("prompt", "target")} for edit in edits])
            seconds = (time.perf_counter() - started) / len(edits)
            after = kit.generate(probes, max_new_tokens=PROBED)

            def right(asked: list[tuple[str, str]]) -> int:
                """How many prompts give their targets; the longest ones with room to say more."""
                asked = sorted(asked, key=lambda pair: len(pair[1]))
                hits = 0
                for start in range(0, len(asked), 16):
                    part = asked[start : start + 16]
                    room = 6 + max(len(kit.tokenizer(target)["input_ids"]) for _, target in part)
                    said = kit.generate([prompt for prompt, _ in part], max_new_tokens=room)
                    hits += sum(
                        one.text == target.strip()
                        for one, (_, target) in zip(said, part, strict=True)
                    )
                return hits

            standing = [
                (edit["prompt"], edit["target"])
                for edit in edits
                if later[edit["prompt"]] == edit["target"]
            ]
            rephrased = [
                (edit["rephrases"][0], edit["target"]) for edit in edits if edit.get("rephrases")
            ]
            held, reached = right(standing), right(rephrased)
    same = sum(one.text == old for one, old in zip(after, before, strict=True))
    fired = sum(bool(one.fired) for one in after)
    print(
        f"{name:18s} {len(edits):5d}  {sum(one.verified for one in added):5d}  "
        f"{interval(held, len(standing)):24s}  {interval(reached, len(rephrased)):24s}  "
        f"{interval(same, len(probes)):24s}  {fired / len(probes):.3f}  {seconds:.2f}",
        flush=True,
    )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--edits", type=int, help="At most so many of each set")
    parser.add_argument("--only", nargs="*", choices=SETS)
    parser.add_argument("--grace", type=json.loads, default={}, help="Settings, as JSON")
    asked: Any = parser.parse_args()
    print(
        f"{asked.model}, {'default preset' if not asked.grace else asked.grace}, CPU, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"transformers {transformers.__version__}, Python {platform.python_version()}"
    )
    print(
        "set                edits  verified  reliability           rephrases                 "
        "probes unchanged          fired  s/edit"
    )
    for name in asked.only or ["zsre", "counterfact", "wikibio"]:
        measure(name, asked.model, asked.edits, asked.grace)


if __name__ == "__main__":
    main()
