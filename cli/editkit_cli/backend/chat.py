"""What answers in a conversation: a model of this process, or a server's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from editkit_cli.terminal.interrupts import Wish

if TYPE_CHECKING:
    from editkit_store.records import Generation

__all__ = ["Voice"]


class Voice(Protocol):
    """What answers: a model of this process, or a server's.

    Attributes:
        has_template: Whether it knows conversations.
    """

    has_template: bool

    def say(
        self,
        asked: Sequence[Mapping[str, str]],
        wish: Wish,
        *,
        version: str | None,
        limit: int,
        piece: Callable[[str], None] | None,
    ) -> Generation:
        """Returns the answer to a conversation; without a template, to its last turn alone.

        Args:
            asked: The turns, up to and including the user's.
            wish: To stop: the answer so far comes back.
            version: Answer as of this one.
            limit: Of the answer, tokens.
            piece: Told the answer bit by bit.
        """
