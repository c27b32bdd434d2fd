"""Generation and scoring on an attached model: batches, versions, and which edits fired.

Language models generate, greedily by default; a classifier predicts a label.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessorList

from editkit.engines.base import Encoded, Generated, Sampling, Scored, Targets, View, Watch
from editkit.engines.learning import Forced
from editkit.engines.transformers.attachment import Attachment
from editkit.engines.transformers.delivery import TargetCheck
from editkit.engines.transformers.run import Run
from editkit.engines.transformers.sampler import Sampler
from editkit.engines.transformers.stepping import watching
from editkit.engines.transformers.tokens import Encoder
from editkit_store.errors import InvalidRequest

__all__ = ["ROWS", "Generator"]

ROWS = 16
"""Maximum rows of a batch; longer lists run in several batches."""

_CLEAR = 0.25
"""Lead in logits that rounding cannot reverse, not even in bfloat16."""

_HARMLESS = frozenset(
    "bos_token_id eos_token_id pad_token_id decoder_start_token_id forced_bos_token_id "
    "do_sample temperature top_k top_p top_h min_p typical_p epsilon_cutoff eta_cutoff "
    "max_length max_new_tokens use_cache cache_implementation cache_config low_memory "
    "output_attentions output_hidden_states output_logits output_scores return_dict_in_generate "
    "length_penalty early_stopping num_return_sequences prefill_chunk_size "
    "compile_config disable_compile _from_model_config transformers_version".split()
)
"""Generation settings that do not change what greedy decoding chooses."""


class Generator:
    """Runs a model on encoded prompts and given views."""

    def __init__(self, model: Any, encoder: Encoder, attachment: Attachment) -> None:
        self._model = model
        self._encoder = encoder
        self._attachment = attachment
        self._pad = encoder.pad_id

    def run(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        views: Sequence[View] = (),
        max_new_tokens: int,
        watch: Watch | None = None,
        sampling: Sequence[Sampling | None] | None = None,
        targets: Targets | None = None,
        **options: Any,
    ) -> list[Generated]:
        """Returns one answer per prompt; see ``Engine.generate``.

        Args:
            prompts: Token ids.
            views: The edits that apply: one view, or one per prompt; by default the attachment's
                current view.
            max_new_tokens: Limit of each continuation, tokens.
            watch: Called after every step; needs all prompts in one batch. Unused by classifiers.
            sampling: Sampling parameters of each prompt; likewise.
            targets: What answers are compared with where an edit fires. A classifier's label is
                then replaced, if it is held to the target.
            **options: For ``model.generate``, e.g. ``do_sample=True``; greedy by default.

        Raises:
            ValueError: More prompts than fit in one batch, with a watch or sampling.
            InvalidRequest: Several continuations of one prompt were requested.
        """
        if options.get("num_return_sequences", 1) != 1:
            raise InvalidRequest(
                "each prompt has one answer here, so num_return_sequences must be 1",
                field="num_return_sequences",
                hint="give the prompt several times, or call kit.model.generate",
            )
        if options.get("return_dict_in_generate"):
            raise InvalidRequest(
                "answers are records here, so return_dict_in_generate is not supported",
                field="return_dict_in_generate",
                hint="call kit.model.generate for scores and hidden states; edits apply to it too",
            )
        if (watch is not None or sampling is not None) and len(prompts) > ROWS:
            raise ValueError(f"one batch takes {ROWS} prompts at most, not {len(prompts)}")
        if sampling is not None and any(row is not None for row in sampling):
            others = options.get("logits_processor") or ()
            options["logits_processor"] = LogitsProcessorList([*others, Sampler(sampling)])
        found: list[Generated] = []
        for start in range(0, len(prompts), ROWS):
            here = slice(start, start + ROWS)
            chosen = views[here] if len(views) > 1 else views
            with torch.no_grad(), self._attachment.running(*chosen) as run:
                asked = targets
                if asked is not None:
                    asked = None if run.is_empty else Targets(asked.of, asked.held[here])
                if self._encoder.family == "classifier":
                    found += self._classify(prompts[here], run, asked)
                else:
                    found += self._continue(
                        prompts[here], run, max_new_tokens, options, watch, asked
                    )
        return found

    def paused(self) -> AbstractContextManager[None]:
        """Runs the calls of its body on the unedited model."""
        return self._attachment.paused()

    def drafted(
        self, batch: Forced, requests: Sequence[Encoded], views: Sequence[View]
    ) -> list[Generated | None]:
        """Returns the greedy answers that equal their targets, in one pass; else ``None``.

        Speculative decoding (Leviathan et al. 2023, arXiv 2211.17192; here without sampling) with
        the whole target as the draft: it is accepted if each of its tokens, the end token included,
        is the model's choice after those before, so that decoding step by step would give the same.
        A draft is also rejected if a token leads by so little that rounding could decide.

        Args:
            batch: The requests, from ``lay_out``.
            requests: Prompts and targets.
            views: One view, or one per request.
        """
        stops = self._encoder.stop_ids
        with torch.no_grad(), self._attachment.running(*views) as run:
            logits, target, valid = _forced(batch, requests, run)
        wanted = logits.gather(2, target[..., None])[..., 0]
        others = logits.scatter(2, target[..., None], -torch.inf).amax(dim=2)
        leads = (wanted - others).masked_fill(~valid, torch.inf).amin(dim=1).tolist()
        found: list[Generated | None] = []
        for request, lead, (edit, version) in zip(
            requests, leads, self._fired(run, len(requests)), strict=True
        ):
            length = len(request.target)
            if self._encoder.family == "classifier":
                ends, length = True, 0
            else:
                ends = [t in stops for t in request.target] == [False] * (length - 1) + [True]
            stands = ends and lead > _CLEAR and self._is_plain()
            found.append(Generated(request.text, length, True, edit, version) if stands else None)
        return found

    def scored(
        self, batch: Forced, requests: Sequence[Encoded], views: Sequence[View]
    ) -> list[Scored]:
        """Returns the likelihoods of targets after their prompts, in one pass.

        Args:
            batch: The requests, from ``lay_out``.
            requests: Prompts and targets.
            views: One view, or one per request.
        """
        with torch.no_grad(), self._attachment.running(*views) as run:
            logits, target, valid = _forced(batch, requests, run)
        wanted = logits.gather(2, target[..., None])[..., 0]
        nats = ((wanted - logits.logsumexp(dim=2)) * valid).sum(dim=1, dtype=torch.float64)
        right = ((logits.argmax(dim=2) == target) & valid).sum(dim=1)
        sources = self._fired(run, len(requests))
        return [
            Scored(log_likelihood, len(request.target), chosen, edit, version)
            for request, log_likelihood, chosen, (edit, version) in zip(
                requests, nats.tolist(), right.tolist(), sources, strict=True
            )
        ]

    def _is_plain(self) -> bool:
        """Whether greedy generation simply takes the largest logit.

        A model's generation config may change that: a repetition penalty, forbidden words, ...
        """
        config = getattr(self._model, "generation_config", None)
        if config is None:
            return True
        plain = GenerationConfig().to_dict()  # type: ignore[no-untyped-call]
        return all(
            name in _HARMLESS or value is None or value == plain.get(name)
            for name, value in config.to_dict().items()
        )

    def _classify(
        self, prompts: Sequence[Sequence[int]], run: Run, targets: Targets | None
    ) -> list[Generated]:
        width = max(map(len, prompts))
        ids, mask = self._padded(prompts, width, left=False)
        run.restart(mask, None, prompts)
        chosen = self._model(input_ids=ids, attention_mask=mask).logits.argmax(dim=-1).tolist()
        labels = self._encoder.labels
        found = [
            Generated(labels[index], 0, True, edit, version)
            for index, (edit, version) in zip(chosen, self._fired(run, len(prompts)), strict=True)
        ]
        if targets is None:
            return found
        return [
            _labelled(one, targets, is_held=is_held)
            for one, is_held in zip(found, targets.held, strict=True)
        ]

    def _continue(
        self,
        prompts: Sequence[Sequence[int]],
        run: Run,
        max_new_tokens: int,
        options: dict[str, Any],
        watch: Watch | None,
        targets: Targets | None,
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
        # Settings go into the config; objects (streamer, cache, processors) are passed separately.
        settings = {"do_sample": False, **{n: v for n, v in options.items() if hasattr(config, n)}}
        config.update(**settings)  # type: ignore[no-untyped-call]
        beside = {name: value for name, value in options.items() if name not in settings}
        # A decoder repeats the prompt; an encoder-decoder begins with its start token.
        skipped = width if is_decoder else 1

        def fired() -> list[tuple[str | None, str]]:
            return self._fired(run, len(prompts))

        check = None
        if targets is not None:
            check = TargetCheck(
                targets,
                lambda: [edit for edit, _ in fired()] if run.edits else [],
                self._encoder,
                skipped,
            )
            if any(targets.held):  # last: it sees what the others chose, sampling included
                before = beside.get("logits_processor") or ()
                beside["logits_processor"] = LogitsProcessorList([*before, check])
        if watch is not None:
            others = beside.pop("stopping_criteria", ())
            beside["stopping_criteria"] = watching(watch, fired, check, *others)
        output = self._model.generate(ids, attention_mask=mask, generation_config=config, **beside)
        told = [None] * len(prompts) if check is None else check.told(output)
        return [
            self._read(row[skipped:], stops, Generated("", 0, False, edit, version, delivered))
            for row, (edit, version), delivered in zip(output.tolist(), fired(), told, strict=True)
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
    def _fired(run: Run, count: int) -> list[tuple[str | None, str]]:
        """Returns for each prompt the edit that fired and the version."""
        edits = run.edits or [None] * count
        beams = len(edits) // count
        views = run.views if len(run.views) > 1 else run.views * count
        return [(edits[row * beams], views[row].version) for row in range(count)]

    def _read(self, ids: list[int], stops: Sequence[int], answer: Generated) -> Generated:
        """Returns an answer with the text of its tokens."""
        end = next((at for at, token in enumerate(ids) if token in stops), None)
        kept = ids if end is None else ids[:end]
        return dataclasses.replace(
            answer,
            text=self._encoder.decode(kept),
            tokens=len(kept) + (end is not None),
            is_finished=end is not None,
        )


def _labelled(answer: Generated, targets: Targets, *, is_held: bool) -> Generated:
    """Returns a classifier's answer, held to the label of the edit that fired."""
    forms = () if answer.fired is None else targets.of(answer.fired)
    if not forms:
        return answer
    if answer.text == forms[0].text:
        return dataclasses.replace(answer, delivered="free")
    if not is_held:
        return dataclasses.replace(answer, delivered="no")
    return dataclasses.replace(answer, text=forms[0].text, delivered="held")


def _forced(
    batch: Forced, requests: Sequence[Encoded], run: Run
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Runs a teacher-forced batch; returns logits, targets and the mask of valid targets."""
    run.restart(batch.prompts, None, [request.prompt for request in requests])
    logits = batch.logits()  # (rows, t, n)
    return logits, batch.target.to(logits.device), batch.valid.to(logits.device)
