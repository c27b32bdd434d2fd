"""Answering in a conversation: token by token, and cancellable."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from editkit_cli.terminal.interrupts import Cancellation

if TYPE_CHECKING:
    from editkit_store.records import Delivery, Generation

__all__ = ["ChatBackend"]


class ChatBackend(Protocol):
    """Streams the answers of a model: of this process, or of a server.

    Attributes:
        has_template: Whether the model has a chat template.
    """

    has_template: bool

    def answer(
        self,
        turns: Sequence[Mapping[str, str]],
        cancellation: Cancellation,
        *,
        version: str | None,
        limit: int,
        delivery: Delivery,
        on_text: Callable[[str], None] | None,
    ) -> Generation:
        """Returns the answer to a conversation; without a template, to its last turn alone.

        Args:
            turns: The conversation, ending with the user's turn.
            cancellation: Ends the answer early; what was generated so far is returned.
            version: Answer as of this version.
            limit: Most tokens of the answer.
            delivery: Whether it is held to the target of the edit that fires.
            on_text: Called with each new piece of text.
        """
