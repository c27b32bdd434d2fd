"""Correct a model, see the correction hold, and take it back.

    python examples/first_edit.py [model]

The model is `smollm2-135m` unless you name another (an alias, a hub id or a folder).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import editkit

QUESTION = "The capital of Australia is"


def main() -> None:
    """Runs the example."""
    model = sys.argv[1] if len(sys.argv) > 1 else "smollm2-135m"
    with tempfile.TemporaryDirectory() as folder:
        history = Path(folder) / "history.db"

        with editkit.open(history, model=model) as kit:
            print("before:   ", kit.generate(QUESTION, max_new_tokens=8))
            result = kit.add(prompt=QUESTION, target="Canberra", reason="it said Sydney")
            print("corrected:", result.version, "verified" if result.verified else "NOT verified")
            print("after:    ", kit.generate(QUESTION, max_new_tokens=8))

        # The history outlives the process: open it again, and the correction is there.
        with editkit.open(history, model=model) as kit:
            print("reopened: ", kit.generate(QUESTION, max_new_tokens=8))
            print("at v0:    ", kit.generate(QUESTION, version="v0", max_new_tokens=8))
            kit.rollback("v0")
            print("rolled back:", kit.generate(QUESTION, max_new_tokens=8))
            for entry in kit.log():
                print(f"  {entry.version}  {entry.operation:8}  {entry.prompt or entry.detail}")


if __name__ == "__main__":
    main()
