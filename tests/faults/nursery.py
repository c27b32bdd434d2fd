"""Forks children that run editkit: `python -m faults.nursery`, driven by lines on stdin.

Nothing here opens a store or runs a model before the fork, so no thread or lock is lost in it. The
tasks at the end print one JSON line for each operation whose call has returned: what was
acknowledged, and must be there however the process ends.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import itertools
import json
import os
import random
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tiny  # torch and transformers, before the first fork

import editkit
from editkit_cli.main import COMMANDS, main
from editkit_store import open_store

# What a command would import before it begins to work.
for module in ("editkit.kit.open", "faiss", *(place.split(":")[0] for place in COMMANDS.values())):
    with contextlib.suppress(ImportError):
        importlib.import_module(module)

WORDS = tiny.WORDS[:20]


def serve() -> None:
    """Answers requests until stdin ends."""
    ended: dict[int, int] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["task"] == "ready":
            answer: dict[str, Any] = {"ready": True}
        elif asked["task"] == "ended":
            pid = asked["pid"]
            if pid not in ended:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    ended[pid] = os.waitstatus_to_exitcode(status)
            answer = {"code": ended.get(pid)}
        else:
            answer = {"pid": _fork(asked)}
            ended.pop(answer["pid"], None)  # the system gives numbers out again
        _say(answer)


def _fork(asked: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(asked[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), write_through=True)
        os.chdir(asked["folder"])
        os.environ["EDITKIT_LOCK_WAIT"] = "60"
        TASKS[asked["task"]](*asked["arguments"])
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        # Not sys.exit: the parent's cleanup is not ours to run.
        os._exit(code)


def _say(answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def _command(*arguments: str) -> Any:
    """Runs a command line in this process; returns its JSON."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            main([*arguments, "--json"])
        except SystemExit as left:
            if left.code not in (0, 3):
                raise RuntimeError(f"{arguments} left with {left.code}") from None
    return json.loads(out.getvalue())


# Tasks ---------------------------------------------------------------------------------------


def prepare(model: str, other: str, edits: int) -> None:
    """Makes two models and two histories: `base.db` of one model, `full.db` with all there is."""
    tiny.save_tiny(Path(model))
    tiny.save_tiny(Path(other), seed=1)
    requests = [
        {"prompt": f"The word {i} is", "target": WORDS[i % len(WORDS)]} for i in range(edits)
    ]
    requests[2] = {**requests[1], "target": WORDS[7]}  # supersedes the one before
    with editkit.open("base.db", model=model) as kit:
        added = kit.add_many(requests)
        newest = kit.version  # an edit that a random model does not learn makes no version
        kit.tag("v3", "prod")
    Path("full.db").write_bytes(Path("base.db").read_bytes())
    with editkit.open("full.db", model=model) as kit:
        kit.add("Hopeless is", "B C D E " * 12)  # most likely not verified
        kit.revert(added[0].edit.id)
        kit.undo()
        kit.redo()
        kit.tag("v4", "prod")
        kit.rollback(newest)
    with editkit.open("full.db", model=other, missing="skip") as kit:
        kit.replay(to="v4")
        kit.replay()
    with open_store("full.db") as store:
        store.export("bundle")


def adding(model: str, seed: int) -> None:
    """`editkit add`, again and again: opens and closes the store each time."""
    for number in itertools.count():
        target = WORDS[(seed + number) % len(WORDS)]
        prompt = f"New {seed} {number % 30} is"
        done = _command("add", "--prompt", prompt, "--target", target, "--model", model)
        _say({"version": done["version"], "edit": done["edit"]["id"], "prompt": prompt})


def adding_to_one_kit(model: str, seed: int) -> None:
    """`kit.add` on a store that stays open: the write-ahead log grows."""
    with editkit.open("history.db", model=model) as kit:
        for number in itertools.count():
            target = WORDS[(seed + number) % len(WORDS)]
            done = kit.add(prompt=f"New {seed} {number % 30} is", target=target)
            _say({"version": done.version, "edit": done.edit.id, "prompt": done.edit.prompt})


def replaying(model: str, edits: int) -> None:
    """`editkit replay` onto a model that is new to the history, a few edits further each time."""
    for version in range(1, edits + 1):
        done = _command("replay", "history.db", "--model", model, "--to", f"v{version}")
        _say({"to": version, "learned": done["learned"], "failed": done["failed"]})


def _roll_back(newest: int, chance: random.Random) -> None:
    """Rolls back to a version at random, and acknowledges it."""
    target = chance.randint(0, newest)
    done = _command("rollback", f"v{target}")
    _say({"version": done["version"], "view": done["view"], "to": target})


def rolling_back(newest: int, seed: int) -> None:
    """`editkit rollback` to versions at random."""
    chance = random.Random(seed)
    for _ in itertools.count():
        _roll_back(newest, chance)


def compacting(newest: int, seed: int) -> None:
    """`editkit compact`, with a rollback between, so that there is something to lose."""
    chance = random.Random(seed)
    for _ in itertools.count():
        _roll_back(newest, chance)
        _command("compact")
        _say({"compacted": True})


def cli(*arguments: str) -> None:
    """A command line as it is, to its end; 3 (checked, and the answer is no) is a good end too."""
    try:
        main(list(arguments))
    except SystemExit as left:
        if left.code not in (0, 3):
            raise RuntimeError(f"{arguments} left with {left.code}") from None


TASKS: dict[str, Callable[..., None]] = {
    "prepare": prepare,
    "add": adding,
    "kit.add": adding_to_one_kit,
    "replay": replaying,
    "rollback": rolling_back,
    "compact": compacting,
    "cli": cli,
}

if __name__ == "__main__":
    serve()
    os._exit(0)  # taking torch down takes seconds
