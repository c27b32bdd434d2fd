"""Lossless filtering by sketches of keys: centring, projection, storage, and error bounds.

A sketch maps ``x`` in R^d to ``y(x) = store(s B'(x - c))``: ``c`` a centre, ``B`` orthonormal
columns (or none), ``s`` a number that suits the storage type, ``store`` its rounding. As
``||B'v|| <= ||v||``, a row within ``R`` of a query lies within ``s R`` of it in the sketch, up to
rounding. The following bounds that rounding, so that an index over the sketch may use any
arithmetic and still miss no row. Notation: ``D`` true distance, ``N = ||q - c||``,
``Y = ||y(q)||``.

1. ``distances()`` is within ``2**-22 D`` of ``D``, so rows of interest have
   ``D <= R' = R (1 + 2**-22)``.
2. Computing and storing moves a sketch by at most ``t ||y|| + a`` (storage, relative and absolute)
   plus ``w ||x - c||`` (float64 arithmetic of the projection, and ``B`` being orthonormal only to
   float64). Entries out of the storage's range are clipped to it, in rows and queries alike, which
   increases no distance. A row of interest has ``||x - c|| <= N + R'``, so the distance of two
   sketches is at most ``z = s R' + e`` with ``e = t M + 2 a + s w (2 N + R')``, where
   ``M >= ||y(x)|| + Y`` is ``(2 Y + s R' + 2 a + s w (2 N + R')) (1 + 4 t)``.
3. An index that squares and sums in float32, in any order, with or without expanding the square
   (``||x||**2 - 2 x'y + ||y||**2``, where terms cancel), has an error of at most ``g M**2 + b``.

So every row of interest is reported at a square of at most ``z**2 + g M**2 + b``: the *limit*.
Conversely, a row of interest reported at ``f`` has ``D >= (sqrt(f - g M**2 - b) - e) / s``: its
*lower* bound. For other rows that number has no meaning, and needs none.

Float16 has a large ``g``: FAISS on a GPU squares the norms' terms in float16 before it sums them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from editkit.scope.index.distance import Vectors

__all__ = ["HALF_LIMIT", "SAMPLE", "Bound", "Sketch", "on_a_sphere", "sample_of"]

Doubles = npt.NDArray[np.float64]

SAMPLE = 2048
"""Keys sampled to compute centre and directions."""

_TELLING = 0.55
"""Fraction of the directions that a sketch of prompt keys keeps.

Their reach, a cosine of .68, is more than half of the distance of two unrelated keys (.8 against
1.4), and a third of each key is a direction specific to its names: the principal directions of a
sample, however large, do not cover those of new keys. Of 2,500 real prompts, 320 of SmolLM2's 576
directions leave 4 in 10,000 to be measured per query, and 17 if they were estimated from 256 keys;
224 directions leave 70 and 1,500. Measuring a row takes as long as scanning 200.
"""

_EVEN = 16
"""The number of directions is a multiple of this, for vector instructions."""

_OUTLYING = 8.0
"""Keys this many times longer than the median are ignored when fitting the sketch."""

_BLOCK = 1 << 20
"""Float64 numbers per block when keys are projected (8 MB)."""

_HALF_TARGET = 64.0
"""Largest entry of the fitted keys in float16: its square is far from overflow (65504), and most
entries' squares are far from the subnormal numbers (6e-5)."""

HALF_LIMIT = 240.0
"""Largest entry whose square fits in float16; larger keys need another scale."""

_SINGLE_MAX = float(np.finfo(np.float32).max)
_LARGEST = _SINGLE_MAX * (1 - 2.0**-20)
_MOST = {"single": _SINGLE_MAX, "half": float(np.finfo(np.float16).max)}
"""Largest entry of each storage."""

_REPRESENTABLE = 1e18
"""Largest ``M`` whose square fits in float32 with a margin."""


class Bound(NamedTuple):
    """Search limit and error bounds of an index over sketches for one query.

    Attributes:
        limit: A row of interest is reported strictly below it, also when both are rounded to
            float32; infinity if the index cannot be trusted and every row must be measured;
            negative if no row can be within the reach.
        noise: Maximum arithmetic error of a reported square.
        drift: Maximum storage error of the distance of two sketches.
        scale: ``s``.
    """

    limit: float
    noise: float
    drift: float
    scale: float

    def lower(self, squares: Vectors) -> Doubles:
        """Returns lower bounds of the distances of rows reported at ``squares``."""
        clean = np.maximum(squares.astype(np.float64) - self.noise, 0.0)
        apart: Doubles = np.maximum(np.sqrt(clean) - self.drift, 0.0)
        return apart * ((1.0 - 2.0**-21) / self.scale)


@dataclass(frozen=True)
class Sketch:
    """The map, fitted once and then applied to every key and query. Immutable.

    Attributes:
        center: ``(d,)`` float64.
        basis: ``(d, p)`` float64 with orthonormal columns; None keeps all dimensions.
        skew: ``||B'B - I||`` as measured.
        scale: ``s``, a power of two.
        storage: Type in which an index stores entries, float32 or float16; sketches are rounded to
            it, and returned as float32.
    """

    center: Doubles
    basis: Doubles | None = None
    skew: float = 0.0
    scale: float = 1.0
    storage: Literal["single", "half"] = "single"

    @classmethod
    def fit(cls, keys: Vectors, *, dims: int | None = None) -> Sketch:
        """Returns a sketch in float32 fitted to the keys.

        Args:
            keys: ``(n, d)`` float32, at least one. A sample of them is used.
            dims: Number of principal directions to keep; None, or at least ``d``, keeps all
                dimensions. For keys of equal length, as many as needed to separate them.
        """
        sample = sample_of(keys)
        center = sample.mean(axis=0)
        width = keys.shape[1]
        if dims is None or dims >= width:
            return cls(center)
        if on_a_sphere(sample):
            telling = -(-round(_TELLING * width) // _EVEN) * _EVEN
            dims = min(max(dims, telling), width)
        basis = _directions(sample - center, dims)
        skew = float(np.linalg.norm(basis.T @ basis - np.eye(dims)))
        return cls(center, basis, skew)

    @classmethod
    def fit_half(cls, keys: Vectors) -> Sketch:
        """Returns a sketch in float16, all dimensions kept, scaled so that the keys fit."""
        center = sample_of(keys).mean(axis=0)
        largest = max(
            float(np.abs(keys[at : at + SAMPLE] - center).max())
            for at in range(0, len(keys), SAMPLE)
        )
        return cls(center, scale=_scale(_HALF_TARGET, largest), storage="half")

    @property
    def dims(self) -> int:
        """Width of a sketch."""
        return len(self.center) if self.basis is None else self.basis.shape[1]

    def apply(self, keys: Vectors) -> Vectors:
        """Returns the sketches of keys or queries, ``(n, dims)`` float32, rounded as stored."""
        found = np.empty((len(keys), self.dims), np.float32)
        limit = _MOST[self.storage]
        step = max(1, _BLOCK // max(1, keys.shape[1]))
        for start in range(0, len(keys), step):
            exact = self._exact(keys[start : start + step])
            np.minimum(exact, limit, out=exact)  # np.clip takes five times as long for one query
            np.maximum(exact, -limit, out=exact)
            found[start : start + step] = exact.astype(
                np.float16 if self.storage == "half" else np.float32
            )
        return found

    def bound(self, query: Vectors, sketch: Vectors, reach: float, largest: float) -> Bound:
        """Returns limit and error terms for finding every row within ``reach`` of a query.

        Works on one query, with Python floats: while a model runs, numpy is not in the processor's
        caches, and each operation on an array costs 20 to 40 microseconds.

        Args:
            query: ``(d,)`` float32, finite.
            sketch: ``(dims,)`` float32, its sketch.
            reach: Largest distance of interest, L2; finite and not negative.
            largest: Largest absolute entry of the sketches in the index.
        """
        moved = query - self.center
        dims, width = self.dims, len(self.center)
        storage, absolute = 2.0**-23, math.sqrt(dims) * 2.0**-149  # t, a
        relative, tiny = (dims + 16) * 2.0**-23, dims * 2.0**-125  # g, b
        if self.storage == "half":  # tensor cores may truncate instead of rounding
            storage, absolute = 2.0**-10, math.sqrt(dims) * 2.0**-25
            relative, tiny = (dims + 16) * 2.0**-21 + 2.0**-10, dims * 2.0**-23
        entries = sketch.astype(np.float64)
        length = math.sqrt(moved @ moved)  # N
        short = math.sqrt(entries @ entries)  # Y
        radius = (reach * (1 + 2.0**-22) + 2.0**-149) * self.scale  # s R'
        arithmetic = self.skew + (width + 8) * math.sqrt(dims) * 2.0**-50  # w
        fixed = 2 * absolute + arithmetic * (2 * self.scale * length + radius)
        both = (2 * short + radius + fixed) * (1 + 4 * storage)  # M
        drift = storage * both + fixed  # e
        noise = relative * (both * both) + tiny
        peak = float(np.abs(entries).max(initial=0.0))
        # A single entry proves that no row is within reach. Does not use ``M``, which is not finite
        # for a query too large for the storage type.
        if peak > (largest + radius + fixed) * (1 + 4 * storage):
            return Bound(-1.0, noise, drift, self.scale)
        cap = HALF_LIMIT if self.storage == "half" else _REPRESENTABLE
        if not both < _REPRESENTABLE or not peak <= cap:
            return Bound(math.inf, noise, drift, self.scale)
        limit = (radius + drift) * (radius + drift) + noise
        # Enlarged so that it stays above the exact limit when rounded to float32.
        limit = limit * (1 + 2.0**-22) + 2.0**-147
        return Bound(limit if limit < _LARGEST else math.inf, noise, drift, self.scale)

    def _exact(self, keys: Vectors | Doubles) -> Doubles:
        moved = keys - self.center  # float64, as the centre is
        if self.basis is not None:
            moved = moved @ self.basis
        return moved if self.scale == 1.0 else moved * self.scale


def sample_of(keys: Vectors | Doubles) -> Doubles:
    """Returns a sample of the keys, ``(m, d)`` float64, without outliers."""
    sample = keys[:: max(1, len(keys) // SAMPLE)].astype(np.float64)
    lengths = np.sqrt(np.square(sample).sum(axis=1))
    typical = float(np.median(lengths))
    return sample[lengths <= _OUTLYING * typical] if typical else sample


def on_a_sphere(keys: Vectors | Doubles) -> bool:
    """Whether a sample of the keys has equal length, as prompt keys have."""
    sample = sample_of(keys)
    lengths = np.sqrt(np.square(sample).sum(axis=1))
    return len(sample) > 1 and float(np.ptp(lengths)) <= 1e-3 * float(lengths.mean())


def _scale(target: float, largest: float) -> float:
    """Returns the largest power of two that keeps an entry within a target."""
    exponent = math.frexp(target / largest)[1] - 1 if largest else 0
    return math.ldexp(1.0, min(exponent, 120))


def _directions(centered: Doubles, count: int) -> Doubles:
    """Returns ``count`` directions of large variance, ``(d, count)``, orthonormal.

    Uses subspace iteration: any orthonormal basis is correct, a better one prunes more, and a full
    decomposition at a width of 4096 would take longer than projecting 100k keys.
    """
    start = np.random.default_rng(0).standard_normal((centered.shape[1], count + 8))
    basis = np.linalg.qr(start).Q
    for _ in range(4):
        basis = np.linalg.qr(centered.T @ (centered @ basis)).Q
    # Rotated to the principal axes of the subspace, so that truncation keeps the best ones.
    seen = centered @ basis
    turn = np.linalg.eigh(seen.T @ seen).eigenvectors
    return np.ascontiguousarray(basis @ turn[:, ::-1][:, :count])
