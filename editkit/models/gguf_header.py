"""Validation of a GGUF file's header against the file.

The libraries that read GGUF trust its counts, lengths and offsets: they would loop over an array of
2**60 entries, allocate such a tensor, or build a model of a million layers. This module checks
every number against the size of the file; the format is described at
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelUnavailable

__all__ = ["Header", "read_header"]

MAGIC = b"GGUF"

# struct formats of the numeric value types, by code; then the codes of strings and arrays.
_NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_STRING, _ARRAY = 8, 9

# More than real models have, but few enough to read: the reader uses a few hundred bytes per array
# entry, and time grows with the square of a token's length and of the number of blocks.
_MOST_ENTRIES = 4_000_000
_MOST_TENSORS = 100_000
_MOST_SETTINGS = 10_000
_MOST_DIMENSIONS = 4
_MOST = {"block_count": 300, "expert_count": 10_000}
_BLOCK = re.compile(rb"\bblk\.(\d+)\.")
_LONGEST_NAME = 1 << 16
_LONGEST_TOKEN = 1 << 12
_LONGEST_TEXT = 1 << 26


@dataclass(frozen=True, slots=True)
class Header:
    """The validated header.

    Attributes:
        elements: Number of elements of all tensors.
    """

    elements: int


class _InvalidHeader(Exception):
    """An impossible number in the file."""


def read_header(path: Path, *, name: str) -> Header:
    """Reads and validates the header of a file.

    Raises:
        ModelUnavailable: `damaged`; it cannot be read, is not a GGUF file, is truncated, or has an
            impossible header.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise ModelUnavailable(
                    f"the file {str(path)!r} is not a GGUF file: it does not begin with `GGUF`",
                    name=name,
                    reason="damaged",
                    hint="pass a GGUF file, or a folder with config.json and safetensors",
                )
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(data).header()
    except OSError as error:
        raise ModelUnavailable(
            f"the file {str(path)!r} cannot be read: {error.strerror}",
            name=name,
            reason="damaged",
        ) from error
    except _InvalidHeader as invalid:
        raise ModelUnavailable(
            f"the GGUF file of {name} cannot be converted: {invalid}",
            name=name,
            reason="damaged",
            hint="the file may be cut short; fetch it again",
        ) from invalid


class _Reader:
    """Parses the header field by field."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = len(MAGIC)
        self._order = "<"
        self._entries = 0
        self._largest: dict[str, int] = {}

    def header(self) -> Header:
        version = self._number("I")
        if version & 0xFFFF == 0:  # big-endian
            self._order = ">"
            version = version >> 24 | version >> 8 & 0xFF00
        if version not in {2, 3}:
            raise _InvalidHeader(f"it is of version {version}, and versions 2 and 3 can be read")
        tensors = self._count("tensors", _MOST_TENSORS)
        for _ in range(self._count("settings", _MOST_SETTINGS)):
            self._setting()
        for key, most in _MOST.items():
            if self._largest.get(key, 0) > most:
                raise _InvalidHeader(f"its setting {key!r} is {self._largest[key]}")
        return Header(self._tensors(tensors))

    def _setting(self) -> None:
        key = self._text("the name of a setting", _LONGEST_NAME)
        kind = self._number("I")
        if kind in _NUMBERS:
            value = self._number(_NUMBERS[kind])
            last = key.rpartition(b".")[2].decode("ascii", "replace")
            if isinstance(value, int) and value > self._largest.get(last, 0):
                self._largest[last] = value
        elif kind == _STRING:
            self._text(f"the setting {_shown(key)}", _LONGEST_TEXT)
        elif kind == _ARRAY:
            self._array(key)
        else:
            raise _InvalidHeader(f"the setting {_shown(key)} is of an unknown type, {kind}")

    def _array(self, key: bytes) -> None:
        kind, count = self._number("I"), self._number("Q")
        self._entries += count
        if self._entries > _MOST_ENTRIES:
            raise _InvalidHeader(f"the setting {_shown(key)} has {count} entries")
        if kind in _NUMBERS:
            self._skip(count * struct.calcsize(f"<{_NUMBERS[kind]}"))
        elif kind == _STRING:
            length_at = struct.Struct(f"{self._order}Q").unpack_from
            for _ in range(count):
                start = self._at
                self._skip(8)
                (length,) = length_at(self._data, start)
                if length > _LONGEST_TOKEN:
                    raise _InvalidHeader(
                        f"an entry of the setting {_shown(key)} has {length} bytes"
                    )
                self._skip(length)
        else:
            raise _InvalidHeader(f"the setting {_shown(key)} is an array of type {kind}")

    def _tensors(self, count: int) -> int:
        """Reads the list of tensors; returns their number of elements."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        elements = used = end = 0
        names = set()
        blocks = set()
        for _ in range(count):
            name = self._text("the name of a tensor", _LONGEST_NAME)
            dimensions = self._number("I")
            if name in names:
                raise _InvalidHeader(f"the tensor {_shown(name)} is there twice")
            if not 1 <= dimensions <= _MOST_DIMENSIONS:
                raise _InvalidHeader(f"the tensor {_shown(name)} has {dimensions} dimensions")
            shape = [self._number("Q") for _ in range(dimensions)]
            kind, offset = self._number("I"), self._number("Q")
            try:
                block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
            except (KeyError, ValueError):
                raise _InvalidHeader(
                    f"the tensor {_shown(name)} is of an unknown type, {kind}"
                ) from None
            numbers = math.prod(shape)
            if numbers == 0 or shape[0] % block:
                raise _InvalidHeader(f"the tensor {_shown(name)} has the shape {shape}")
            names.add(name)
            blocks.update(_BLOCK.findall(name))
            elements += numbers
            used += numbers // block * size
            end = max(end, offset + numbers // block * size)
        if self._largest.get("block_count", 0) > len(blocks):
            count = self._largest["block_count"]
            raise _InvalidHeader(
                f"its setting 'block_count' is {count}, and it has {len(blocks)} blocks"
            )
        alignment = self._largest.get("alignment", 32)
        there = len(self._data) - (self._at + -self._at % alignment)
        # Overlapping tensors would need more memory than the size of the file.
        if max(end, used) > there:
            raise _InvalidHeader(
                f"its tensors need {max(end, used)} bytes, and {max(there, 0)} are there"
            )
        return elements

    def _count(self, what: str, most: int) -> int:
        count = self._number("Q")
        if count > most:
            raise _InvalidHeader(f"it says that it has {count} {what}")
        return count

    def _text(self, what: str, longest: int) -> bytes:
        length = self._number("Q")
        if length > longest:
            raise _InvalidHeader(f"{what} has {length} bytes")
        start = self._at
        self._skip(length)
        return self._data[start : self._at]

    def _number(self, kind: str) -> int:
        size = struct.calcsize(f"<{kind}")
        start = self._at
        self._skip(size)
        value: int = struct.unpack_from(f"{self._order}{kind}", self._data, start)[0]
        return value

    def _skip(self, length: int) -> None:
        self._at += length
        if self._at > len(self._data):
            raise _InvalidHeader("it ends within its header")


def _shown(name: bytes) -> str:
    return repr(name[:60].decode("utf-8", "replace"))
