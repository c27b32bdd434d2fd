"""Lossless deltas of tensors, which are small if the numbers changed little.

A tensor is an array of little-endian words (its items, of 1, 2, 4 or 8 bytes). A delta is each word
minus the word of another tensor, modulo the word size, zigzag-encoded so that small differences of
either sign are small numbers (0, -1, 1, -2, ... become 0, 1, 2, 3, ...), with the bytes grouped by
significance, and deflated. A missing or shorter base tensor is padded with zeros.

The arithmetic uses big integers, for all words at once, because this package has no numpy.
"""

from __future__ import annotations

import zlib

__all__ = ["packed", "unpacked"]

_LEVEL = 6


def packed(data: bytes, base: bytes, size: int) -> bytes:
    """Returns a tensor as a delta to another one.

    Args:
        data: Its bytes.
        base: Bytes of the other tensor; empty for zeros.
        size: Bytes of a word.

    Raises:
        ValueError: The length of ``data`` is not a multiple of the word size.
    """
    _check(len(data), size)
    lanes = _Lanes(len(data) // size, size)
    folded = lanes.folded(lanes.minus(lanes.read(data), lanes.read(base)))
    words = folded.to_bytes(len(data), "little")
    planes = b"".join(words[byte::size] for byte in range(size))
    # Differences look random and have no repetitions: Huffman coding alone is best and takes a
    # tenth of the time. Planes with many zeros, as of tensors that grew, compress with RLE.
    found = [_deflated(planes, how) for how in (zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE)]
    return min(found, key=len)


def unpacked(stored: bytes, base: bytes, size: int, length: int) -> bytes:
    """Returns a tensor from its delta to another one.

    Args:
        stored: From ``packed``.
        base: Bytes of the other tensor.
        size: Bytes of a word.
        length: Length of the tensor, bytes.

    Raises:
        ValueError: ``stored`` is not such a delta.
    """
    _check(length, size)
    reader = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        planes = reader.decompress(stored, length + 1)
    except zlib.error as error:
        raise ValueError(f"the delta cannot be inflated: {error}") from error
    if len(planes) != length or not reader.eof or reader.unused_data:
        raise ValueError("the delta has the wrong length")
    count = length // size
    words = bytearray(length)
    for byte in range(size):
        words[byte::size] = planes[byte * count : (byte + 1) * count]
    lanes = _Lanes(count, size)
    found = lanes.plus(lanes.unfolded(int.from_bytes(words, "little")), lanes.read(base))
    return found.to_bytes(length, "little")


def _check(length: int, size: int) -> None:
    if size not in (1, 2, 4, 8) or length % size:
        raise ValueError(f"{length} bytes are not an array of words of {size} bytes")


def _deflated(data: bytes, how: int) -> bytes:
    writer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, 9, how)
    return writer.compress(data) + writer.flush()


class _Lanes:
    """SIMD-like arithmetic on many words in one integer.

    Args:
        count: Number of words.
        size: Bytes of each word.
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
        """Returns words from bytes, ignoring extra bytes."""
        return int.from_bytes(data[: self._length], "little")

    def minus(self, one: int, other: int) -> int:
        """Subtracts word by word, without borrows between words."""
        found = (one | self._high) - (other & self._rest)
        return found ^ ((one ^ other ^ self._all) & self._high)

    def plus(self, one: int, other: int) -> int:
        """Adds word by word, without carries between words."""
        found = (one & self._rest) + (other & self._rest)
        return found ^ ((one ^ other) & self._high)

    def folded(self, words: int) -> int:
        """Zigzag-encodes words: 2 w for a signed word w >= 0, else -2 w - 1."""
        signs = (words & self._high) >> (self._bits - 1)
        doubled = (words & self._rest) << 1
        return doubled ^ (signs * ((1 << self._bits) - 1))

    def unfolded(self, words: int) -> int:
        """Reverses ``folded``."""
        signs = words & self._low
        halves = (words & (self._all ^ self._low)) >> 1
        return halves ^ (signs * ((1 << self._bits) - 1))
