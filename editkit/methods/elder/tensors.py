"""The tensors of a snapshot as arrays; ``saved`` lists them. Needs no torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from editkit_store.artifacts.snapshots import Snapshot, Tensor

__all__ = ["FORMAT", "METHOD", "array", "edits_of", "ids_of", "tensor", "weights"]

METHOD = "elder"
"""Name of the method."""

FORMAT = "editkit.elder.1"

_DTYPES: dict[str, Any] = {"U8": "|u1", "I16": "<i2", "F16": "<f2", "F32": "<f4"}


def edits_of(snapshot: Snapshot) -> tuple[str, ...]:
    """Returns the ids of a snapshot's edits; needs only its tensor ``edits``."""
    return ids_of(array(snapshot.tensors["edits"]))


def ids_of(rows: npt.NDArray[Any]) -> tuple[str, ...]:
    """Returns the ids in a tensor ``edits``, ``(n, 8)``."""
    return tuple(row.tobytes().hex() for row in rows)


def weights(found: npt.NDArray[Any], resolution: int | None) -> npt.NDArray[np.float32]:
    """Converts a tensor of numerators to weights; float32 weights are returned unchanged.

    Raises:
        ValueError: The resolution of the numerators is missing.
    """
    if found.dtype == np.float32:
        return found
    if resolution is None:
        raise ValueError("numerators without a resolution")
    return found.astype(np.float32) / np.float32(2**resolution)


def tensor(dtype: str, values: npt.NDArray[Any]) -> Tensor:
    """Returns an array as a tensor of a snapshot."""
    return Tensor(dtype, values.shape, values.astype(_DTYPES[dtype]).tobytes())


def array(tensor: Tensor) -> npt.NDArray[Any]:
    """Returns a tensor of a snapshot as an array."""
    found = np.frombuffer(tensor.data, _DTYPES[tensor.dtype]).reshape(tensor.shape)
    return found.astype(found.dtype.newbyteorder("="))
