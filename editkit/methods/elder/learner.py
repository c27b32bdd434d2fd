"""The learner of ELDER on one model: sets up adapted layers, notes, queries and probes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from editkit.engines.base import Encoded, Keys, TokenEncoder
from editkit.engines.transformers.site import shape_of
from editkit.errors import UnsupportedModel
from editkit.methods.elder.config import ElderConfig, TrainConfig
from editkit.methods.elder.learning import Course, Example, LearnedState, initial
from editkit.methods.elder.notes import Notebook
from editkit.methods.elder.places import adapted_paths, first_block, patch_for
from editkit.methods.elder.state import ElderState
from editkit.models.layout import Layout, text_config
from editkit.scope.general import TEXT
from editkit_store.records import DEFAULT_METHOD

__all__ = ["ElderLearner"]

_SAME = 0.02
"""Distance, as a fraction of a query's length, within which two prompts count as the same."""

_FIFTH = 5
"""One in this many lines of general text is held out."""


class ElderLearner:
    """Learns batches of edits on one model; the caller keeps the learned state.

    Args:
        model: A decoder.
        layout: Its layout.
        encoder: Encodes prompts as tokens.
        keys: Computes pooled queries, if the config uses them.
        config: Shape of the adaptors.
        train: How they are trained.
        paused: Runs its body on the unedited model.

    Attributes:
        paths: Dotted paths of the adapted layers.
        patch: The patch of the adapted layers.

    Raises:
        UnsupportedModel: The model is not a decoder, or has no layers to adapt.
        UnknownSite: The config names a module that does not exist or is not a linear map.
        ValueError: The threshold is larger than a code.
    """

    def __init__(
        self,
        model: Any,
        layout: Layout,
        *,
        encoder: TokenEncoder,
        keys: Keys | None,
        config: ElderConfig,
        train: TrainConfig,
        paused: Callable[[], AbstractContextManager[None]],
    ) -> None:
        if layout.family != "decoder":
            raise UnsupportedModel(
                f"ELDER only supports decoders, not {type(model).__name__}",
                hint=f"use the method {DEFAULT_METHOD}",
            )
        self._model = model
        self._encoder = encoder
        self._keys = keys if config.query == "pooled" else None
        self._config = config
        self._train = train
        self.paths = adapted_paths(model, layout, config)
        config.check_threshold(len(self.paths))
        self.patch = patch_for(model, layout, self.paths, self._keys)
        first = first_block(model, layout, self.paths)
        self._notebook = Notebook(model, layout, first=first, span=config.span, paused=paused)
        self._course = Course(
            self._notebook,
            self.patch.modules,
            train,
            lambda: self._text[0],
            lambda: self._text[1],
            limit=config.threshold,
        )

    def blank(self) -> ElderState:
        """Returns an empty state."""
        config = self._config
        like = ElderState(
            lora_A=(),
            lora_B=(),
            routers=torch.zeros(0, 0, 0),
            codes=np.zeros((0, 0), np.uint8),
            edit_ids=(),
            top_k=config.top_k,
            scaling=config.scaling,
            threshold=config.threshold,
            weighting=config.weighting,
            experts=config.experts,
            span=config.span,
            queries=np.zeros((0, 0), np.float32),
            owners=np.zeros(0, np.int64),
            radius=config.radius,
        )
        shapes = [shape_of(module) for module in self.patch.modules]
        return initial(
            [shape for shape in shapes if shape is not None],
            width=int(text_config(self._model).hidden_size),
            num_experts=config.num_experts,
            rank=config.r,
            seed=self._train.seed,
            like=like,
        )

    def examples(self, edits: Sequence[tuple[str, Sequence[Encoded]]]) -> list[Example]:
        """Returns edits as training examples.

        Args:
            edits: Id and wordings of each, its prompt first.
        """
        asked = [one for _, wordings in edits for one in wordings]
        queries = iter(self._queries(asked))
        return [
            Example(edit_id, tuple(wordings), torch.stack([next(queries) for _ in wordings]))
            for edit_id, wordings in edits
        ]

    def _queries(self, wordings: Sequence[Encoded]) -> list[torch.Tensor]:
        if self._keys is None:
            return [note.query.cpu() for note in self._notebook.of(wordings)]
        keys = self._keys
        return [torch.from_numpy(np.array(keys.key(one.prompt))) for one in wordings]

    def learn(
        self,
        state: ElderState,
        new: Sequence[Example],
        old: Sequence[Example],
        *,
        unrelated: Sequence[Encoded] = (),
        told: Callable[[int], None] | None = None,
    ) -> LearnedState:
        """Learns a batch on top of a state; see ``Course.learn``.

        Args:
            state: The learned state.
            new: The batch.
            old: The state's edits, in its order.
            unrelated: Prompts whose answers should not change. Those that the routers cannot tell
                from an edit's wording are ignored.
            told: Called after each step with the number of steps so far.
        """
        others = self._unlike(self._queries(unrelated), [*old, *new])
        return self._course.learn(state, new, old, unrelated=others, told=told)

    def _unlike(
        self, queries: Sequence[torch.Tensor], examples: Sequence[Example]
    ) -> torch.Tensor | None:
        mine = torch.cat([one.queries for one in examples]) if examples else torch.zeros(0, 0)
        kept = [one for one in queries if (mine - one).norm(dim=1).min() > _SAME * one.norm()]
        return torch.stack(kept) if kept else None

    def look(self, state: ElderState, examples: Sequence[Example]) -> dict[str, float]:
        """Returns the leads of the targets of a state's edits; see ``Course.look``."""
        return self._course.look(state, examples)

    @functools.cached_property
    def _text(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries of unrelated text: lines of the general text, whole and truncated.

        Every fifth line is held out.
        """
        ending = self._encoder.stop_ids[:1] or (0,)
        parts: tuple[list[Encoded], list[Encoded]] = ([], [])
        for number, line in enumerate(filter(None, TEXT.splitlines())):
            words = line.split()
            for count in sorted({len(words) // 2, len(words)} - {0}):
                prompt = self._encoder.prompt(" ".join(words[:count]))
                parts[number % _FIFTH == 0].append(Encoded(prompt, ending, ""))
        mine, held_out = (torch.stack(self._queries(part)) for part in parts)
        return mine, held_out
