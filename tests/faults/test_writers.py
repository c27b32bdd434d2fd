"""Processes that all want to write, killed at random moments: they never meet, nothing is lost."""

from __future__ import annotations

import json
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest
from faults.harness import SEED, Figures, check_whole, child, size

from editkit_store import open_store

pytestmark = pytest.mark.slow

SECONDS = size(8.0, 600.0)
"""How long they contend."""

WRITERS = 3

# By hand, in a DuckDB shell; each changes the history.
TAMPERED = (
    "UPDATE edits SET target = target || '!' WHERE ordinal = {edit}",
    "UPDATE operations SET time = time + INTERVAL 1 SECOND WHERE seq = {operation}",
    "UPDATE operations SET provenance = upper(provenance) WHERE seq = {operation}",
    "DELETE FROM operations WHERE seq = {operation}",
    "DELETE FROM edits WHERE ordinal = {edit}",
    "DELETE FROM membership WHERE version = {operation}",
    "UPDATE membership SET member = NOT member WHERE version = {operation}",
    "UPDATE payloads SET bytes = bytes || 'x'::BLOB WHERE octet_length(bytes) > {operation}",
    "DELETE FROM artifacts WHERE edit_id = (SELECT edit_id FROM edits WHERE ordinal = {edit})",
    "INSERT INTO tags VALUES ({operation}, 'prod', 1)",
)  # fmt: skip


def said(out: Path) -> list[dict[str, Any]]:
    """What a process printed; a line that was cut off is no acknowledgement."""
    return [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n")[:-1]]


def check_tampering(path: Path, copy: Path, chance: random.Random, figures: Figures) -> None:
    """Alters copies of the store by hand; each alteration must be found."""
    with open_store(path) as store:
        count = store.history.count()
    for statement in chance.sample(TAMPERED, size(2, 4)):
        shutil.copy(path, copy)
        sql = statement.format(edit=chance.randint(1, count), operation=chance.randint(1, count))
        with duckdb.connect(str(copy)) as shell:
            shell.execute(sql)
        with open_store(copy) as store:
            assert not store.verify().ok, sql
        figures.add("tampering by hand", "alterations, each found")
    copy.unlink()


def test_writers_that_are_killed_never_meet_and_lose_nothing(
    tmp_path: Path, figures: Figures
) -> None:
    chance = random.Random(f"{SEED} writers")
    path = tmp_path / "history.db"
    open_store(path, write=True, create=True).close()
    acknowledged: dict[str, int] = {}
    outs: list[Path] = []

    def start(number: int) -> Any:
        out = tmp_path / f"{number}-{len(outs)}.out"
        outs.append(out)
        arguments = ("-m", "faults.writer", "contend", path, f"writer {number}", len(outs))
        with out.open("wb") as stdout, out.with_suffix(".err").open("wb") as stderr:
            return child(*arguments, stdout=stdout, stderr=stderr)

    running = [start(number) for number in range(WRITERS)]
    title = f"{WRITERS} processes that write at once"
    end = time.monotonic() + SECONDS
    kills = 0
    # At least so many kills, however slow the machine is to start processes.
    try:
        while time.monotonic() < end or kills < 6:
            time.sleep(chance.uniform(0.1, 3.0))
            number = chance.randrange(WRITERS)
            running[number].kill()
            code = running[number].wait(60)
            assert code == -signal.SIGKILL, _errors(tmp_path)
            running[number] = start(number)
            kills += 1
    finally:
        for one in running:
            one.kill()
            one.wait(60)
    lines = [line for out in outs for line in said(out)]
    assert [line["met"] for line in lines if "met" in line] == []
    log = check_whole(path)
    for line in lines:
        acknowledged[line["edit"]] = line["seq"]
    found = {one.edit_id: one.seq for one in log if one.kind == "add"}
    lost = {edit for edit, seq in acknowledged.items() if found.get(edit) != seq}
    assert lost == set()
    assert len(found) - len(acknowledged) <= kills + WRITERS, "at most one a kill was not told"
    assert len({line["by"] for line in lines}) == WRITERS, "all of them got their turn"
    figures.add(title, "kills", kills)
    figures.add(title, "acknowledged operations, each in its place", len(acknowledged))
    figures.add(title, "written but not yet acknowledged", len(found) - len(acknowledged))
    with open_store(path, write=True) as store:
        store.compact()
    for _ in range(size(1, 20)):
        check_tampering(path, tmp_path / "copy.db", chance, figures)
    beside = {file.name for file in tmp_path.iterdir() if "history.db" in file.name}
    assert beside == {"history.db"}, "what the killed ones left is swept"


def _errors(folder: Path) -> str:
    return "\n".join(file.read_text() for file in folder.glob("*.err"))
