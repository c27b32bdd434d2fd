"""How the history's commands grow with the history.

    python benchmarks/history.py [--edits N ...] [--runs R]

Stores of GRACE edits with keys and values of 576 numbers, made by ``generated.fill``, all active.
Every line is measured on a copy of the store, in the system's cache. Reported are medians.

log: `editkit log -n 20` in a new process, against the same command on an empty store. diff: two
versions 1,000 edits apart, edits and codebook. append: operations a second in one process, one by
one, each durable when it returns; and in groups of 64 as `add_many` and `editkit add --from` append
what was learned together, each durable when it is acknowledged. verify: edits a second, every
digest derived anew. rollback: across 1,000 edits and back, on a running model with the store's
codebook behind it (random weights of width 576). bytes: of the file after `editkit compact`,
against those of keys and values; and of what the appended edits added. The first line says how fast
the machine is, as virtual machines differ threefold from hour to hour.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import generated
import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

import editkit
from editkit.history.diff import diff
from editkit.models.identity import fingerprint
from editkit_store import NewEdit, digest_bytes, open_store
from editkit_store.database.compact import compact
from editkit_store.records import Artifact, EditRequest

WIDTH = 576
TENSORS = 2 * WIDTH * 4
APPENDED = 2_000


def model() -> tuple[Any, Any]:
    """A small Llama with random weights, whose site takes and gives states of width 576."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=2,
        num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=64,
    )  # fmt: skip
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(64)}, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w1")
    return transformers.LlamaForCausalLM(config).eval(), tokenizer


def median(act: Callable[[], Any], runs: int) -> float:
    """Median seconds of an action."""
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        act()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def log_seconds(path: Path, runs: int) -> float:
    """Seconds of `log -n 20` in a process of its own."""
    command = [sys.executable, "-m", "editkit_cli", "log", "-n", "20", "--store", str(path)]
    return median(lambda: subprocess.run(command, check=True, capture_output=True), runs)


def append(path: Path, count: int, group: int = 1) -> tuple[float, float]:
    """Operations a second, and bytes that each added to the file."""
    noise = np.random.default_rng(1)
    open_store(path, write=True).close()
    before = path.stat().st_size
    with open_store(path, write=True) as store:
        started = time.perf_counter()
        new: list[NewEdit] = []
        for number in range(count):
            edit = store.prepare(EditRequest(prompt=f"Appended {number}:", target="x"))
            payload = noise.bytes(TENSORS + 250)
            artifact = Artifact(
                edit_id=edit.id, fingerprint=generated.FINGERPRINT, model="m", method="grace",
                verified=True, usable=True, digest=digest_bytes(payload), conflicts={}, radius=1.0,
                metrics={"answer": "x", "seconds": 0.5, "steps": 9},
            )  # fmt: skip
            new.append(NewEdit(edit, artifact, payload, activate=True))
            if len(new) == group or number == count - 1:
                store.add_many(new)
                new = []
        rate = count / (time.perf_counter() - started)
    return rate, (path.stat().st_size - before) / count


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edits", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--runs", type=int, default=9)
    asked: Any = parser.parse_args()
    loaded = model()
    site = "model.layers.1.mlp.down_proj"
    print(
        f"CPU, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"duckdb {duckdb.__version__}, {asked.runs} runs"
    )
    print(f"a Python loop of ten million additions: {median(_loop, 5):.2f} s")
    print()
    print(
        "    edits   log      against   diff    append    in 64s    verify    rollback  back   "
        "bytes against"
    )
    print(
        "            ms       empty     ms      op/s      op/s      edits/s   ms        ms     "
        "the tensors'"
    )
    with tempfile.TemporaryDirectory() as work:
        empty = Path(work) / "empty.db"
        open_store(empty, write=True, create=True).close()
        for count in asked.edits:
            path = Path(work) / "h.db"
            generated.fill(
                path, count, widths=(WIDTH, WIDTH), fingerprint=fingerprint(loaded[0]), site=site
            )
            compact(path)
            size = path.stat().st_size / count / TENSORS
            # In turns, so that what slows the machine down slows both.
            pairs = [(log_seconds(empty, 1), log_seconds(path, 1)) for _ in range(asked.runs)]
            log = statistics.median(full for _, full in pairs)
            ratio = statistics.median(full / none for none, full in pairs)
            with open_store(path) as store:
                apart = functools.partial(diff, store, f"v{count - 1000}", f"v{count}")
                differ = median(apart, asked.runs)
                verify = count / median(functools.partial(_sound, store), 3)
            copy = Path(work) / "copy.db"
            shutil.copy(path, copy)
            rate, added = append(copy, APPENDED)
            shutil.copy(path, copy)
            grouped, _ = append(copy, APPENDED, group=64)
            shutil.copy(path, copy)
            there, back = _rollbacks(copy, loaded, site, max(asked.runs, count - 1000), asked.runs)
            print(
                f"{count:9,d} {1e3 * log:6.0f} {ratio:9.2f} {1e3 * differ:9.0f} {rate:9.0f} "
                f"{grouped:9.0f} "
                f"{verify:9.0f} {1e3 * there:9.1f} {1e3 * back:8.1f}   {size:.2f}, appended "
                f"{added / TENSORS:.2f}",
                flush=True,
            )
            path.unlink()
            copy.unlink()


def _loop() -> None:
    """Tells how fast the machine is at the moment: times above can be held against it."""
    total = 0
    for number in range(10_000_000):
        total += number


def _sound(store: Any) -> None:
    assert store.verify().ok


def _rollbacks(
    path: Path, loaded: tuple[Any, Any], site: str, version: int, runs: int
) -> tuple[float, float]:
    there, back = [], []
    with editkit.open(path, model=loaded, grace={"site": site}) as kit:
        kit.undo()
        kit.redo()
        for run in range(runs):
            started = time.perf_counter()
            kit.rollback(f"v{version - run}")  # one that no view is kept of
            there.append(time.perf_counter() - started)
            started = time.perf_counter()
            kit.undo()
            back.append(time.perf_counter() - started)
    return statistics.median(there), statistics.median(back)


if __name__ == "__main__":
    main()
