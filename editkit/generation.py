"""Greedy generation through an attached model: batches, versions, and which edits fired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig

from editkit.hooks import Attachment
from editkit.methods.grace import GraceView
from editkit.prompts import Encoder

__all__ = ["Generated", "Generator"]

_ROWS = 16
"""Rows of one batch; longer lists run in several."""


@dataclass(frozen=True)
class Generated:
    """What came out for one prompt.

    Attributes:
        text: The continuation, special tokens and surrounding whitespace removed.
        tokens: Number of generated tokens, the ending one included.
        is_finished: The model ended the text itself, before the limit.
        fired: Id of the edit that applied, if any.
        version: Version of the view it ran on.
    """

    text: str
    tokens: int
    is_finished: bool
    fired: str | None
    version: str


class Generator:
    """Generates from encoded prompts on a given view."""

    def __init__(self, model: Any, encoder: Encoder, attachment: Attachment, pad: int) -> None:
        self._model = model
        self._encoder = encoder
        self._attachment = attachment
        self._pad = pad

    def run(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        view: GraceView | None = None,
        max_new_tokens: int,
        **options: Any,
    ) -> list[Generated]:
        """Returns one continuation a prompt.

        Args:
            prompts: Token ids.
            view: The edits that apply; by default the attachment's current view.
            max_new_tokens: Limit of each continuation, tokens.
            **options: For ``model.generate``, e.g. ``do_sample=True``; greedy by default.
        """
        found: list[Generated] = []
        for start in range(0, len(prompts), _ROWS):
            found += self._batch(prompts[start : start + _ROWS], view, max_new_tokens, options)
        return found

    def _batch(
        self,
        prompts: Sequence[Sequence[int]],
        view: GraceView | None,
        max_new_tokens: int,
        options: dict[str, Any],
    ) -> list[Generated]:
        width = max(map(len, prompts))
        rows = [[self._pad] * (width - len(p)) + list(p) for p in prompts]
        mask = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
        stops = self._encoder.stop_ids
        limit = self._encoder.context
        if limit is not None:
            max_new_tokens = max(1, min(max_new_tokens, limit - width))
        config = GenerationConfig(  # type: ignore[no-untyped-call]  # transformers has no types here
            max_new_tokens=max_new_tokens,
            eos_token_id=list(stops) or None,
            pad_token_id=self._pad,
            **{"do_sample": False, **options},
        )
        with torch.no_grad(), self._attachment.running(view) as run:
            output = self._model.generate(
                torch.tensor(rows, device=self._model.device),
                attention_mask=torch.tensor(mask, device=self._model.device),
                generation_config=config,
            )
        fired = run.edits or [None] * len(rows)
        return [
            self._read(ids[width:], stops, edit, run.view.version)
            for ids, edit in zip(output.tolist(), fired, strict=True)
        ]

    def _read(
        self, ids: list[int], stops: Sequence[int], fired: str | None, version: str
    ) -> Generated:
        end = next((at for at, token in enumerate(ids) if token in stops), None)
        kept = ids if end is None else ids[:end]
        return Generated(
            text=self._encoder.decode(kept),
            tokens=len(kept) + (end is not None),
            is_finished=end is not None,
            fired=fired,
            version=version,
        )
