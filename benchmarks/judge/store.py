"""Which edit prompts ask for, all edits of a file in one store: recall and judge, without a model.

    python benchmarks/judge/store.py FILE [--system]

With ``--system`` what a block's system prompt says counts as said before each of its lines.

Decisions depend on no model, so none is loaded. Printed are totals at the thresholds that ship, and
never a line of the file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from editkit.scope.judge import Judge
from editkit.scope.meaning import MeaningScope, Verdict
from editkit_store.records import EditRequest


def asked(line: Any) -> tuple[str, ...]:
    """Returns a prompt, or the turns of a conversation without those of the system."""
    if isinstance(line, dict) and line.get("role") is None:
        line = line.get("chat") or line.get("turns") or line["prompt"]
    if isinstance(line, str):
        return (line,)
    return tuple(
        one if isinstance(one, str) else one["content"]
        for one in line
        if isinstance(one, str) or one["role"] != "system"
    )


def main() -> None:
    """Prints how many prompts ask for their edit, and how many other questions for any."""
    lines = Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()
    blocks = [json.loads(line) for line in lines if line.strip()]
    edits = {
        f"{at:06}": EditRequest(prompt=asked(block)[-1], target=block["target"])
        for at, block in enumerate(blocks)
    }

    def requests(ids: Sequence[str] | None) -> Mapping[str, EditRequest]:
        return edits if ids is None else {one: edits[one] for one in ids}

    judge = Judge.load()
    scope = MeaningScope(judge, requests, "balanced")

    def first(block: Any, line: Any) -> Verdict | None:
        chat = block.get("chat", ()) if "--system" in sys.argv else ()
        before = [one["content"] for one in chat if one["role"] == "system"]
        turns = (*before, *asked(line))
        text = turns if len(turns) > 1 else turns[0]
        return next(iter(scope.verdicts(text, lambda _: True)), None)

    same = [
        0.0 if found is None or edits[found.edit_id].target != block["target"] else found[1]
        for block in blocks
        for found in (first(block, line) for line in block["same"])
    ]
    other = [
        0.0 if found is None else found.probability
        for block in blocks
        for found in (first(block, line) for line in block["other"])
    ]
    print(f"{Path(sys.argv[1]).name}: {len(edits)} edits, {len(same)} same, {len(other)} other")
    for name, least in judge.thresholds.items():
        right, fires = (np.mean([one >= least for one in some]) for some in (same, other))
        print(f"{name} (from {least}): {right:.3f} ask for their edit, {fires:.3f} fire another")


if __name__ == "__main__":
    main()
