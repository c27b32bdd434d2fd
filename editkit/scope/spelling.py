"""Directions of spellings: Gaussian noise, seeded by a text's checksum.

They are numpy's ``Generator(PCG64(crc32(text))).standard_normal``, of unit length. Stored keys
contain them, so they must not change. This module reimplements numpy's ``SeedSequence`` in plain
integers (O'Neill, "Developing a seed_seq alternative", 2015; numpy guarantees its stability): while
a model runs, numpy's code is not in the processor's caches and takes 130 microseconds for the first
name of a prompt, and this takes 60.
"""

from __future__ import annotations

import math
import threading
import zlib

import numpy as np
import numpy.typing as npt

__all__ = ["direction"]

_32 = (1 << 32) - 1
_128 = (1 << 128) - 1
_MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645  # multiplier of PCG64's congruential generator

_source = np.random.PCG64(0)
_noise = np.random.Generator(_source)
_lock = threading.Lock()


def direction(text: str, width: int) -> npt.NDArray[np.float32]:
    """Returns the direction of a text, ``(1, width)`` of unit length."""
    state, increment = _seeded(zlib.crc32(text.encode()))
    with _lock:
        _source.state = {
            "bit_generator": "PCG64",
            "state": {"state": state, "inc": increment},
            "has_uint32": 0,
            "uinteger": 0,
        }
        found = _noise.standard_normal((1, width))
    return (found / math.sqrt(np.dot(found[0], found[0]))).astype(np.float32)


def _seeded(seed: int) -> tuple[int, int]:
    """Returns state and increment of ``PCG64(seed)`` for a 32-bit seed."""
    words = _words(seed)
    high, low, *stream = (words[at] | words[at + 1] << 32 for at in range(0, 8, 2))
    increment = (stream[0] << 65 | stream[1] << 1 | 1) & _128
    return ((increment + (high << 64 | low)) * _MULTIPLIER + increment) & _128, increment


def _words(seed: int) -> list[int]:
    """Returns the same as ``SeedSequence(seed).generate_state(8)``."""
    pool = [_hashed(seed, 0), *_REST]
    step = 4
    for source in range(4):
        for target in range(4):
            if source != target:
                mixed = pool[target] * 0xCA01F9DD - _hashed(pool[source], step) * 0x4973F715 & _32
                pool[target] = mixed ^ mixed >> 16
                step += 1
    words = []
    for at in range(8):
        mixed = (pool[at % 4] ^ _LAST[at]) * _LAST[at + 1] & _32
        words.append(mixed ^ mixed >> 16)
    return words


def _hashed(word: int, step: int) -> int:
    word = (word ^ _FIRST[step]) * _FIRST[step + 1] & _32
    return word ^ word >> 16


def _powers(first: int, factor: int, count: int) -> list[int]:
    return [first * pow(factor, at, 1 << 32) & _32 for at in range(count)]


_FIRST = _powers(0x43B0D7E5, 0x931E8875, 17)
_LAST = _powers(0x8B51F9DD, 0x58F38DED, 9)
_REST = [_hashed(0, step) for step in (1, 2, 3)]  # where a longer seed would have words
