"""Streaming the answers of a model in this process.

Imports torch: only commands that run a model here import this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList, TextStreamer

from editkit_cli.terminal.interrupts import Cancellation

if TYPE_CHECKING:
    from editkit import Kit
    from editkit_store.records import Delivery, Generation

__all__ = ["LocalChat", "StopWhenCancelled", "TextPieces"]


class TextPieces(TextStreamer):
    """Passes an answer on piece by piece, without the whitespace around it.

    Args:
        tokenizer: The model's.
        write: Called with each piece.
    """

    def __init__(self, tokenizer: Any, write: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._write = write
        self._held = ""
        self.has_begun = False

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Writes final text; trailing whitespace is held back until more text follows."""
        text = self._held + text if self.has_begun else text.lstrip()
        kept = text.rstrip()
        self._held = text[len(kept) :]
        if kept:
            self.has_begun = True
            self._write(kept)


class StopWhenCancelled(StoppingCriteria):
    """Ends a generation after the current token once its cancellation was requested.

    The answer so far is then returned as usual, with the edit that fired; an exception out of the
    forward pass would lose both.
    """

    def __init__(self, cancellation: Cancellation) -> None:
        self._cancellation = cancellation

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.BoolTensor:
        """Returns for each row whether it ends, ``(rows,)`` bool."""
        ends = torch.full(
            (len(input_ids),), self._cancellation.is_requested, device=input_ids.device
        )
        return ends.bool()  # type: ignore[return-value]  # torch says Tensor


class LocalChat:
    """Lets a model of this process answer; implements ``backend.chat.ChatBackend``.

    Args:
        kit: The running model.
    """

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self.has_template = bool(getattr(kit.tokenizer, "chat_template", None))

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
        """Returns the answer to a conversation, or to its last turn."""
        stop = StoppingCriteriaList([StopWhenCancelled(cancellation)])
        options: dict[str, Any] = {"stopping_criteria": stop, "delivery": delivery}
        if on_text is not None:
            options["streamer"] = TextPieces(self._kit.tokenizer, on_text)
        if self.has_template:
            return self._kit.chat(turns, version=version, max_new_tokens=limit, **options)
        prompt = turns[-1]["content"]
        return self._kit.generate(prompt, version=version, max_new_tokens=limit, **options)
