"""Runs the fault tests at length and writes what came of them to benchmarks/results/faults.txt.

    python tests/faults/run.py [kill|writers|corruption|limits|server|fuzz ...]

Without arguments all parts run, three quarters of an hour on two cores. The figures of a part take
the place of those it had in the file. Leaves with 1 if a test failed.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "faults.txt"
PARTS = ("kill", "writers", "corruption", "limits", "server", "fuzz")


def run(part: str) -> tuple[bool, str]:
    """Runs one part; returns whether all held, and its section of the file."""
    sys.path.insert(0, str(HERE.parent))
    from faults.harness import Figures

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "pytest", str(HERE / f"test_{part}.py"), "-q"]
        # Of the usual places pytest keeps three, and other runs would clear away ours.
        command += ["--basetemp", str(Path(folder) / "work")]
        settings = {
            "EDITKIT_FAULTS": "long",
            "EDITKIT_FAULTS_FIGURES": str(figures),
            "OMP_NUM_THREADS": "1",
        }
        done = subprocess.run(command, cwd=ROOT, env={**os.environ, **settings}, check=False)
        counts = json.loads(figures.read_text(encoding="utf-8")) if figures.exists() else {}
    found = Figures({title: Counter(outcomes) for title, outcomes in counts.items()})
    held = done.returncode == 0
    minutes = (time.monotonic() - started) / 60
    head = f"[{part}] {'all tests passed' if held else 'TESTS FAILED'}, {minutes:.1f} minutes"
    return held, "\n".join([head, *found.lines()])


def sections() -> dict[str, str]:
    """Returns the sections that the file has, by their parts."""
    if not RESULTS.exists():
        return {}
    blocks = RESULTS.read_text(encoding="utf-8").strip().split("\n\n")
    return {block[1 : block.index("]")]: block for block in blocks if block.startswith("[")}


def main(parts: list[str]) -> int:
    """Runs the parts in turn, and writes the file after each."""
    if unknown := set(parts) - set(PARTS):
        sys.exit(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    import duckdb

    all_held = True
    for part in parts or PARTS:
        held, section = run(part)
        all_held &= held
        found = {**sections(), part: section}
        head = (
            "What came of doing harm, by tests/faults/run.py (make test-faults)\n"
            f"Python {platform.python_version()}, DuckDB {duckdb.__version__}, "
            f"{platform.system()}"
        )
        blocks = [head, *(found[name] for name in PARTS if name in found)]
        RESULTS.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    return 0 if all_held else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
