"""Answers as they come: pieces of text for the terminal, and a way to stop the model.

Imports torch: only commands that run a model import this module.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import StoppingCriteria, StoppingCriteriaList, TextStreamer

from editkit_cli.terminal.interrupts import Wish

if TYPE_CHECKING:
    from editkit import Kit
    from editkit_store.records import Generation

__all__ = ["LocalVoice", "Stop", "Streamer"]


class Streamer(TextStreamer):
    """Hands on an answer piece by piece, without the whitespace around it.

    Args:
        tokenizer: The model's.
        write: Takes each piece.
    """

    def __init__(self, tokenizer: Any, write: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._write = write
        self._held = ""
        self.has_begun = False

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Writes what is certain; trailing whitespace waits for what may follow it."""
        text = self._held + text if self.has_begun else text.lstrip()
        kept = text.rstrip()
        self._held = text[len(kept) :]
        if kept:
            self.has_begun = True
            self._write(kept)


class Stop(StoppingCriteria):
    """Ends a generation after the token under way, once somebody asked for it.

    The answer so far then comes back as any other does, with the edit that applied to it; an
    exception out of the model's forward pass would lose both.
    """

    def __init__(self, wish: Wish) -> None:
        self._wish = wish

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.BoolTensor:
        """Returns for each row whether it ends, ``(rows,)`` bool."""
        asked = torch.full((len(input_ids),), self._wish.is_asked, device=input_ids.device)
        return asked.bool()  # type: ignore[return-value]  # torch says Tensor


class LocalVoice:
    """Lets a model of this process answer.

    Args:
        kit: The running model.
    """

    def __init__(self, kit: Kit) -> None:
        self._kit = kit
        self.has_template = bool(getattr(kit.tokenizer, "chat_template", None))

    def say(
        self,
        asked: Sequence[Mapping[str, str]],
        wish: Wish,
        *,
        version: str | None,
        limit: int,
        piece: Callable[[str], None] | None,
    ) -> Generation:
        """Returns the answer to a conversation, or to its last turn; see ``voice.Voice``."""
        options: dict[str, Any] = {"stopping_criteria": StoppingCriteriaList([Stop(wish)])}
        if piece is not None:
            options["streamer"] = Streamer(self._kit.tokenizer, piece)
        if self.has_template:
            return self._kit.chat(asked, version=version, max_new_tokens=limit, **options)
        prompt = asked[-1]["content"]
        return self._kit.generate(prompt, version=version, max_new_tokens=limit, **options)
