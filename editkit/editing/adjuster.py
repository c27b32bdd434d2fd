"""Adjusting the reach of an edit: prompts that it also applies to, or must not apply to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from editkit.editing.editor import OnFailure
from editkit.engines.base import Engine
from editkit.errors import ContradictsEdit
from editkit.history.views import Views
from editkit.methods.base import SLACK
from editkit.methods.opened import Methods
from editkit.scope.overrides import claimed
from editkit_store import Store
from editkit_store.history.adjustments import check_adjustment, extended, stances
from editkit_store.history.wording import wording
from editkit_store.records import (
    Adjusted,
    AdjustedPrompt,
    Adjustments,
    Edit,
    EditRequest,
    Message,
    Provenance,
)

__all__ = ["Adjuster", "Adjusting"]


class Adjusting(NamedTuple):
    """How an adjustment is made.

    Attributes:
        on_failure: What to do if an ``also`` prompt does not verify.
        dry_run: Only verify; record nothing.
        provenance: Recorded with the operation.
    """

    on_failure: OnFailure
    dry_run: bool
    provenance: Provenance


class Adjuster:
    """Verifies adjustments on the running model, and records them.

    Args:
        store: The history.
        engine: The running model.
        methods: Its methods.
        views: Its views of the history.
    """

    def __init__(self, store: Store, engine: Engine, methods: Methods, views: Views) -> None:
        self._store = store
        self._engine = engine
        self._methods = methods
        self._views = views

    def adjust(
        self, edit: str | Edit, also: Sequence[str], exclude: Sequence[str], how: Adjusting
    ) -> Adjusted:
        """Adjusts an edit and moves the running model to the new version; see ``Kit.adjust``."""
        if how.on_failure not in ("record", "keep"):
            raise ValueError(f"on_failure is 'record' or 'keep', not '{how.on_failure}'")
        history = self._store.history
        edit_id = edit if isinstance(edit, str) else edit.id
        found = history.check_active(history.resolve_edit(edit_id))
        also, exclude = check_adjustment(found, also, exclude)
        if not how.dry_run:
            self._store.check_writable()
        self._refuse_contradictions(found, also)
        checked = self._verified(found, also, exclude)
        result = self._store.adjust(
            found.id,
            also=checked,
            exclude=exclude,
            activate=how.on_failure == "keep" or all(one.carries for one in checked),
            dry_run=how.dry_run,
            provenance=how.provenance,
        )
        if not how.dry_run:
            self._engine.view = self._views.at(history.current())
        return result

    def _verified(
        self, edit: Edit, also: Sequence[str], exclude: Sequence[str]
    ) -> list[AdjustedPrompt]:
        """Returns what the model answers to prompts if the edit is adjusted."""
        if not also:
            return []
        history = self._store.history
        encoded = [self._methods.encode(_asking(edit, prompt)) for prompt in also]
        known = history.adjustments([edit.id], at=history.current()).get(edit.id, Adjustments())
        view = self._views.adjusted(self._engine.view, edit.id, extended(known, also, exclude))
        answers = self._engine.generate(
            [one.prompt for one in encoded],
            views=[view],
            max_new_tokens=max(len(one.target) for one in encoded) + SLACK,
        )
        return [
            AdjustedPrompt(prompt=prompt, carries=answer.text == one.text, answer=answer.text)
            for prompt, one, answer in zip(also, encoded, answers, strict=True)
        ]

    def _refuse_contradictions(self, edit: Edit, also: Sequence[str]) -> None:
        """Raises if another active edit gives another target at one of the prompts.

        Raises:
            ContradictsEdit: It corrects the prompt itself, or was adjusted to apply to it.
        """
        for prompt, other in self._others(edit, also):
            if other.target.strip() != edit.target.strip():
                is_own = wording(prompt) == wording(other.prompt)
                why = "corrects" if is_own else "was adjusted to apply to"
                act = f"revert {other.id}" if is_own else f"adjust {other.id} --not ..."
                raise ContradictsEdit(
                    f"edit '{other.id}' {why} '{prompt}' and gives '{other.target}' there",
                    edits=(other.id,),
                    hint=f"only one edit can apply there; `editkit {act}` takes the other away",
                )

    def _others(self, edit: Edit, also: Sequence[str]) -> Iterator[tuple[str, Edit]]:
        """Yields other active edits that prompts belong to, each with the prompt."""
        history = self._store.history
        current = history.current()
        found = [(prompt, one) for prompt, one in claimed(history, also, current).items()]
        adjusted = history.adjustments(at=current) if also else {}
        for one in history.active_among(list(adjusted), current):
            said = stances(adjusted[one])
            found += [(p, one) for p in also if said.get(wording(p), ("not", ""))[0] == "also"]
        edits = history.edits([one for _, one in found], at=current)
        yield from ((prompt, edits[one]) for prompt, one in found if one != edit.id)


def _asking(edit: Edit, prompt: str) -> EditRequest:
    """Returns an edit's request with another prompt; in a chat, as its last turn."""
    fields = {name: getattr(edit, name) for name in EditRequest.model_fields}
    if edit.chat is not None:
        fields["chat"] = (*edit.chat[:-1], Message(role="user", content=prompt))
    return EditRequest(**{**fields, "prompt": prompt})
