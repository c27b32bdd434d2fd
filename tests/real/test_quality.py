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


def run(*options: str) -> list[str]:
    script = ROOT / "benchmarks" / "quality.py"
    done = subprocess.run(
        [sys.executable, str(script), *options],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_small_run_measures_what_is_here_and_says_what_the_other_rows_lack(
    smollm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDITKIT_DATA", str(tmp_path))
    lines = run("--small", "--only", "real_use", "real_use_gemma", "one_product", "undone")
    rows = {line.split()[0]: line for line in lines if not line.startswith(" ")}
    assert "skipped: real_use.jsonl is not in" in rows["real_use"]
    assert "skipped: " in rows["real_use_gemma"]
    assert rows["one_product"].split()[1:4] == ["smollm2-135m", "grace", "2"]
    assert [line.split()[0] for line in lines if line.startswith(" ")][:2] == [
        "attribute",
        "chatty",
    ]
    assert rows["undone"].count("the same") == 4


@pytest.mark.skipif(
    not (DATA / "counterfact.jsonl").exists(),
    reason="the data sets are not here; EDITKIT_DATA names their folder",
)
def test_edits_hold_reach_their_rephrasings_and_leave_the_rest_alone(smollm: Any) -> None:
    lines = [line.split() for line in run("--edits", "16", "--only", "zsre", "counterfact")[2:]]
    assert [line[:3] for line in lines] == [["zsre", "grace", "16"], ["counterfact", "grace", "16"]]
    for line in lines:
        reliability, rephrases, unchanged = (float(line[at]) for at in (3, 7, 11))
        assert reliability == 1
        assert rephrases >= 0.6  # .75 of a thousand may be ten of sixteen
        assert unchanged >= 0.9
        assert float(line[16]) == pytest.approx(1, abs=1e-3)  # perplexity over the base model's
