"""One continuation in progress: what has come so far, what may be shown of it, and why it ended."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

__all__ = ["FinishReason", "OnText", "StreamBuffer", "TokenDecoder"]

FinishReason = Literal["stop", "length"]

OnText = Callable[[str], None]
"""Told about new text, in another thread."""


class TokenDecoder(Protocol):
    """Turns tokens into text; see ``service.decoding.Decoder``."""

    def text(self, ids: Sequence[int]) -> str:
        """Returns the text of tokens."""

    def certain(self, ids: Sequence[int], text: str) -> str:
        """Returns how it begins, whatever follows."""


class StreamBuffer:
    """The continuation of one prompt, token by token.

    What is shown while it grows joins up to exactly ``text`` at the end: surrounding whitespace
    never shows, nor the beginning of a stop string before it is clear that it is none, nor what
    the tokenizer may still change: half a character, for one.

    Args:
        decoder: Turns its tokens into text.
        stop_ids: Tokens that end the text.
        limit: Tokens at most.
        stops: Strings that end the text; not part of it.
        on_text: Called with new text; without it, text is only decoded if there are ``stops``.

    Attributes:
        ending: Why it ended; ``None`` while it goes on.
        fired: Ids of the edits that applied.
    """

    def __init__(
        self,
        decoder: TokenDecoder,
        *,
        stop_ids: Sequence[int],
        limit: int,
        stops: Sequence[str] = (),
        on_text: OnText | None = None,
    ) -> None:
        self._decoder = decoder
        self._stop_ids = frozenset(stop_ids)
        self.limit = limit
        self._stops = [stop for stop in stops if stop]
        self._on_text = on_text
        self._ids: list[int] = []
        self._shown = ""
        self._text: str | None = None
        self.tokens = 0
        self.ending: FinishReason | None = None
        self.fired: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What has been generated, surrounding whitespace and what ended it removed."""
        return self._decoder.text(self._ids).strip() if self._text is None else self._text

    @property
    def has_shown(self) -> bool:
        """Whether somebody was told the beginning."""
        return bool(self._shown)

    def restart(self) -> None:
        """Forgets what came, to begin again; what was told of it is not told again."""
        self._ids, self._text, self.tokens = [], None, 0
        self.ending, self.fired = None, ()

    def take(self, token: int) -> bool:
        """Takes the next token; returns whether the continuation ends with it."""
        if self.ending is not None:
            return True
        self.tokens += 1
        if token in self._stop_ids:
            self.finish("stop")
            return True
        self._ids.append(token)
        if self._stops or self._on_text is not None:
            raw = self._decoder.text(self._ids)
            found = [at for at in map(raw.find, self._stops) if at >= 0]
            if found:
                self._text = raw[: min(found)].strip()
                self.finish("stop")
                return True
            if self._on_text is not None:
                self._show(self._certain(raw).strip())
        if self.tokens >= self.limit:
            self.finish("length")
        return self.ending is not None

    def finish(self, ending: FinishReason, *, text: str | None = None) -> None:
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
            if not self._text.startswith(self._shown):  # a tokenizer of yet another kind
                self._shown = os.path.commonprefix([self._shown, self._text])
            self._show(self._text)

    def _certain(self, raw: str) -> str:
        """Returns what no further token can take back."""
        raw = self._decoder.certain(self._ids, raw)
        held = max(
            (
                size
                for stop in self._stops
                for size in range(1, min(len(stop), len(raw) + 1))
                if raw.endswith(stop[:size])
            ),
            default=0,
        )
        return raw[: len(raw) - held]

    def _show(self, text: str) -> None:
        if (
            self._on_text is not None
            and len(text) > len(self._shown)
            and text.startswith(self._shown)
        ):
            new, self._shown = text[len(self._shown) :], text
            self._on_text(new)
