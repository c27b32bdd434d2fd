"""Single bytes changed on the disk: noticed, or without effect. Never a wrong answer, nor a crash.

A byte of a store that verification accepts may differ only where nothing is read from it. The
write-ahead log that a killed process leaves is another matter: a damaged end cannot be told from
an operation that was never finished, so there the history may be shorter, but must be whole.
"""

from __future__ import annotations

import json
import random
import select
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.conftest import Prepared
from faults.harness import LONG, SEED, Figures, child, leave_a_log, size

from editkit_store.database.compact import compact

pytestmark = pytest.mark.slow

LIMIT = 60.0
"""Seconds for one byte."""

HEADERS = 3 * 4096
"""Bytes of DuckDB's three header blocks, at the beginning of the file."""

FINE = {"refused", "found", "harmless"}

OUTCOMES = {
    "refused": "refused",
    "found": "found by verify",
    "harmless": "harmless",
    "shortened": "newest operations missing",
}
"""What the figures call them; any other is a fault."""

MODES = ((False, "opened to read"), (True, "opened to write"))


class Trials:
    """Runs trials in a process of their own, which a byte may take down with it."""

    def __init__(self, kind: str, original: Path, folder: Path) -> None:
        self._arguments = (kind, original)
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self._count = 0

    def run(self, asked: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str, str]]:
        """Yields each trial with its outcome and a detail of it."""
        for one in asked:
            answer = self._tried(one)
            if answer is None:  # again in a fresh process, where nothing else can be to blame
                self.close()
                answer = self._tried(one) or {
                    "outcome": "crash or hang",
                    "detail": f"exit code {self._process.poll() if self._process else None}",
                }
            yield one, answer["outcome"], answer["detail"]

    def _tried(self, asked: dict[str, Any]) -> dict[str, str] | None:
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return None
        ready, _, _ = select.select([self._process.stdout], [], [], LIMIT)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            self._process.kill()
            self._process.wait()
            return None
        found: dict[str, str] = json.loads(line)
        return found

    def _start(self) -> None:
        self.close()
        self._count += 1
        folder = self._folder / f"trials{self._count}"
        folder.mkdir()
        self._process = child(
            "-m", "faults.damage", *self._arguments, folder,
            stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            for stream in (self._process.stdin, self._process.stdout):
                assert stream is not None
                stream.close()
            self._process.wait()
            self._process = None


def check(
    trials: Trials, asked: Iterable[dict[str, Any]], figures: Figures, fine: set[str] = FINE
) -> None:
    """Runs trials, counts their outcomes, and fails with those that must not be."""
    bad = []
    try:
        for one, outcome, detail in trials.run(asked):
            figures.add(one["title"], "bytes")
            figures.add(one["title"], OUTCOMES.get(outcome, outcome.upper()))
            if outcome not in fine:
                bad.append(f"{one}: {outcome}: {detail}")
    finally:
        trials.close()
    assert not bad, f"{len(bad)} of them:\n" + "\n".join(bad[:10])


def flips(length: int, count: int, chance: random.Random, **more: Any) -> list[dict[str, Any]]:
    """Bytes at random places of a file, each changed at random."""
    places = sorted(chance.sample(range(length), min(count, length)))
    return [{"at": at, "mask": chance.randint(1, 255), **more} for at in places]


@pytest.mark.parametrize("shape", ["grown", "compacted"])
def test_a_byte_of_a_store_is_noticed_or_does_not_matter(
    shape: str, prepared: Prepared, tmp_path: Path, figures: Figures
) -> None:
    chance = random.Random(f"{SEED} {shape}")
    path = tmp_path / "history.db"
    shutil.copy(prepared.full, path)
    if shape == "compacted":
        compact(path)
    asked = []
    for write, how in MODES:
        title = f"byte of a {shape} store, {how}"
        length = path.stat().st_size
        asked += flips(length, size(5, 300), chance, write=write, title=title)
    check(Trials("store", path, tmp_path), asked, figures)


def test_a_byte_of_the_header_is_noticed_or_does_not_matter(
    prepared: Prepared, tmp_path: Path, figures: Figures
) -> None:
    chance = random.Random(f"{SEED} header")
    data = prepared.full.read_bytes()[:HEADERS]
    used = [at for at in range(HEADERS) if data[at]]
    asked = []
    for write, how in MODES:
        if LONG and not write:
            places = list(range(HEADERS))
        else:  # all that is not zero, and some of the rest
            places = used if LONG else chance.sample(used, 6)
            places = sorted({*places, *chance.sample(range(HEADERS), size(3, 200))})
        title = f"byte of the header blocks, {how}"
        for at in places:
            asked.append({"at": at, "mask": chance.randint(1, 255), "write": write, "title": title})
    check(Trials("store", prepared.full, tmp_path), asked, figures)


def test_a_byte_of_the_write_ahead_log_leaves_a_whole_history(
    prepared: Prepared, tmp_path: Path, figures: Figures
) -> None:
    path = tmp_path / "history.db"
    shutil.copy(prepared.base, path)
    log = leave_a_log(path, 6)
    chance = random.Random(f"{SEED} log")
    title = "byte of the write-ahead log"
    asked = flips(log.stat().st_size, size(10, 1000), chance, title=title)
    check(Trials("log", path, tmp_path), asked, figures, FINE | {"shortened"})


def test_a_byte_of_a_bundle_is_noticed_or_does_not_matter(
    prepared: Prepared, tmp_path: Path, figures: Figures
) -> None:
    chance = random.Random(f"{SEED} bundle")
    asked = []
    for file in sorted(file for file in prepared.bundle.rglob("*") if file.is_file()):
        name = file.relative_to(prepared.bundle)
        title = f"byte of a bundle's {file.name if name.parent == Path() else 'tensors'}"
        count = size(10, 4000) if name.parent == Path() else size(1, 50)
        asked += flips(file.stat().st_size, count, chance, file=str(name), title=title)
    check(Trials("bundle", prepared.bundle, tmp_path), asked, figures)
