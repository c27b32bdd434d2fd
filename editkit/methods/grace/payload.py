"""Serialization of GRACE artifacts as safetensors bytes, without a deep-learning framework.

A payload holds two float32 tensors, ``key`` of shape ``(d,)`` and ``value`` of shape ``(m,)``, and
string metadata: ``format`` = ``editkit.grace.1``, ``site``, ``position``, ``replacement``,
``radius``, ``rule``, ``target`` (token ids as JSON) and ``owns_row``. With a pooled key the format
is ``editkit.grace.2``, which older versions refuse instead of taking the key for a state; with a
sentence key ``editkit.grace.3``, with the identity of the ``encoder``; and with a text key
``editkit.grace.4``. For an edit with rephrases ``confirm`` is false; see ``editkit.scope.confirm``.
float32 holds every float16 and bfloat16 value exactly.
"""

from __future__ import annotations

import json
import mmap
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from pydantic_core import from_json
from safetensors.numpy import save

from editkit.config import Position, Replacement
from editkit.methods.grace.codebook import Entry
from editkit.methods.grace.config import KeyName
from editkit_store.errors import InvalidRecord

__all__ = ["METHOD", "GracePayload", "Place", "Shelves"]

METHOD = "grace"
"""Name of the method."""

_FORMATS: dict[KeyName, str] = {
    "state": "editkit.grace.1",
    "pooled": "editkit.grace.2",
    "sentence": "editkit.grace.3",
    "text": "editkit.grace.4",
}
_KEYS = {name: key for key, name in _FORMATS.items()}

Place = tuple[str, str, str]
"""Where edits were learned: dotted path of the site, position of the query, and kind of key; for
sentence keys ``sentence:`` and a prefix of the encoder's fingerprint."""

_Tensor = npt.NDArray[np.float32]


@dataclass(frozen=True)
class GracePayload:
    """The artifact of one edit on one model.

    Attributes:
        entry: Its entry in the codebook.
        value: ``(m,)`` float32, replaces the site's output.
        site: Dotted path of the module.
        replacement: Positions that the value replaces.
        position: Token of the prompt that is the query.
        key: Kind of the entry's key; see ``Place``.
        is_confirmed: Whether prompts within its radius are confirmed.
    """

    entry: Entry
    value: npt.NDArray[np.float32]
    site: str
    replacement: Replacement = "last"
    position: Position = "last"
    key: str = "state"
    is_confirmed: bool = True

    @property
    def place(self) -> Place:
        """Where it was learned."""
        return self.site, self.position, self.key

    def to_bytes(self) -> bytes:
        """Returns the payload as safetensors bytes; equal payloads give equal bytes."""
        entry = self.entry
        kind, _, encoder = self.key.partition(":")
        return save(
            {
                "key": np.ascontiguousarray(entry.key, np.float32),
                "value": np.ascontiguousarray(self.value, np.float32),
            },
            metadata={
                # One JSON string, because the byte order of several metadata keys is not fixed.
                "editkit": json.dumps(
                    {
                        **({"encoder": encoder} if encoder else {}),
                        **({} if self.is_confirmed else {"confirm": False}),
                        "format": _FORMATS[cast(KeyName, kind)],
                        "site": self.site,
                        "radius": entry.radius,
                        "rule": entry.rule,
                        "target": list(entry.target),
                        "owns_row": entry.owns_row,
                        "replacement": self.replacement,
                        "position": self.position,
                    },
                    sort_keys=True,
                    separators=(",", ":"),
                )
            },
        )

    @classmethod
    def from_bytes(
        cls, data: bytes, *, edit_id: str, shelves: Shelves | None = None, at: int = 0
    ) -> GracePayload:
        """Reads a payload.

        Args:
            data: Safetensors bytes.
            edit_id: The edit.
            shelves: Arrays to copy its tensors into; None leaves them in ``data``.
            at: Row of the arrays.

        Raises:
            InvalidRecord: It is not a GRACE payload, or has a newer format.
        """
        try:
            start = 8 + int.from_bytes(data[:8], "little")
            header = from_json(data[8:start])
            about = from_json(header["__metadata__"]["editkit"])
            kind: str | None = _KEYS.get(about["format"])
            if kind is None:
                raise InvalidRecord(
                    f"the artifact of edit '{edit_id}' has format '{about['format']}'; "
                    f"this editkit reads {' and '.join(_KEYS)}",
                    hint="upgrade editkit",
                )
            if kind == "sentence":
                kind = f"{kind}:{about['encoder']}"
            site, position = str(about["site"]), about["position"]
            key, value = (_tensor(data, start, header[name]) for name in ("key", "value"))
            if shelves is not None:
                key, value = shelves.put((site, position, kind), at, key, value)
            entry = Entry(
                edit_id=edit_id,
                key=key,
                target=tuple(about["target"]),
                radius=float(about["radius"]),
                rule=about["rule"],
                owns_row=bool(about["owns_row"]),
            )
            is_confirmed = bool(about.get("confirm", True))
            return cls(entry, value, site, about["replacement"], position, kind, is_confirmed)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise InvalidRecord(
                f"the artifact of edit '{edit_id}' is not a GRACE payload: {error}"
            ) from error


class Shelves:
    """Arrays that the tensors of many payloads are read into, one pair per place.

    Touching memory for the first time is the dominant cost: this way a history's keys are written
    once, into the array that the index then uses.

    Args:
        count: Rows of each array.
    """

    def __init__(self, count: int) -> None:
        # Room to grow costs nothing until it is touched.
        self._capacity = 2 * count
        self._arrays: dict[Place, tuple[_Tensor, _Tensor]] = {}

    def put(self, place: Place, at: int, key: _Tensor, value: _Tensor) -> tuple[_Tensor, _Tensor]:
        """Copies a key and a value into the arrays of a place; returns the copies.

        Raises:
            ValueError: Their widths differ from those of the others.
        """
        if place not in self._arrays:
            self._arrays[place] = self._array(len(key)), self._array(len(value))
        keys, values = self._arrays[place]
        if key.shape != keys.shape[1:] or value.shape != values.shape[1:]:
            raise ValueError(f"widths of {len(key)} and {len(value)} differ from the others")
        keys[at], values[at] = key, value
        return keys[at], values[at]

    def keys(self, place: Place) -> _Tensor:
        """Returns the keys of a place, ``(2 count, d)``; unused rows are zero."""
        return self._arrays[place][0]

    def _array(self, width: int) -> _Tensor:
        # numpy's own arrays request huge pages, which a virtual machine has to get from its host
        # first; small pages can be reused from the payloads just read. A history of 100k edits
        # opens a second faster.
        room = mmap.mmap(-1, max(1, self._capacity * width * 4), access=mmap.ACCESS_COPY)
        return np.frombuffer(room, np.float32, self._capacity * width).reshape(-1, width)


def _tensor(data: bytes, start: int, about: dict[str, Any]) -> _Tensor:
    """Returns a tensor as a view of the bytes; safetensors' own reader makes copies.

    Args:
        data: The file.
        start: Offset of the tensors.
        about: The tensor's entry in the header.

    Raises:
        KeyError, ValueError: It is not a float32 vector within the bytes.
    """
    begin, end = about["data_offsets"]
    (length,) = about["shape"]
    if about["dtype"] != "F32" or end - begin != 4 * length:
        raise ValueError(f"a tensor of {about['dtype']} and shape {about['shape']}")
    return np.frombuffer(data, "<f4", length, start + begin)
