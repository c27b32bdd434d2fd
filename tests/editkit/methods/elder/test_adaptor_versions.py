"""Random operations with both methods: what every version gave once it gives for ever, bit for bit.

The plain model beside it knows which edits each version has; the weights that go with them are
compared by the logits that the version gave when it was made.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tiny import tiny_gpt2, tiny_tokenizer

import editkit
from editkit.errors import ArtifactsMissing

# PEFT's own, of a name that transformers changed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

PROMPTS = ("red cat", "tall tree", "see Oslo", "gold")
TARGETS = ("Ada", "green", "blue")
METHODS = ("elder", "elder", "grace")


class BothMethods(RuleBasedStateMachine):
    """A kit on a tiny model that learns little of each edit: what counts is which edits apply."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "h.db"
        self.kit: Any = None
        self.model, self.tokenizer = tiny_gpt2(), tiny_tokenizer()
        self.members: list[list[str]] = [[]]  # of each version, oldest edit first
        self.prompt: dict[str, str] = {}
        self.gave: list[torch.Tensor] = []

    @initialize()
    def start(self) -> None:
        self.reopen()
        self.gave.append(self.logits("v0"))

    def teardown(self) -> None:
        if self.kit is not None:
            assert self.kit.store.verify().problems == ()
            self.kit.close()
        self.folder.cleanup()

    def push(self, members: list[str]) -> None:
        self.members.append(members)
        self.gave.append(self.logits(f"v{len(self.members) - 1}"))

    def logits(self, version: str) -> torch.Tensor:
        view, found = self.kit._running.view(version), []
        for prompt in PROMPTS:
            ids = torch.tensor([self.kit.encoder.prompt(prompt)])
            with torch.no_grad(), self.kit._running.engine.running(view):
                found.append(self.model(ids).logits[0, -1])
        return torch.stack(found)

    def active(self, version: int) -> list[str]:
        members = self.members[version]
        newest = {self.prompt[edit_id]: edit_id for edit_id in members}
        return [edit_id for edit_id in members if edit_id in newest.values()]

    @rule(
        asked=st.lists(
            st.tuples(st.sampled_from(PROMPTS), st.sampled_from(TARGETS)), min_size=1, max_size=3
        ),
        method=st.sampled_from(METHODS),
    )
    def add(self, asked: list[tuple[str, str]], method: str) -> None:
        requests = [{"prompt": p, "target": t, "method": method} for p, t in asked]
        members = self.members[-1]
        for one in self.kit.add_many(requests, on_failure="keep"):
            self.prompt[one.edit.id] = one.edit.prompt
            members = [*members, one.edit.id]
            self.push(members)

    @precondition(lambda self: self.members[-1])
    @rule(data=st.data(), defer_only=st.booleans())
    def revert(self, data: st.DataObject, defer_only: bool) -> None:
        edit_id = data.draw(st.sampled_from(self.members[-1]))
        try:
            self.kit.revert(edit_id, defer_only=defer_only)
        except ArtifactsMissing:
            assert defer_only  # what would be active again is forgotten: nothing was changed
            assert self.kit.version == f"v{len(self.members) - 1}"
            return
        self.push([one for one in self.members[-1] if one != edit_id])

    @rule(data=st.data())
    def rollback(self, data: st.DataObject) -> None:
        version = data.draw(st.integers(0, len(self.members) - 1))
        self.kit.rollback(f"v{version}")
        self.push(self.members[version])
        assert torch.equal(self.gave[-1], self.gave[version])

    @precondition(lambda self: len(self.members) > 1)
    @rule()
    def undo_and_redo(self) -> None:
        now, undone = len(self.members) - 1, self.kit.store.history.last().undo_version
        if undone is None:
            return
        self.kit.undo()
        self.push(self.members[undone - 1])
        assert torch.equal(self.gave[-1], self.gave[undone - 1])
        self.kit.redo()
        self.push(self.members[now])
        assert torch.equal(self.gave[-1], self.gave[now])

    @rule()
    def reopen(self) -> None:
        if self.kit is not None:
            self.kit.close()
        self.kit = editkit.open(
            self.path,
            model=(self.model, self.tokenizer),
            grace={"max_steps": 5},
            elder={"r": 2},
            train={"steps": 4, "rounds": 1, "batch_size": 2, "learning_rate": 2e-2},
        )

    @invariant()
    def each_version_has_its_edits_and_gives_what_it_gave(self) -> None:
        if self.kit is None or not self.gave:
            return
        last = len(self.members) - 1
        assert self.kit.version == f"v{last}"
        for version in {last, last // 2, last // 3}:
            view = self.kit._running.view(f"v{version}")
            elder, grace = view.part("elder"), view.part("grace")
            found = [] if elder is None else list(elder.edit_ids)
            found += [] if grace is None else [grace.edit_id(row) for row in grace.rows.tolist()]
            assert sorted(found) == sorted(self.active(version))
            assert torch.equal(self.logits(f"v{version}"), self.gave[version])


TestBothMethods = BothMethods.TestCase
TestBothMethods.settings = settings(max_examples=6, stateful_step_count=12, deadline=None)
