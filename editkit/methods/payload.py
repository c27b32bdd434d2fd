"""GRACE artifacts as safetensors bytes and back, without a deep-learning framework.

A payload holds two float32 tensors, ``key`` of shape ``(d,)`` and ``value`` of shape ``(m,)``, and
string metadata: ``format`` = ``editkit.grace.1``, ``site``, ``position``, ``replacement``,
``radius``, ``rule``, ``target`` (token ids as JSON) and ``owns_row``. float32 holds every float16
and bfloat16 value exactly.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic_core import from_json
from safetensors.numpy import save

from editkit.config import Position, Replacement
from editkit.methods.codebook import Entry
from editkit_store.errors import InvalidRecord

__all__ = ["FORMAT", "GracePayload"]

FORMAT = "editkit.grace.1"


@dataclass(frozen=True)
class GracePayload:
    """What GRACE learned for one edit on one model.

    Attributes:
        entry: Its part in the codebook.
        value: ``(m,)`` float32, what replaces the site's output.
        site: Dotted path of the module.
        replacement: Positions that it replaces.
        position: Token of the prompt that is the query.
    """

    entry: Entry
    value: npt.NDArray[np.float32]
    site: str
    replacement: Replacement = "last"
    position: Position = "last"

    def to_bytes(self) -> bytes:
        """Returns the payload as safetensors bytes; equal payloads give equal bytes."""
        entry = self.entry
        return save(
            {
                "key": np.ascontiguousarray(entry.key, np.float32),
                "value": np.ascontiguousarray(self.value, np.float32),
            },
            metadata={
                # One JSON string: the order of several metadata keys is not fixed in the bytes.
                "editkit": json.dumps(
                    {
                        "format": FORMAT,
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
    def from_bytes(cls, data: bytes, *, edit_id: str) -> GracePayload:
        """Reads a payload.

        Raises:
            InvalidRecord: Not a GRACE payload, or one of a newer format.
        """
        try:
            start = 8 + int.from_bytes(data[:8], "little")
            header = from_json(data[8:start])
            about = from_json(header["__metadata__"]["editkit"])
            if about["format"] != FORMAT:
                raise InvalidRecord(
                    f"the artifact of edit '{edit_id}' has format '{about['format']}'; "
                    f"this editkit reads '{FORMAT}'",
                    hint="upgrade editkit",
                )
            entry = Entry(
                edit_id=edit_id,
                key=_tensor(data, start, header["key"]),
                target=tuple(about["target"]),
                radius=float(about["radius"]),
                rule=about["rule"],
                owns_row=bool(about["owns_row"]),
            )
            return cls(
                entry,
                _tensor(data, start, header["value"]),
                str(about["site"]),
                about["replacement"],
                about["position"],
            )
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise InvalidRecord(
                f"the artifact of edit '{edit_id}' is not a GRACE payload: {error}"
            ) from error


def _tensor(data: bytes, start: int, about: dict[str, Any]) -> npt.NDArray[np.float32]:
    """Returns a tensor as a view of the bytes.

    safetensors' own reader copies; opening a history of 100k edits would take twice as long.

    Args:
        data: The file.
        start: Where the tensors begin.
        about: The tensor's entry in the header.

    Raises:
        KeyError, ValueError: Not a float32 vector that lies within the bytes.
    """
    begin, end = about["data_offsets"]
    (length,) = about["shape"]
    if about["dtype"] != "F32" or end - begin != 4 * length:
        raise ValueError(f"a tensor of {about['dtype']} and shape {about['shape']}")
    return np.frombuffer(data, "<f4", length, start + begin)
