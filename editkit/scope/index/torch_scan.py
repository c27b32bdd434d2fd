"""The torch backend, used without FAISS: scans the same projection on any device.

Distances of sketches come from ``torch.cdist`` without expanding the square: a matrix product may
run in TF32 or bfloat16, depending on the user's settings. Every step runs in inference mode, so
that a table may be filled inside a caller's inference mode and grow outside it.

It is slow, but never wrong, in the same cases as ``faiss_scan``.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from editkit.scope.index.candidates import ALL, NONE, Candidates
from editkit.scope.index.distance import Vectors
from editkit.scope.index.sketch import Bound, Sketch

__all__ = ["DIMS", "TorchScan"]

DIMS = 24
"""Dimensions of the projection."""

_FIRST_CAPACITY = 1024


class TorchScan:
    """Exact scan over sketches on a device, see ``candidates.IndexBackend``.

    Args:
        device: Device of the sketches.
        dims: Dimensions kept.
    """

    name = "torch"
    is_stale = False

    def __init__(self, device: str, *, dims: int = DIMS) -> None:
        self._device = torch.device(device)
        self._dims = dims
        self._sketch: Sketch | None = None
        self._sketches = self._buffer(0, 0)  # (capacity, dims)
        self._count = 0
        self._largest = 0.0

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer on the device."""
        return self._sketches.numel() * 4

    @torch.inference_mode()
    def build(self, keys: Vectors) -> None:
        """Replaces the contents by ``keys``."""
        self._sketch = Sketch.fit(keys, dims=self._dims)
        self._sketches = self._buffer(0, self._sketch.dims)
        self._count, self._largest = 0, 0.0
        self.add(keys)

    @torch.inference_mode()
    def add(self, keys: Vectors) -> None:
        """Appends ``keys``."""
        assert self._sketch is not None
        sketches = self._sketch.apply(keys)
        self._largest = max(self._largest, float(np.abs(sketches).max(initial=0.0)))
        needed = self._count + len(keys)
        if needed > len(self._sketches):
            capacity = max(needed, 2 * self._count, _FIRST_CAPACITY)
            grown = self._buffer(capacity, self._sketch.dims)
            grown[: self._count] = self._sketches[: self._count]
            self._sketches = grown
        self._sketches[self._count : needed] = torch.from_numpy(sketches)
        self._count = needed

    @torch.inference_mode()
    def propose(self, queries: Vectors, reach: float) -> list[Candidates]:
        """Returns every row whose sketch lies within the reach, with a margin for rounding."""
        assert self._sketch is not None
        sketches = self._sketch.apply(queries)
        found = []
        for query, sketch in zip(queries, sketches, strict=True):
            bound = self._sketch.bound(query, sketch, reach, self._largest)
            if bound.limit < 0:
                found.append(NONE)
            else:
                found.append(ALL if bound.limit == math.inf else self._within(sketch, bound))
        return found

    def _within(self, sketch: Vectors, bound: Bound) -> Candidates:
        distances = torch.cdist(
            torch.from_numpy(sketch[None]).to(self._device),
            self._sketches[: self._count],
            compute_mode="donot_use_mm_for_euclid_dist",
        )[0]
        # The root of the limit, rounded up, because comparing with a Python number rounds it.
        root = math.sqrt(bound.limit) * (1 + 2.0**-20)
        positions = torch.nonzero(distances < root)[:, 0]
        squares = distances[positions].square().cpu().numpy()
        return Candidates(positions.cpu().numpy(), bound.lower(squares))

    def _buffer(self, rows: int, dims: int) -> torch.Tensor:
        # Explicit dtype, because a program may have changed torch's default.
        return torch.empty(rows, dims, dtype=torch.float32, device=self._device)
