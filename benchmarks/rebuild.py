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

import duckdb
import numpy as np

from editkit.artifacts import load_memories
from editkit.methods.codebook import Entry
from editkit.methods.payload import GracePayload
from editkit.methods.view import GraceView
from editkit_store import open_store
from editkit_store.digest import digest_bytes

FINGERPRINT = "sha256:" + "0" * 64
WIDTHS = (1536, 576)
PART = 10_000


def fill(path: Path, count: int) -> None:
    """Makes a store with ``count`` active edits, in bulk: one at a time would take an hour."""
    open_store(path, write=True, create=True).close()
    noise = np.random.default_rng(0)
    with duckdb.connect(str(path)) as base:
        for start in range(0, count, PART):
            size = min(PART, count - start)
            keys = noise.standard_normal((size, WIDTHS[0]), np.float32)
            value = noise.standard_normal((size, WIDTHS[1]), np.float32)
            names = [f"{start + i:016x}" for i in range(size)]
            data = np.empty(size, object)
            data[:] = [
                GracePayload(Entry(n, k, (i % 900, 7, 2), 2.0), v, "model.layers.23.mlp.down_proj")
                .to_bytes()
                for i, (n, k, v) in enumerate(zip(names, keys, value, strict=True), start)
            ]  # fmt: skip
            digests = np.array([digest_bytes(one) for one in data], object)
            part = {
                "edit": np.array(names, object), "digest": digests, "bytes": data,
                "seq": np.arange(start + 1, start + size + 1),
            }  # fmt: skip
            base.register("part", part)
            base.execute("INSERT INTO payloads SELECT digest, bytes FROM part")
            base.execute(
                "INSERT INTO edits SELECT edit, seq, '{}', edit, edit, edit, 'x', 'fact', 'grace', "
                "now()::TIMESTAMP FROM part"
            )
            base.execute("INSERT INTO membership SELECT seq, edit, true FROM part")
            base.execute(
                "INSERT INTO artifacts (edit_id, fingerprint, model, method, verified, usable, "
                f"digest, metrics, learned_at, conflicts) SELECT edit, '{FINGERPRINT}', 'm', "
                "'grace', true, true, digest, '{}', now()::TIMESTAMP, '{}' FROM part"
            )


def rebuild(path: Path, count: int) -> dict[str, float]:
    """Opens the store and gets ready to answer; returns the seconds of each step."""
    clock = [time.perf_counter()]
    store = open_store(path)
    clock.append(time.perf_counter())
    (memory,) = load_memories(store, FINGERPRINT).values()
    clock.append(time.perf_counter())
    view = GraceView(f"v{count}", memory, memory.rows(store.history.active_ids(count)))
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
            fill(path, count)
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
