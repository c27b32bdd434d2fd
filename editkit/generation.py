"""Asking an attached model: batches, versions, and which edits fired.

Language models generate, greedily unless asked otherwise; a classifier gives its label.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig, StoppingCriteria

from editkit.hooks import Attachment, Run
from editkit.methods.view import GraceView
from editkit.prompts import Encoder
from editkit_store.errors import InvalidRequest

__all__ = ["Generated", "Generator"]

_ROWS = 16
"""Rows of one batch; longer lists run in several."""


@dataclass(frozen=True)
class Generated:
    """What came out for one prompt.

    Attributes:
        text: The continuation, special tokens and surrounding whitespace removed; or the label.
        tokens: Number of generated tokens, the ending one included; 0 for a label.
        is_finished: The model ended the text itself, before the limit.
        fired: Id of the edit that applied, if any.
        version: Version of the view it ran on.
    """

    text: str
    tokens: int
    is_finished: bool
    fired: str | None
    version: str


class _Until(StoppingCriteria):
    """Ends a generation when all of some rows have ended theirs."""

    def __init__(self, rows: slice, stops: Sequence[int]) -> None:
        self._rows = rows
        self._stops = torch.tensor(list(stops))
        self._ended: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        ends = torch.isin(input_ids[:, -1], self._stops.to(input_ids.device))
        self._ended = ends if self._ended is None else self._ended | ends
        return self._ended | self._ended[self._rows].all()


class Generator:
    """Asks a model encoded prompts on given views."""

    def __init__(self, model: Any, encoder: Encoder, attachment: Attachment, pad: int) -> None:
        self._model = model
        self._encoder = encoder
        self._attachment = attachment
        self._pad = pad

    def run(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        views: Sequence[GraceView] = (),
        max_new_tokens: int,
        until: slice = slice(None),
        **options: Any,
    ) -> list[Generated]:
        """Returns one answer a prompt.

        Args:
            prompts: Token ids.
            views: The edits that apply: one view, or one a prompt; by default the attachment's
                current view.
            max_new_tokens: Limit of each continuation, tokens.
            until: Prompts whose answers are wanted whole: when all of them have ended, the others
                are cut off. For prompts that fit into one batch; of more each batch runs to its
                end.
            **options: For ``model.generate``, e.g. ``do_sample=True``; greedy by default.

        Raises:
            InvalidRequest: Several continuations of one prompt were asked for.
        """
        if options.get("num_return_sequences", 1) != 1:
            raise InvalidRequest(
                "one prompt has one answer here, so num_return_sequences is 1",
                field="num_return_sequences",
                hint="give the prompt several times, or call kit.model.generate",
            )
        if options.get("return_dict_in_generate"):
            raise InvalidRequest(
                "answers come as records here, so return_dict_in_generate is not taken",
                field="return_dict_in_generate",
                hint="call kit.model.generate for scores and hidden states; it is edited too",
            )
        if until != slice(None) and len(prompts) <= _ROWS:
            options = {**options, "stopping_criteria": [_Until(until, self._encoder.stop_ids)]}
        found: list[Generated] = []
        for start in range(0, len(prompts), _ROWS):
            here = slice(start, start + _ROWS)
            chosen = views[here] if len(views) > 1 else views
            with torch.no_grad(), self._attachment.running(*chosen) as run:
                if self._encoder.family == "classifier":
                    found += self._labelled(prompts[here], run)
                else:
                    found += self._continued(prompts[here], run, max_new_tokens, options)
        return found

    def _labelled(self, prompts: Sequence[Sequence[int]], run: Run) -> list[Generated]:
        width = max(map(len, prompts))
        ids, mask = self._padded(prompts, width, left=False)
        run.restart(mask, None)
        chosen = self._model(input_ids=ids, attention_mask=mask).logits.argmax(dim=-1).tolist()
        labels = self._encoder.labels
        return [
            Generated(labels[index], 0, True, edit, version)
            for index, (edit, version) in zip(chosen, self._told(run, len(prompts)), strict=True)
        ]

    def _continued(
        self,
        prompts: Sequence[Sequence[int]],
        run: Run,
        max_new_tokens: int,
        options: dict[str, Any],
    ) -> list[Generated]:
        width = max(map(len, prompts))
        is_decoder = self._encoder.family == "decoder"
        ids, mask = self._padded(prompts, width, left=is_decoder)
        stops, limit = self._encoder.stop_ids, self._encoder.context
        if limit is not None:
            max_new_tokens = max(1, min(max_new_tokens, limit - (width if is_decoder else 1)))
        config = GenerationConfig(  # type: ignore[no-untyped-call]  # transformers has no types here
            max_new_tokens=max_new_tokens, eos_token_id=list(stops) or None, pad_token_id=self._pad
        )
        # Settings go into the config; objects (a streamer, a cache, processors) beside it.
        settings = {"do_sample": False, **{n: v for n, v in options.items() if hasattr(config, n)}}
        config.update(**settings)  # type: ignore[no-untyped-call]
        beside = {name: value for name, value in options.items() if name not in settings}
        output = self._model.generate(ids, attention_mask=mask, generation_config=config, **beside)
        # A decoder repeats the prompt; an encoder-decoder begins with its start token.
        skipped = width if is_decoder else 1
        return [
            self._read(row[skipped:], stops, edit, version)
            for row, (edit, version) in zip(
                output.tolist(), self._told(run, len(prompts)), strict=True
            )
        ]

    def _padded(
        self, prompts: Sequence[Sequence[int]], width: int, *, left: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns ids and attention mask, each ``(rows, width)`` int64."""

        def filled(row: Sequence[int], gap: list[int]) -> list[int]:
            return [*gap, *row] if left else [*row, *gap]

        gaps = [width - len(prompt) for prompt in prompts]
        ids = [filled(p, [self._pad] * gap) for p, gap in zip(prompts, gaps, strict=True)]
        mask = [filled([1] * len(p), [0] * gap) for p, gap in zip(prompts, gaps, strict=True)]
        device = self._model.device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)

    @staticmethod
    def _told(run: Run, count: int) -> list[tuple[str | None, str]]:
        """Which edit fired for each prompt, and on which version."""
        edits = run.edits or [None] * count
        beams = len(edits) // count
        views = run.views if len(run.views) > 1 else run.views * count
        return [(edits[row * beams], views[row].version) for row in range(count)]

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
