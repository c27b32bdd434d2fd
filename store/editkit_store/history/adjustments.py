"""Adjustments: what the log says about the reach of edits, at any version.

An adjustment says of prompts that an edit also applies to them, or must not apply to them. It is an
operation of its own, so the edit stays as it was requested. The sum at a version follows the
history that led to it: what a rollback or an undo discarded does not count, and what one restored
does. Of two adjustments of the same prompt, up to capitals, spaces and punctuation, the later one
applies.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from editkit_store.database.connection import Database
from editkit_store.errors import InvalidRequest
from editkit_store.history.queries import Past
from editkit_store.history.wording import has_text, wording
from editkit_store.records import Adjustments, Edit, Stance

__all__ = [
    "LONGEST",
    "AdjustedPast",
    "ReachChange",
    "changes_of",
    "check_adjustment",
    "extended",
    "stances",
    "summed",
]

LONGEST = 100_000
"""Most characters of the prompts of one adjustment."""

_MOST = 256  # prompts of one adjustment


class ReachChange(NamedTuple):
    """What one operation says about one edit.

    Attributes:
        version: The version that it made.
        edit_id: The edit.
        also: Prompts that the edit also applies to.
        exclude: Prompts that it must not apply to.
    """

    version: int
    edit_id: str
    also: Sequence[str]
    exclude: Sequence[str]


class AdjustedPast(Past):
    """Reads operations, versions and edits, and what was said about the reach of edits."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        # Cached like the end of the log: only this process can write, until a transaction fails.
        self._adjusting: tuple[int, list[ReachChange]] | None = None

    def adjustments(
        self, edit_ids: Collection[str] | None = None, *, at: int
    ) -> dict[str, Adjustments]:
        """Returns what was said about the reach of edits up to a version; others are left out.

        Args:
            edit_ids: The edits, active or not; by default all.
            at: Version.
        """
        changes = self._reach_changes()
        if edit_ids is not None:
            wanted = set(edit_ids)
            changes = [one for one in changes if one.edit_id in wanted]
        if not changes:
            return {}
        self._same(at)  # reads the versions that restored others
        return summed(changes, self._restores[1] if self._restores else {}, at)

    def is_adjusted(
        self, edit_id: str, also: Iterable[str], exclude: Iterable[str], *, at: int
    ) -> bool:
        """Returns whether the reach of an edit is already what an adjustment would make it."""
        known = stances(self.adjustments([edit_id], at=at).get(edit_id, Adjustments()))
        said = stances(Adjustments(also=tuple(also), exclude=tuple(exclude)))
        return all(key in known and known[key][0] == one for key, (one, _) in said.items())

    def _reach_changes(self) -> list[ReachChange]:
        with self._db.turn:
            if self._adjusting is None or self._adjusting[0] != self._db.failures:
                rows = self._db.query(
                    "SELECT kind, version, edit_id, detail FROM operations WHERE changed AND "
                    "(kind = 'adjust' OR kind = 'import' AND "
                    "json_extract(detail, '$.adjustments') IS NOT NULL) ORDER BY version"
                )
                found = [
                    change
                    for kind, version, edit_id, detail in rows
                    for change in changes_of(kind, version, edit_id, json.loads(detail))
                ]
                self._adjusting = self._db.failures, found
            return self._adjusting[1]


def changes_of(
    kind: str, version: int, edit_id: str | None, detail: Mapping[str, Any]
) -> list[ReachChange]:
    """Returns what an operation that made a version says about the reach of edits."""
    if kind == "adjust" and edit_id is not None:
        return [ReachChange(version, edit_id, detail["also"], detail["not"])]
    said = detail.get("adjustments", {}) if kind == "import" else {}
    return [ReachChange(version, one, how["also"], how["not"]) for one, how in said.items()]


def summed(
    changes: Iterable[ReachChange], restores: Mapping[int, int], version: int
) -> dict[str, Adjustments]:
    """Returns the sum of changes at a version, by edit.

    Args:
        changes: The changes, in order.
        restores: Versions that restored an older one, and which.
        version: The version.
    """
    spans = _spans(restores, version)
    found: dict[str, dict[str, tuple[Stance, str]]] = {}
    for change in changes:
        if not any(first < change.version <= last for first, last in spans):
            continue
        known = found.setdefault(change.edit_id, {})
        said: tuple[tuple[Stance, Sequence[str]], ...] = (
            ("also", change.also),
            ("not", change.exclude),
        )
        for stance, prompts in said:
            for prompt in prompts:
                key = wording(prompt)
                known.pop(key, None)  # so that it comes last
                known[key] = stance, prompt
    return {edit_id: _together(known.values()) for edit_id, known in found.items() if known}


def stances(adjustments: Adjustments) -> dict[str, tuple[Stance, str]]:
    """Returns what is said of each wording, and the prompt as it was given."""
    found: dict[str, tuple[Stance, str]] = {}
    found.update((wording(one), ("also", one)) for one in adjustments.also)
    found.update((wording(one), ("not", one)) for one in adjustments.exclude)
    return found


def extended(known: Adjustments, also: Iterable[str], exclude: Iterable[str]) -> Adjustments:
    """Returns adjustments with further prompts, which apply instead of earlier ones."""
    new = stances(Adjustments(also=tuple(also), exclude=tuple(exclude)))
    kept = {key: said for key, said in stances(known).items() if key not in new}
    return _together([*kept.values(), *new.values()])


def check_adjustment(
    edit: Edit, also: Sequence[str], exclude: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the prompts of an adjustment, each wording once.

    Raises:
        InvalidRequest: There are none, or too many; one is empty, too long or not Unicode; one is
            in both lists; or the edit's own prompt is to be excluded.
    """
    found: dict[str, dict[str, str]] = {"also": {}, "not": {}}
    for field, prompts in (("also", also), ("not", exclude)):
        for prompt in [prompts] if isinstance(prompts, str) else prompts:
            _check_prompt(prompt, field)
            found[field].setdefault(wording(prompt), prompt)
    taken, left = found["also"], found["not"]
    if not taken and not left:
        raise InvalidRequest(
            "the adjustment names no prompt", field="also",
            hint="name prompts that the edit should apply to (also), or should not (not)",
        )  # fmt: skip
    if len(taken) + len(left) > _MOST:
        raise InvalidRequest(f"an adjustment names at most {_MOST} prompts", field="also")
    if sum(map(len, (*taken.values(), *left.values()))) > LONGEST:
        raise InvalidRequest(f"the prompts are longer than {LONGEST} characters", field="also")
    if both := taken.keys() & left.keys():
        prompt = left[min(both)]
        raise InvalidRequest(
            f"'{prompt}' cannot both be a prompt that the edit applies to and one that it does not",
            field="not",
        )
    if (own := wording(edit.prompt)) in left:
        raise InvalidRequest(
            f"'{left[own]}' is the edit's own prompt, which it always applies to",
            field="not",
            hint=f"`editkit revert {edit.id}` takes the edit back",
        )
    return tuple(taken.values()), tuple(left.values())


def _check_prompt(prompt: object, field: str) -> None:
    if not isinstance(prompt, str):
        raise InvalidRequest(f"a prompt is a text, not {type(prompt).__name__}", field=field)
    if not has_text(prompt):
        raise InvalidRequest("the prompt is empty", field=field, hint="give the prompt some text")
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            "the text holds a lone surrogate and is not valid Unicode", field=field
        ) from error


def _spans(restores: Mapping[int, int], version: int) -> list[tuple[int, int]]:
    """Returns which versions led to one: the last of each span, and the one before its first."""
    known = sorted(restores)
    spans = []
    while version > 0:
        at = bisect.bisect_right(known, version)
        first = known[at - 1] if at else 0
        spans.append((first, version))
        if not at:
            break
        version = restores[first]
    return spans


def _together(said: Iterable[tuple[Stance, str]]) -> Adjustments:
    pairs = list(said)
    return Adjustments(
        also=tuple(prompt for stance, prompt in pairs if stance == "also"),
        exclude=tuple(prompt for stance, prompt in pairs if stance == "not"),
    )
