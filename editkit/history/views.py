"""Views: from the history's edits at a version to a codebook that the running model applies.

The database is the truth; what is here is a cache. What the model has learned is read once, and the
views of the last few versions are kept.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from editkit.engines.base import Mixture
from editkit.engines.transformers.site import Site
from editkit.errors import ArtifactsMissing
from editkit.methods.elder.restore import Adaptors
from editkit.methods.grace.memory import Memory
from editkit.methods.grace.payload import Place
from editkit.methods.grace.restore import load_memories
from editkit.methods.grace.view import GraceView
from editkit_store import Store
from editkit_store.history.versions import format_version

__all__ = ["Views"]

_KEPT = 8

Rows = npt.NDArray[np.int64]


class Views:
    """Builds and keeps the views of one store on one model at one site.

    Args:
        store: The history.
        fingerprint: The model's.
        site: Where the values go.
        position: Token of a prompt that is the query.
        key: What an edit is looked up by.
        width: Length of such a key.
        name: Name that the model was loaded by.
        skip_missing: Leave out edits that this model has not learned, instead of refusing.
        device: Torch's name of the device that looks keys up; None is the CPU.

    Attributes:
        memory: What the model has learned there.
        adaptors: What it has learned by ELDER.

    Raises:
        ArtifactsMissing: The site has other widths than what was learned there.
        StoreDamaged, InvalidRecord: An artifact cannot be read.
    """

    def __init__(
        self,
        store: Store,
        fingerprint: str,
        *,
        site: Site,
        position: str,
        key: str,
        width: int,
        name: str,
        skip_missing: bool,
        device: str | None = None,
    ) -> None:
        self._store = store
        self._fingerprint = fingerprint
        self._site = site
        self._place: Place = (site.path, position, key)
        self._width = width
        self._name = name
        self._skip_missing = skip_missing
        self._device = device
        self._turn = threading.RLock()  # versions are asked for in several threads
        self._kept: OrderedDict[int, GraceView] = OrderedDict()
        self.memory = Memory()
        self.adaptors = Adaptors(store, fingerprint)
        self._read()

    def reload(self) -> None:
        """Reads again what the model has learned, after artifacts came in from elsewhere."""
        self.adaptors.reload()
        self._read()

    def _read(self) -> None:
        self._kept.clear()
        memories = load_memories(self._store, self._fingerprint, device=self._device)
        self.memory = memories.pop(self._place, Memory(device=self._device))
        self._attempted = self._store.artifacts.attempted(self._fingerprint)
        self._elsewhere = {
            memory.edit_id(row): place
            for place, memory in memories.items()
            for row in range(len(memory))
        }
        if len(self.memory):
            self._check_widths()

    def at(self, version: int, *, like: GraceView | None = None) -> GraceView:
        """Returns the view of a version.

        Args:
            version: The version.
            like: The view of another one with the same edits.

        Raises:
            ArtifactsMissing: It holds edits that this model has not learned.
        """
        with self._turn:
            view = self._kept.get(version)
            if view is None:
                mixture, unknown = self.adaptors.at(version)
                if unknown and not self._skip_missing:
                    raise self._refusal(tuple(unknown))
                rows = self._moved(version) if like is None else like.rows
                if rows is None:
                    rows = self._rows(self._store.history.active_ids(version))
                view = self.folded(rows, format_version(version), mixture)
            self.keep(version, view)
            return view

    def _moved(self, version: int) -> Rows | None:
        """Returns the rows of a version as another one's and what changed between them.

        So a step takes time in proportion to what it changes, not to the history. Where the fold
        depends on the order of the edits, there is no such way.
        """
        if not self._kept or self.memory.is_ordered:
            return None
        history = self._store.history
        near = version - 1 if version - 1 in self._kept else next(reversed(self._kept))
        came, went = history.moves(near, version) or history.changes(near, version)
        self._refuse_missing(came)
        rows = self._kept[near].rows
        left = np.zeros(len(self.memory), np.bool_)
        left[self.memory.rows(went)] = True
        rows = rows[~left[rows]]
        return np.concatenate([rows, self.memory.rows(came)])

    def learned(self, version: int) -> set[str]:
        """Returns the edits of a version that the model can restore."""
        mixture, _ = self.adaptors.at(version)
        found = set(() if mixture is None else mixture.edit_ids)
        return found.union(e for e in self._store.history.active_ids(version) if e in self.memory)

    def known(self, edit_ids: Sequence[str], version: int) -> GraceView:
        """Returns the view of edits at a version; those that are not learned are left out."""
        mixture, _ = self.adaptors.at(version)
        return self.folded(self.memory.rows(edit_ids), format_version(version), mixture)

    def keep(self, version: int, view: GraceView) -> None:
        """Remembers the view of a version."""
        with self._turn:
            self._kept[version] = view
            self._kept.move_to_end(version)
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)

    def _rows(self, edit_ids: Sequence[str]) -> Rows:
        """Returns the rows of edits, oldest first.

        Raises:
            ArtifactsMissing: This model has not learned them all.
        """
        self._refuse_missing(edit_ids)
        return self.memory.rows(edit_ids)

    def _refuse_missing(self, edit_ids: Sequence[str]) -> None:
        missing = tuple(
            edit_id
            for edit_id in edit_ids
            if edit_id not in self.memory
            and edit_id not in self.adaptors
            and (edit_id not in self._attempted or edit_id in self._elsewhere)
        )
        if missing and not self._skip_missing:
            raise self._refusal(missing)

    def folded(self, rows: Rows, version: str, mixture: Mixture | None = None) -> GraceView:
        """Returns the view of rows of the memory; oldest edit first where that counts."""
        return GraceView(version, self.memory, rows, mixture)

    def _check_widths(self) -> None:
        payload = self.memory.payload(0)
        found = (len(payload.entry.key), len(payload.value))
        wanted = (self._width, self._site.width)
        if found != wanted:
            raise ArtifactsMissing(
                f"'{self._site.path}' needs keys of width {wanted[0]} and gives {wanted[1]}, but "
                f"the history's edits there have keys of width {found[0]} and values of {found[1]}",
                missing=(payload.entry.edit_id,),
                fingerprint=self._fingerprint,
                known=(self._fingerprint,),
                hint="the module is not the one that the edits were learned at",
            )

    def _refusal(self, missing: tuple[str, ...]) -> ArtifactsMissing:
        names = self._store.artifacts.model_names()
        known = tuple(fp for fp in self._store.artifacts.counts() if fp != self._fingerprint)
        learned_by = ", ".join(f"{names.get(fp, '?')} ({fp[:19]}…)" for fp in known) or "no model"
        count = f"{len(missing)} active edit{'s' if len(missing) > 1 else ''}"
        place = next((self._elsewhere[e] for e in missing if e in self._elsewhere), None)
        if place is not None:
            return ArtifactsMissing(
                f"{count} were learned at {_said(place)}; the model was opened at "
                f"{_said(self._place)}",
                missing=missing,
                fingerprint=self._fingerprint,
                known=(self._fingerprint,),
                hint="leave the site out (the history's own is used), or learn them there: "
                "kit.replay() after editkit.open(..., missing='skip')",
            )
        return ArtifactsMissing(
            f"this model ({self._fingerprint[:19]}…) has not learned {count} of the history; "
            f"learned by {learned_by}",
            missing=missing,
            fingerprint=self._fingerprint,
            known=known,
            hint=f"learn them on this model: `editkit replay {self._store.path} --model "
            f"{self._name}`",
        )


def _said(place: Place) -> str:
    site, position, key = place
    return f"'{site}' with the {position} token as the query and {key} keys"
