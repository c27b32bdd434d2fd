"""How long opening a history takes: the codebook and its index, rebuilt from the store.

    python benchmarks/rebuild.py [--keys N ...] [--runs R]

A store is filled with edits of random keys (of SmolLM2-135M's widths at the default site: keys of
1536 numbers, values of 576), all active, none in conflict. Each run is a new process that opens the
file, reads every artifact and checks its digest, folds the newest version, fills the index, and
looks one query up. The file is in the system's cache. Reported are medians over the runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from generated import FINGERPRINT, fill

from editkit.methods.grace.part import GracePart
from editkit.methods.grace.restore import load_memories
from editkit_store import open_store

WIDTHS = (1536, 576)


def rebuild(path: Path, count: int) -> dict[str, float]:
    """Opens the store and gets ready to answer; returns the seconds of each step."""
    clock = [time.perf_counter()]
    store = open_store(path)
    clock.append(time.perf_counter())
    (memory,) = load_memories(store, FINGERPRINT).values()
    clock.append(time.perf_counter())
    view = GracePart(memory, memory.rows(store.history.active_ids(count)))
    clock.append(time.perf_counter())
    chosen = memory.table.select(memory.keys(np.array([count // 2])), view.radii)
    clock.append(time.perf_counter())
    assert len(view) == count
    assert chosen.tolist() == [count // 2]
    return dict(zip(("open", "read", "fold", "index"), np.diff(clock).tolist(), strict=True))


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keys", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--once", type=Path, help="one run on a store that is there")
    asked: Any = parser.parse_args()
    if asked.once:
        print(json.dumps(rebuild(asked.once, asked.keys[0])))
        return
    print(f"CPU, {os.cpu_count()} cores, Python {platform.python_version()}, {asked.runs} runs")
    print()
    print("     keys  file MB     open     read     fold    index    total, seconds")
    for count in asked.keys:
        with tempfile.TemporaryDirectory() as work:
            path = Path(work) / "h.db"
            fill(path, count, widths=WIDTHS)
            command = [sys.executable, __file__, "--once", str(path), "--keys", str(count)]
            runs = [
                json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                for _ in range(asked.runs)
            ]
            steps = [statistics.median(run[name] for run in runs) for name in runs[0]]
            total = statistics.median(sum(run.values()) for run in runs)
            size = path.stat().st_size / 1e6
        print(f"{count:9,d} {size:8.0f} " + "".join(f"{s:9.2f}" for s in [*steps, total]))


if __name__ == "__main__":
    main()
