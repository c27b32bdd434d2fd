"""A small run of `make quality`: the claims of the README, on few edits."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("EDITKIT_DATA", ROOT.parent / "shared" / "data"))


@pytest.mark.skipif(
    not (DATA / "counterfact.jsonl").exists(),
    reason="the data sets are not here; EDITKIT_DATA names their folder",
)
def test_edits_hold_reach_their_rephrasings_and_leave_the_rest_alone(smollm: Any) -> None:
    script = ROOT / "benchmarks" / "quality.py"
    done = subprocess.run(
        [sys.executable, str(script), "--edits", "16", "--only", "zsre", "counterfact"],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()[2:]]
    assert [line[:3] for line in lines] == [["zsre", "grace", "16"], ["counterfact", "grace", "16"]]
    for line in lines:
        reliability, rephrases, unchanged = (float(line[at]) for at in (3, 7, 11))
        assert reliability == 1
        assert rephrases >= 0.6  # .75 of a thousand may be ten of sixteen
        assert unchanged >= 0.9
        assert float(line[16]) == pytest.approx(1, abs=1e-3)  # perplexity over the base model's
