"""Random operations on a running model, against a plain Python model of what must be in effect."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tiny import tiny_gpt2, tiny_tokenizer

import editkit
from editkit.history.views import Views
from editkit.methods.grace.codebook import fold

PROMPTS = ("Who?", "What?", "The sky is", "Gold is")
TARGETS = ("Ada", "green", "blue")


def radii(view: Any) -> Any:
    """The radii of a view's codebook by row; of one without edits none."""
    part = view.part("grace")
    return np.zeros(0, np.float32) if part is None else part.radii


class RunningModel(RuleBasedStateMachine):
    """GRACE with balls so wide that nearly every edit gets in the way of every other."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "h.db"
        self.kit: Any = None
        self.members: list[list[str]] = [[]]  # of each version, oldest edit first
        self.prompt: dict[str, str] = {}
        self.undo: list[int] = []  # versions that an undo would take back, the next one last
        self.rule = "disjoint"

    @initialize(rule=st.sampled_from(["disjoint", "paper"]))
    def start(self, rule: str) -> None:
        self.rule = rule
        self.reopen()

    def teardown(self) -> None:
        if self.kit is not None:
            assert self.kit.store.verify().problems == ()
            self.kit.close()
        self.folder.cleanup()

    def push(self, members: list[str]) -> None:
        self.members.append(members)

    @rule(prompt=st.sampled_from(PROMPTS), answer=st.sampled_from(TARGETS))
    def add(self, prompt: str, answer: str) -> None:
        edit = self.kit.add(prompt, answer, on_failure="keep").edit
        self.prompt[edit.id] = prompt
        self.push([*self.members[-1], edit.id])

    @precondition(lambda self: self.members[-1])
    @rule(data=st.data())
    def revert(self, data: st.DataObject) -> None:
        edit_id = data.draw(st.sampled_from(self.members[-1]))
        self.kit.revert(edit_id)
        self.push([one for one in self.members[-1] if one != edit_id])

    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        version = data.draw(st.integers(0, len(self.members) - 1))
        self.kit.rollback(f"v{version}")
        self.push(self.members[version])

    @precondition(lambda self: len(self.members) > 1)
    @rule()
    def undo_and_redo(self) -> None:
        now = self.members[-1]
        undone = self.kit.store.history.last().undo_version
        if undone is None:
            return
        self.kit.undo()
        self.push(self.members[undone - 1])
        self.kit.redo()
        self.push(now)

    @rule()
    def reopen(self) -> None:
        if self.kit is not None:
            self.kit.close()
        self.kit = editkit.open(
            self.path,
            model=(tiny_gpt2(), tiny_tokenizer()),
            grace={"radius": 3.0, "units": "activation", "max_steps": 5, "rule": self.rule},
        )

    def active(self, version: int) -> list[str]:
        members = self.members[version]
        newest = {self.prompt[edit_id]: edit_id for edit_id in members}
        return [edit_id for edit_id in members if edit_id in newest.values()]

    @invariant()
    def the_running_view_is_the_fold_of_its_edits(self) -> None:
        if self.kit is None:
            return
        memory = self.kit.methods.of("grace")._memory
        last = len(self.members) - 1
        assert self.kit.version == f"v{last}"
        for version in {last, last // 2}:
            view = (
                self.kit._running.engine.view
                if version == last
                else self.kit._running.views.at(version)
            )
            found = {
                memory.edit_id(row): float(radii(view)[row])
                for row in np.flatnonzero(radii(view) >= 0).tolist()
            }
            entries = [memory.payload(memory.row(e)).entry for e in self.active(version)]
            expected = fold(entries).radii
            assert found.keys() == expected.keys()
            assert all(abs(found[e] - r) <= 1e-6 * r for e, r in expected.items())

    @invariant()
    def views_built_anew_are_the_same(self) -> None:
        if self.kit is None or len(self.members) % 4:
            return
        views: Views = self.kit._running.views
        kept = {version: radii(view).copy() for version, view in views._kept.items()}
        views._kept.clear()
        for version, before in kept.items():
            views._kept.clear()  # not as another one's, and what changed
            fresh = radii(views.at(version))
            size = min(len(before), len(fresh))
            assert np.array_equal(fresh[:size], before[:size])
            assert (fresh[size:] < 0).all()


TestRunningModel = RunningModel.TestCase
TestRunningModel.settings = settings(max_examples=6, stateful_step_count=14, deadline=None)
