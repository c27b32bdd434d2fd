"""Views: from the history's edits at a version to a codebook on the device.

The database is the truth; what is here is a cache. Payloads are read once, folded codebooks are
kept for the last few versions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import torch

from editkit.errors import ArtifactsMissing
from editkit.methods.codebook import Entry, fold
from editkit.methods.grace import GraceView
from editkit.payload import GracePayload
from editkit_store import Store
from editkit_store.records import Artifact
from editkit_store.versions import format_version

__all__ = ["Views"]

_KEPT = 8


class Views:
    """Builds and keeps the views of one store on one model.

    Args:
        store: The history.
        fingerprint: The model's.
        device: Where the site is.
        skip_missing: Leave out edits that this model has not learned, instead of refusing.
    """

    def __init__(
        self, store: Store, fingerprint: str, device: torch.device, *, skip_missing: bool
    ) -> None:
        self._store = store
        self._fingerprint = fingerprint
        self._device = device
        self._skip_missing = skip_missing
        self._payloads: dict[str, GracePayload] = {}
        self._kept: OrderedDict[int, GraceView] = OrderedDict()

    def at(self, version: int) -> GraceView:
        """Returns the view of a version.

        Raises:
            ArtifactsMissing: It holds edits that this model has not learned.
            StoreDamaged: A payload does not hold.
        """
        view = self._kept.get(version)
        if view is None:
            view = self.of(self._store.history.active_ids(version), format_version(version))
        self.keep(version, view)
        return view

    def keep(self, version: int, view: GraceView) -> None:
        """Remembers the view of a version."""
        self._kept[version] = view
        self._kept.move_to_end(version)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)

    def forget(self) -> None:
        """Drops the folded views, after artifacts of older versions came in."""
        self._kept.clear()

    def of(self, edit_ids: Sequence[str], version: str) -> GraceView:
        """Returns the view of the given edits, oldest first."""
        self._load(edit_ids)
        usable = [self._payloads[edit_id] for edit_id in edit_ids if edit_id in self._payloads]
        return self.folded(usable, version)

    def folded(self, payloads: Iterable[GracePayload], version: str) -> GraceView:
        """Returns the view of payloads, oldest first."""
        found = {payload.entry.edit_id: payload for payload in payloads}
        entries: list[Entry] = [payload.entry for payload in found.values()]
        return GraceView(version, fold(entries), found, self._device)

    def payloads(self, edit_ids: Sequence[str]) -> list[GracePayload]:
        """Returns the payloads of edits, oldest first; those without one are left out."""
        self._load(edit_ids)
        return [self._payloads[edit_id] for edit_id in edit_ids if edit_id in self._payloads]

    def put(self, payload: GracePayload) -> None:
        """Takes in a payload that was just stored."""
        self._payloads[payload.entry.edit_id] = payload

    def _load(self, edit_ids: Sequence[str]) -> None:
        wanted = [edit_id for edit_id in edit_ids if edit_id not in self._payloads]
        if not wanted:
            return
        artifacts = self._store.artifacts.on_model(wanted, self._fingerprint)
        missing = tuple(edit_id for edit_id in wanted if edit_id not in artifacts)
        if missing and not self._skip_missing:
            raise self._refusal(missing)
        usable: dict[str, Artifact] = {a.edit_id: a for a in artifacts.values() if a.usable}
        data = self._store.artifacts.payloads(
            [artifact.digest for artifact in usable.values() if artifact.digest]
        )
        for edit_id, artifact in usable.items():
            if artifact.digest:
                self._payloads[edit_id] = GracePayload.from_bytes(
                    data[artifact.digest], edit_id=edit_id
                )

    def _refusal(self, missing: tuple[str, ...]) -> ArtifactsMissing:
        names = self._store.artifacts.model_names()
        known = tuple(fp for fp in self._store.artifacts.counts() if fp != self._fingerprint)
        learned_by = ", ".join(f"{names.get(fp, '?')} ({fp[:19]}…)" for fp in known) or "no model"
        count = f"{len(missing)} active edit{'s' if len(missing) > 1 else ''}"
        return ArtifactsMissing(
            f"this model ({self._fingerprint[:19]}…) has not learned {count} of the history; "
            f"learned by {learned_by}",
            missing=missing,
            fingerprint=self._fingerprint,
            known=known,
            hint=f"learn them on this model: `editkit replay {self._store.path} --model …`",
        )
