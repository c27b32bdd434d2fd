"""Tensors as differences: exact for every bit, small where numbers moved little.

A tensor is a row of little-endian words (of 1, 2, 4 or 8 bytes, its items). What is kept is each
word minus the word of another tensor, modulo the word's size; differences are folded so that small
ones of either sign are small numbers (0, -1, 1, -2, ... become 0, 1, 2, 3, ...), their bytes sorted
by significance, and deflated. Where the other tensor ends, and without one, it counts as zeros.

Big integers do the arithmetic, all words at once: this room has no numpy.
"""

from __future__ import annotations

import zlib

__all__ = ["packed", "unpacked"]

_LEVEL = 6


def packed(data: bytes, base: bytes, size: int) -> bytes:
    """Returns a tensor as its difference from another one.

    Args:
        data: Its bytes.
        base: Those of the other; none for zeros.
        size: Bytes of a word.

    Raises:
        ValueError: ``data`` is not a row of such words.
    """
    _check(len(data), size)
    lanes = _Lanes(len(data) // size, size)
    folded = lanes.folded(lanes.minus(lanes.read(data), lanes.read(base)))
    words = folded.to_bytes(len(data), "little")
    planes = b"".join(words[byte::size] for byte in range(size))
    # Differences look drawn at random, and repeat nothing: codes by how frequent bytes are do best
    # and take a tenth of the time. Sorted planes of zeros, as of tensors that grew, repeat a lot.
    found = [_deflated(planes, how) for how in (zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE)]
    return min(found, key=len)


def unpacked(stored: bytes, base: bytes, size: int, length: int) -> bytes:
    """Returns a tensor from its difference from another one.

    Args:
        stored: From ``packed``.
        base: The bytes of the other.
        size: Bytes of a word.
        length: Of the tensor, bytes.

    Raises:
        ValueError: Not such a difference.
    """
    _check(length, size)
    reader = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        planes = reader.decompress(stored, length + 1)
    except zlib.error as error:
        raise ValueError(f"a difference that does not inflate: {error}") from error
    if len(planes) != length or not reader.eof or reader.unused_data:
        raise ValueError("a difference of another length")
    count = length // size
    words = bytearray(length)
    for byte in range(size):
        words[byte::size] = planes[byte * count : (byte + 1) * count]
    lanes = _Lanes(count, size)
    found = lanes.plus(lanes.unfolded(int.from_bytes(words, "little")), lanes.read(base))
    return found.to_bytes(length, "little")


def _check(length: int, size: int) -> None:
    if size not in (1, 2, 4, 8) or length % size:
        raise ValueError(f"{length} bytes are no row of words of {size}")


def _deflated(data: bytes, how: int) -> bytes:
    writer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, 9, how)
    return writer.compress(data) + writer.flush()


class _Lanes:
    """Arithmetic on many words that lie side by side in one integer.

    Args:
        count: Words.
        size: Bytes of each.
    """

    def __init__(self, count: int, size: int) -> None:
        self._length = count * size
        self._bits = 8 * size
        one = b"\1" + bytes(size - 1)
        self._low = int.from_bytes(one * count, "little")  # the lowest bit of each word
        self._high = self._low << (self._bits - 1)
        self._rest = self._high - self._low  # all bits below the highest
        self._all = self._rest | self._high

    def read(self, data: bytes) -> int:
        """Returns words from bytes; what is beyond them is left out."""
        return int.from_bytes(data[: self._length], "little")

    def minus(self, one: int, other: int) -> int:
        """Subtracts word by word; no word borrows from the next."""
        found = (one | self._high) - (other & self._rest)
        return found ^ ((one ^ other ^ self._all) & self._high)

    def plus(self, one: int, other: int) -> int:
        """Adds word by word; no word carries into the next."""
        found = (one & self._rest) + (other & self._rest)
        return found ^ ((one ^ other) & self._high)

    def folded(self, words: int) -> int:
        """Returns 2 w for a word w, taken with its sign, that is not negative, else -2 w - 1."""
        signs = (words & self._high) >> (self._bits - 1)
        doubled = (words & self._rest) << 1
        return doubled ^ (signs * ((1 << self._bits) - 1))

    def unfolded(self, words: int) -> int:
        """Takes back ``folded``."""
        signs = words & self._low
        halves = (words & (self._all ^ self._low)) >> 1
        return halves ^ (signs * ((1 << self._bits) - 1))
