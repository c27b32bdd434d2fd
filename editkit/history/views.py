"""Views: the history's edits at a version, as the running model applies them.

The database is the source of truth; this is a cache. What the model has learned is read once, and
the views of the last few versions are kept.
"""

from __future__ import annotations

import dataclasses
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from editkit.engines.base import Engine, Part, View
from editkit.errors import ArtifactsMissing
from editkit.history.unusable import unusable
from editkit.methods.base import Change
from editkit.methods.opened import Methods
from editkit.scope.overrides import Overrides, asked_text, claimed
from editkit_store import Store
from editkit_store.history.versions import format_version
from editkit_store.records import Adjustments

__all__ = ["Views"]

_KEPT = 8


class Views:
    """Builds and caches the views of one store on one running model.

    Args:
        store: The history.
        engine: The running model.
        methods: Its methods.
        skip_missing: Leave out edits that this model has not learned, instead of raising.

    Raises:
        ArtifactsMissing: The artifacts do not fit the model.
        StoreDamaged, InvalidRecord: An artifact cannot be read.
    """

    def __init__(
        self, store: Store, engine: Engine, methods: Methods, *, skip_missing: bool
    ) -> None:
        self._store = store
        self._engine = engine
        self._methods = methods
        self._skip_missing = skip_missing
        self._lock = threading.RLock()  # several threads request versions
        self._kept: OrderedDict[int, View] = OrderedDict()
        self._warned: set[str] = set()  # methods that a warning was issued for
        self._said = asked_text(engine.tokenizer)
        self.reload()

    def reload(self) -> None:
        """Reads what the model has learned; call it again after artifacts were imported."""
        self._kept.clear()
        self._methods.reload()
        if self._engine.reader is not None:
            self._engine.reader.reload()
        self._attempted = self._store.artifacts.attempted(self._engine.fingerprint)

    def at(self, version: int, *, like: View | None = None) -> View:
        """Returns the view of a version.

        Args:
            version: The version.
            like: A view of another version with the same edits, to reuse.

        Raises:
            ArtifactsMissing: The version holds edits that this model has not learned.
        """
        with self._lock:
            view = self._kept.get(version)
            if view is None:
                view = self._build(version, like)
            self.keep(version, view)
            return view

    def _build(self, version: int, like: View | None) -> View:
        """Builds a view from a nearby one, in time proportional to the difference."""
        near, added, removed = like, list[str](), list[str]()
        if near is None and self._kept:
            other = version - 1 if version - 1 in self._kept else next(reversed(self._kept))
            history = self._store.history
            added, removed = history.moves(other, version) or history.changes(other, version)
            near = self._kept[other]
        active = self._store.history.active_ids(version) if near is None else []
        self._refuse_missing(active if near is None else added)
        parts: list[Part] = []
        for method in self._methods:
            if near is None:
                part, unknown = method.part(active, version)
            else:
                change = Change(near.part(method.name), added, removed)
                part, unknown = method.part_at(version, change)
            if unknown and not self._skip_missing:
                raise self._missing_error(tuple(unknown))
            if part is not None:
                parts.append(part)
        return View(format_version(version), tuple(parts), self.overrides(version))

    def overrides(self, version: int) -> Overrides | None:
        """Returns what people said about the reach of the edits that are active at a version."""
        history = self._store.history
        found = history.adjustments(at=version)
        active = history.in_order(history.active_among(list(found), version)) if found else []
        said = {edit_id: found[edit_id] for edit_id in active}
        prompts = {prompt for one in said.values() for prompt in one.also}
        return Overrides(said, self._said, claimed=claimed(history, prompts, version))

    def adjusted(self, view: View, edit_id: str, said: Adjustments) -> View:
        """Returns a view with other adjustments of one edit, e.g. to verify them."""
        overrides = view.overrides or Overrides({}, self._said)
        return dataclasses.replace(view, overrides=overrides.with_adjusted(edit_id, said))

    def learned(self, version: int) -> set[str]:
        """Returns the edits of a version that the model can restore."""
        active = self._store.history.active_ids(version)
        found: set[str] = set()
        for method in self._methods:
            _, unknown = method.part(active, version)
            found.update(one for one in active if one in method)
            found.difference_update(unknown)
        return found

    def known(self, edit_ids: Sequence[str], version: int) -> View:
        """Returns the view of edits at a version, without those that are not learned."""
        found = [method.part(edit_ids, version)[0] for method in self._methods]
        return View(format_version(version), tuple(part for part in found if part is not None))

    def keep(self, version: int, view: View) -> None:
        """Caches the view of a version."""
        with self._lock:
            self._kept[version] = view
            self._kept.move_to_end(version)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)

    def _refuse_missing(self, edit_ids: Iterable[str]) -> None:
        """Raises if this model has not learned some edits, unless missing ones are skipped.

        Edits of a method that is not installed are left out with a warning: no model could apply
        them.
        """
        missing = list(edit_ids)
        for method in self._methods:
            missing = [one for one in missing if one not in method]
        missing = [one for one in missing if one not in self._attempted or self._is_elsewhere(one)]
        if not missing or self._skip_missing:
            return
        made_with = self._store.history.methods_of(missing)
        missing = [one for one in missing if self._methods.get(made_with[one]) is not None]
        if missing:
            raise self._missing_error(tuple(missing))

    def warn_of_unusable(self, version: int) -> None:
        """Warns about active edits whose methods are not available: they do not apply."""
        found = unusable(self._store, version, lambda name: self._methods.get(name) is not None)
        for name, warning in found.items():
            if name not in self._warned:
                self._warned.add(name)
                warnings.warn(warning, stacklevel=2)

    def _is_elsewhere(self, edit_id: str) -> bool:
        return any(edit_id in method.elsewhere for method in self._methods)

    def _missing_error(self, missing: tuple[str, ...]) -> ArtifactsMissing:
        fingerprint = self._engine.fingerprint
        names = self._store.artifacts.model_names()
        known = tuple(fp for fp in self._store.artifacts.counts() if fp != fingerprint)
        learned_by = ", ".join(f"{names.get(fp, '?')} ({fp[:19]}…)" for fp in known) or "no model"
        count = f"{len(missing)} active edit{'s' if len(missing) > 1 else ''}"
        for method in self._methods:
            place = next((method.elsewhere[e] for e in missing if e in method.elsewhere), None)
            if place is not None:
                return ArtifactsMissing(
                    f"{count} were learned at {place}; the model was opened at {method.place}",
                    missing=missing,
                    fingerprint=fingerprint,
                    known=(fingerprint,),
                    hint="leave the site out (the history's own is used), or learn them there: "
                    "kit.replay() after editkit.open(..., missing='skip')",
                )
        return ArtifactsMissing(
            f"this model ({fingerprint[:19]}…) has not learned {count} of the history; "
            f"learned by {learned_by}",
            missing=missing,
            fingerprint=fingerprint,
            known=known,
            hint=f"learn them on this model: `editkit replay {self._store.path} --model "
            f"{self._engine.name}`",
        )
