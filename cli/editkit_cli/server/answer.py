"""One continuation in progress: what has come so far, what may be shown of it, and why it ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

__all__ = ["Answer", "Delta", "Ending"]

Ending = Literal["stop", "length"]

Delta = Callable[[str], None]
"""Told about new text, in another thread."""

_BROKEN = "\ufffd"
"""What the first bytes of a character become while the rest is missing."""


class Answer:
    """The continuation of one prompt, token by token.

    What is shown while it grows joins up to exactly ``text`` at the end: surrounding whitespace
    never shows, nor the beginning of a stop string before it is clear that it is none, nor half a
    character.

    Args:
        decode: From ids to text, special tokens removed.
        stop_ids: Tokens that end the text.
        limit: Tokens at most.
        stops: Strings that end the text; not part of it.
        told: Told about new text; without it, text is only looked at where ``stops`` ask for it.

    Attributes:
        ending: Why it ended; ``None`` while it goes on.
        fired: Ids of the edits that applied.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        *,
        stop_ids: Sequence[int],
        limit: int,
        stops: Sequence[str] = (),
        told: Delta | None = None,
    ) -> None:
        self._decode = decode
        self._stop_ids = frozenset(stop_ids)
        self.limit = limit
        self._stops = [stop for stop in stops if stop]
        self._told = told
        self._ids: list[int] = []
        self._shown = ""
        self._text: str | None = None
        self.tokens = 0
        self.ending: Ending | None = None
        self.fired: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What has been generated, surrounding whitespace and what ended it removed."""
        return self._decode(self._ids).strip() if self._text is None else self._text

    def take(self, token: int) -> bool:
        """Takes the next token; returns whether the continuation ends with it."""
        if self.ending is not None:
            return True
        self.tokens += 1
        if token in self._stop_ids:
            self.finish("stop")
            return True
        self._ids.append(token)
        if self._stops or self._told is not None:
            raw = self._decode(self._ids)
            found = [at for at in map(raw.find, self._stops) if at >= 0]
            if found:
                self._text = raw[: min(found)].strip()
                self.finish("stop")
                return True
            self._show(self._certain(raw).strip())
        if self.tokens >= self.limit:
            self.finish("length")
        return self.ending is not None

    def finish(self, ending: Ending, *, text: str | None = None) -> None:
        """Ends the continuation; a second call does nothing.

        Args:
            ending: Why.
            text: The text, where it is known from elsewhere.
        """
        if self.ending is None:
            if text is not None:
                self._text = text
            self._text = self.text
            self.ending = ending
            self._show(self._text)

    def _certain(self, raw: str) -> str:
        """Returns what no further token can take back."""
        held = max(
            (
                size
                for stop in self._stops
                for size in range(1, min(len(stop), len(raw) + 1))
                if raw.endswith(stop[:size])
            ),
            default=0,
        )
        return raw[: len(raw) - held].rstrip(_BROKEN)

    def _show(self, text: str) -> None:
        if self._told is not None and len(text) > len(self._shown) and text.startswith(self._shown):
            new, self._shown = text[len(self._shown) :], text
            self._told(new)
