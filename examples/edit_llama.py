"""Correct a decoder (Llama architecture): a fact and a passage, batches, versions side by side.

    python examples/edit_llama.py [model]

The model is `smollm2-135m` unless you name another (an alias, a hub id or a folder).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import editkit

QUESTION = "The capital of Australia is"
BIOGRAPHY = "This is a short biography of Ada Lovelace."
PASSAGE = (
    "Ada Lovelace was an English mathematician who wrote the first program for Charles Babbage's "
    "Analytical Engine."
)


def main() -> None:
    """Runs the example."""
    model = sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m"
    with (
        tempfile.TemporaryDirectory() as folder,
        editkit.open(Path(folder) / "history.db", model=model) as kit,
    ):
        print(f"editing {type(kit.model).__name__} at {kit.site}")
        fact = kit.add(QUESTION, "Canberra")
        passage = kit.add(BIOGRAPHY, PASSAGE, kind="passage")
        print("fact:    ", "verified" if fact.verified else "NOT verified", f"{fact.steps} steps")
        print("passage: ", "verified" if passage.verified else "NOT verified",
              f"{passage.steps} steps")  # fmt: skip

        # One batch: edited and unedited prompts mix, and each row may be at a version of its own.
        prompts = [QUESTION, QUESTION, BIOGRAPHY, "The sun rises in the"]
        versions = ["v0", "v1", "v2", "v2"]
        answers = kit.generate(prompts, version=versions, max_new_tokens=40)
        for prompt, answer in zip(prompts, answers, strict=True):
            fired = "edited" if answer.fired else "as it came"
            print(f"{answer.version} {fired:10}  {prompt} -> {answer.text[:60]!r}")
        print(kit.explain(QUESTION).summary)


if __name__ == "__main__":
    main()
