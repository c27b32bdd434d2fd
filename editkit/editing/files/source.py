"""The source of an edits file: its name in errors, and its decoded lines."""

from __future__ import annotations

import codecs
import io
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from editkit.errors import MalformedLine

__all__ = ["EditSource"]

# UTF-32 before UTF-16: its little-endian mark starts with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Without a mark, the zero bytes decide: JSON and column names start with ASCII characters.
_ZEROS = (
    ((False, True, True, True), "utf-32-le"),
    ((True, True, True, False), "utf-32-be"),
    ((False, True), "utf-16-le"),
    ((True, False), "utf-16-be"),
)
_ENOUGH = 4  # bytes needed to detect the encoding


@dataclass(frozen=True)
class EditSource:
    """The file that edits are read from.

    Attributes:
        path: Its path; ``-`` is standard input.
        hint: What the user can do about a malformed line.
    """

    path: str
    hint: str

    @property
    def name(self) -> str:
        """Name of the source in messages."""
        return "standard input" if self.path == "-" else self.path

    def malformed(self, line: int, reason: str) -> MalformedLine:
        """Returns the error for a line that does not hold an edit."""
        return MalformedLine(
            f"line {line} of {self.name}: {reason}", path=self.name, line=line, hint=self.hint
        )

    def lines(self, stream: BinaryIO) -> Iterator[tuple[int, str]]:
        """Yields the numbered lines of a stream, line endings included.

        Raises:
            MalformedLine: On reaching a line that is not text; those before it were yielded.
        """
        first = b""
        for raw in stream:
            first += raw
            if len(first) >= _ENOUGH:
                break
        encoding, mark = _encoding(first)
        for number, raw in enumerate(_split(first[mark:], stream, encoding), start=1):
            try:
                line = raw.decode(encoding)
            except UnicodeDecodeError as error:
                raise self.malformed(
                    number,
                    f"not {encoding.upper()} text: byte {error.start + 1} is "
                    f"0x{raw[error.start]:02x} ({error.reason})",
                ) from error
            if "\0" in line:
                raise self.malformed(number, "not text: it holds a NUL character")
            yield number, line


def _encoding(first: bytes) -> tuple[str, int]:
    """Returns the encoding of a text, and the length of its byte-order mark."""
    for mark, name in _MARKS:
        if first.startswith(mark):
            return name, len(mark)
    for zeros, name in _ZEROS:
        if tuple(byte == 0 for byte in first[: len(zeros)]) == zeros:
            return name, 0
    return "utf-8", 0


def _split(first: bytes, stream: BinaryIO, encoding: str) -> Iterator[bytes]:
    """Yields the lines of a stream, given the bytes that were already read from it."""
    pieces = itertools.chain(io.BytesIO(first), stream)
    newline = "\n".encode(encoding)
    if len(newline) == 1:
        yield from pieces
        return
    # Other characters contain the newline byte too, and its trailing zeros are in the next piece.
    rest = b""
    for piece in pieces:
        rest += piece
        start = 0
        while (found := rest.find(newline, start)) >= 0:
            if found % len(newline):
                start = found + 1
            else:
                end = found + len(newline)
                yield rest[:end]
                rest, start = rest[end:], 0
    if rest:
        yield rest
