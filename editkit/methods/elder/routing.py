"""Routing: the experts of a query, and the distances of its code to those of the edits.

Li et al., "ELDER: Enhancing Lifelong Model Editing with Mixture-of-LoRA", AAAI 2025,
arXiv 2408.11869. A router per layer scores its N experts from the query q of a sequence,

    s_l = softmax(W_l q),

and the k best of each layer are its allocation. As bits, L layers of N each, that is its
allocation code; codes are compared by Hamming distance. Training draws an edit to its assigned
allocation A with the guided loss

    L_guide = - sum_{(l, j) in A} log s_{l, j}.

Codes are packed, eight bits per byte, and compared by popcount.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import torch

__all__ = [
    "allocate",
    "allocations_of",
    "chosen",
    "distances",
    "guided_loss",
    "packed",
    "scores",
    "unit_rms",
]

Codes = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.int64]

_TRIES = 64
"""Allocations drawn per edit; the one furthest from all others is used."""


def unit_rms(queries: torch.Tensor) -> torch.Tensor:
    """Returns queries ``(n, d)`` at unit root mean square, float32.

    Hidden states of modern models are large: unscaled, they would saturate the softmax.
    """
    found = queries.float()
    return found / found.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=1e-6)


def scores(routers: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """Returns the scores of the experts, ``(n, L, N)`` float32, which sum to 1 in each layer.

    Args:
        routers: ``(L, N, d)`` float32, the routers' weights.
        queries: ``(n, d)`` float32.
    """
    return torch.einsum("nd,led->nle", queries, routers).softmax(dim=-1)


def chosen(found: torch.Tensor, k: int) -> torch.Tensor:
    """Returns the k best experts of each layer, ``(n, L, k)`` int64, ascending.

    At equal scores the lower index wins, so that a code does not depend on the device.

    Args:
        found: ``(n, L, N)`` scores.
        k: Experts in use.
    """
    order = found.sort(dim=-1, descending=True, stable=True).indices
    return order[..., :k].sort(dim=-1).values


def packed(allocations: Indices, experts: int) -> Codes:
    """Returns allocations ``(n, L, k)`` as codes of ``ceil(L N / 8)`` bytes, ``(n, bytes)``."""
    count, layers, _ = allocations.shape
    bits = np.zeros((count, layers, experts), np.uint8)
    np.put_along_axis(bits, allocations, 1, axis=2)
    return np.packbits(bits.reshape(count, layers * experts), axis=1)


def allocations_of(codes: Codes, layers: int, experts: int) -> Indices:
    """Returns the allocations ``(n, L, k)`` of codes ``(n, bytes)``; the inverse of ``packed``.

    Raises:
        ValueError: A code has different numbers of experts in its layers.
    """
    bits = np.unpackbits(codes, axis=1, count=layers * experts).reshape(len(codes), layers, experts)
    counts = bits.sum(axis=2)
    if counts.size and counts.min() != counts.max():
        raise ValueError("a code names different numbers of experts in different layers")
    k = int(counts.max(initial=0))
    return np.nonzero(bits)[2].reshape(len(codes), layers, k).astype(np.int64)


def distances(asked: Codes, stored: Codes) -> npt.NDArray[np.int64]:
    """Returns the Hamming distances between codes, ``(n, m)``.

    Args:
        asked: ``(n, bytes)``.
        stored: ``(m, bytes)``.
    """
    apart = np.zeros((len(asked), len(stored)), np.int64)
    for byte in range(stored.shape[1]):  # byte by byte, to avoid an (n, m, bytes) array
        apart += np.bitwise_count(asked[:, byte, None] ^ stored[None, :, byte])
    return apart


def guided_loss(found: torch.Tensor, allocations: torch.Tensor) -> torch.Tensor:
    """Returns the guided loss of each row, ``(n,)`` nats.

    Args:
        found: ``(n, L, N)`` scores.
        allocations: ``(n, L, k)`` int64.
    """
    return -found.clamp(min=1e-30).log().gather(2, allocations).sum(dim=(1, 2))


def allocate(
    count: int,
    *,
    layers: int,
    experts: int,
    k: int,
    taken: Collection[bytes] = (),
    seed: int = 0,
) -> Indices:
    """Returns random distinct allocations, ``(count, L, k)``.

    Of several random draws, the one furthest from all others is used: there are C(N, k)^L codes
    (46,656 with the paper's constants), and the distance between codes is what separates edits from
    unrelated text.

    Args:
        count: Number of allocations.
        layers: L.
        experts: N.
        k: Experts in use in each layer.
        taken: Packed codes that are already in use.
        seed: Seed of the random numbers.

    Raises:
        ValueError: There are no more distinct allocations, or k is not between 1 and N.
    """
    if not 1 <= k <= experts:
        raise ValueError(f"k must be between 1 and the number of experts, {experts}, not {k}")
    noise = np.random.default_rng(seed)
    width = -(-layers * experts // 8)
    codes = np.frombuffer(b"".join(sorted(taken)), np.uint8).reshape(len(taken), width)
    found = np.zeros((0, layers, k), np.int64)
    for _ in range(count):
        drawn = noise.random((_TRIES, layers, experts)).argsort(axis=2)[..., :k]
        drawn = np.sort(drawn, axis=2).astype(np.int64)
        packs = packed(drawn, experts)
        nearest = distances(packs, codes).min(axis=1, initial=layers * experts)
        best = int(nearest.argmax())
        if nearest[best] == 0:
            raise ValueError(f"none of {_TRIES} random allocations is free: {len(codes)} are taken")
        found = np.concatenate([found, drawn[best : best + 1]])
        codes = np.concatenate([codes, packs[best : best + 1]])
    return found
