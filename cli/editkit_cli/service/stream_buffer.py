"""The text of one continuation while it is generated, and the part of it that is final."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from editkit_store.records import Delivered

__all__ = ["FinishReason", "StreamBuffer", "TextCallback", "TokenDecoder"]

FinishReason = Literal["stop", "length"]

TextCallback = Callable[[str], None]
"""Called with new text, in another thread."""


class TokenDecoder(Protocol):
    """Turns tokens into text; see ``service.decoding.Decoder``."""

    def text(self, ids: Sequence[int]) -> str:
        """Returns the text of tokens."""

    def certain(self, ids: Sequence[int], text: str) -> str:
        """Returns the part of their text that no further token changes."""


class StreamBuffer:
    """Collects the continuation of one prompt, token by token.

    The pieces that it passes on add up to exactly ``text``. So it holds back surrounding
    whitespace, what may be the beginning of a stop string, and what further tokens may change, such
    as half a character.

    Args:
        decoder: Turns its tokens into text.
        stop_ids: Tokens that end the text.
        limit: Most tokens.
        stops: Strings that end the text and are not part of it.
        on_text: Called with new text; without it, text is only decoded if there are ``stops``.

    Attributes:
        ending: Why it ended; ``None`` before.
        fired: Ids of the edits that fired.
        delivered: How the target of the edit that fired came into it.
    """

    def __init__(
        self,
        decoder: TokenDecoder,
        *,
        stop_ids: Sequence[int],
        limit: int,
        stops: Sequence[str] = (),
        on_text: TextCallback | None = None,
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
        self.delivered: Delivered | None = None

    @property
    def text(self) -> str:
        """The text so far, without surrounding whitespace and without what ended it."""
        return self._decoder.text(self._ids).strip() if self._text is None else self._text

    @property
    def has_shown(self) -> bool:
        """Whether any text was passed on."""
        return bool(self._shown)

    def restart(self) -> None:
        """Starts again; text that was passed on is not passed on again."""
        self._ids, self._text, self.tokens = [], None, 0
        self.ending, self.fired, self.delivered = None, (), None

    def take(self, token: int) -> bool:
        """Adds the next token; returns whether the continuation ends with it."""
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
            text: The text, if it is known from elsewhere.
        """
        if self.ending is None:
            if text is not None:
                self._text = text
            self._text = self.text
            self.ending = ending
            if not self._text.startswith(self._shown):
                # The tokenizer changed text that seemed final.
                self._shown = os.path.commonprefix([self._shown, self._text])
            self._show(self._text)

    def _certain(self, raw: str) -> str:
        """Returns the text that no further token can change."""
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
