"""What one edit learned, as safetensors bytes and back."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from editkit_store.errors import InvalidRecord

__all__ = ["FORMAT", "Payload"]

FORMAT = "editkit-rankone.1"

Vector = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Payload:
    """What one edit learned on one model.

    Attributes:
        key: What prompts are compared with, ``(k,)``.
        down: ``(d,)``, by which what enters the map is read: 1 at the subject.
        up: ``(m,)``, what is added to the map's output there.
        site: Dotted path of the map.
        radius: How far it reaches from its key, L2.
        target: Its target's tokens.
        is_confirmed: Whether prompts in its reach are looked at twice.
    """

    key: Vector
    down: Vector
    up: Vector
    site: str
    radius: float
    target: tuple[int, ...]
    is_confirmed: bool = True

    @property
    def norm(self) -> float:
        """Frobenius norm of the map that is added."""
        return float(np.linalg.norm(self.down) * np.linalg.norm(self.up))

    def to_bytes(self) -> bytes:
        """Returns it as bytes; equal ones for equal."""
        about = {
            "format": FORMAT,
            "site": self.site,
            "radius": self.radius,
            "target": list(self.target),
            "confirm": self.is_confirmed,
        }
        text = json.dumps(about, sort_keys=True, separators=(",", ":"))
        tensors = {
            name: np.ascontiguousarray(one, np.float32)
            for name, one in (("down", self.down), ("key", self.key), ("up", self.up))
        }
        return save(tensors, metadata={"rankone": text})

    @classmethod
    def from_bytes(cls, data: bytes, *, edit_id: str) -> Payload:
        """Reads a payload.

        Raises:
            InvalidRecord: It is none, or one of a newer format.
        """
        try:
            size = 8 + int.from_bytes(data[:8], "little")
            about = json.loads(json.loads(data[8:size])["__metadata__"]["rankone"])
            if about["format"] != FORMAT:
                raise ValueError(f"its format is '{about['format']}', not '{FORMAT}'")
            tensors = load(data)
            return cls(
                tensors["key"],
                tensors["down"],
                tensors["up"],
                str(about["site"]),
                float(about["radius"]),
                tuple(about["target"]),
                bool(about["confirm"]),
            )
        except (KeyError, ValueError, TypeError, SafetensorError) as error:
            raise InvalidRecord(
                f"the artifact of edit '{edit_id}' is not a rank-one payload: {error}"
            ) from error
