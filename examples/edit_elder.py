"""Correct a decoder by ELDER: edits that share weights, in one history with GRACE's.

    python examples/edit_elder.py [model]

The model is `smollm2-135m` unless you name another (an alias, a hub id or a folder).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import editkit

AUSTRALIA = "The capital of Australia is"
TURKEY = "The capital of Turkey is"
CANADA = "The capital of Canada is"
TELEPHONE = "The inventor of the telephone was"


def main() -> None:
    """Runs the example."""
    model = sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m"
    with (
        tempfile.TemporaryDirectory() as folder,
        editkit.open(Path(folder) / "history.db", model=model) as kit,
    ):
        # Learned together, with a rephrasing: one snapshot of the adaptors, three versions.
        added = kit.add_many(
            [
                {"prompt": AUSTRALIA, "target": "Canberra", "method": "elder",
                 "rephrases": ["Australia's capital city is"]},
                {"prompt": TURKEY, "target": "Ankara", "method": "elder"},
                {"prompt": CANADA, "target": "Ottawa", "method": "elder"},
            ]
        )  # fmt: skip
        for one in added:
            word = "verified" if one.verified else "NOT verified"
            print(f"{one.version}  {word}  {one.edit.prompt} -> {one.answer}")
        grace = kit.add(TELEPHONE, "Antonio Meucci")
        print(f"{grace.version}  by {grace.edit.method}  {TELEPHONE} -> {grace.answer}")

        prompts = ["Australia's capital city is", TURKEY, TELEPHONE, "The sun rises in the"]
        for prompt, answer in zip(prompts, kit.generate(prompts, max_new_tokens=8), strict=True):
            fired = "edited" if answer.fired else "as it came"
            print(f"{fired:10}  {prompt} -> {answer.text!r}")

        changed = kit.diff("v0", "v1")
        print(f"adaptors: {len(changed.adaptors)} layers changed; codes of "
              f"{len(changed.codes.added)} edits came")  # fmt: skip

        # Weights are shared: to take one edit back, what came later is learned again.
        told = kit.revert(added[0].edit.id)
        print(f"{told.version}  {told.detail}; {len(told.lost)} lost")
        for prompt in (AUSTRALIA, CANADA):
            answer = kit.generate(prompt, max_new_tokens=8)
            print(f"{'edited' if answer.fired else 'as it came':10}  {prompt} -> {answer.text!r}")


if __name__ == "__main__":
    main()
