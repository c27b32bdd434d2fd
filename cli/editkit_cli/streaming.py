"""Answers as they come: pieces of text for the terminal, and a way to stop the model.

Imports torch: only commands that run a model import this module.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from transformers import StoppingCriteria, TextStreamer

__all__ = ["Stop", "Streamer"]


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

    def __init__(self) -> None:
        self.is_asked = False

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.BoolTensor:
        """Returns for each row whether it ends, ``(rows,)`` bool."""
        asked = torch.full((len(input_ids),), self.is_asked, device=input_ids.device)
        return asked.bool()  # type: ignore[return-value]  # torch says Tensor

    @contextlib.contextmanager
    def on_interrupt(self) -> Iterator[None]:
        """Takes the first Ctrl-C of the body as the wish to stop; a second one interrupts."""
        if threading.current_thread() is not threading.main_thread():
            yield  # signals are the main thread's
            return
        before = signal.getsignal(signal.SIGINT)

        def ask(number: int, frame: Any) -> None:
            if self.is_asked:
                raise KeyboardInterrupt
            self.is_asked = True

        signal.signal(signal.SIGINT, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
