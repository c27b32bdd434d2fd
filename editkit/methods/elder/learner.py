"""What learns ELDER's edits on one model: adapted layers, notes, queries and probes in place."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch

from editkit.applied import Keys
from editkit.config import TrainConfig
from editkit.errors import UnsupportedModel
from editkit.families import Layout, text_config
from editkit.methods.elder.config import ElderConfig
from editkit.methods.elder.learning import Course, Learned, Lesson, initial
from editkit.methods.elder.notes import Notebook
from editkit.methods.elder.places import adapted_paths
from editkit.methods.elder.shape import adapted
from editkit.methods.elder.state import ElderState
from editkit.prompts import Encoded, Encoder
from editkit.scope.general import TEXT
from editkit.sites import shape_of

__all__ = ["ElderLearner"]


class ElderLearner:
    """Learns batches of edits on one model; what is known is a state, which the caller keeps.

    Args:
        model: A decoder.
        layout: Its layout.
        encoder: How its prompts become tokens.
        keys: What gives pooled queries, where the config asks for them.
        config: Shape of what is learned.
        train: How it is learned.
        paused: Runs its body on the model as it came.

    Attributes:
        paths: Dotted paths of the adapted layers.
        adapted: The layers, for an attachment.

    Raises:
        UnsupportedModel: Not a model that continues a prompt, or without layers to adapt.
        UnknownSite: The config names a module that there is not, or that is no linear map.
        ValueError: The threshold is larger than a code.
    """

    def __init__(
        self,
        model: Any,
        layout: Layout,
        *,
        encoder: Encoder,
        keys: Keys | None,
        config: ElderConfig,
        train: TrainConfig,
        paused: Callable[[], AbstractContextManager[None]],
    ) -> None:
        if layout.family != "decoder":
            raise UnsupportedModel(
                f"ELDER is for models that continue a prompt, not for {type(model).__name__}",
                hint="use the method grace",
            )
        self._model = model
        self._encoder = encoder
        self._keys = keys if config.query == "pooled" else None
        self._config = config
        self._train = train
        self.paths = adapted_paths(model, layout, config)
        config.check_threshold(len(self.paths))
        first, self.adapted = adapted(model, layout, self.paths, self._keys)
        modules = self.adapted.modules
        self._notebook = Notebook(model, layout, first=first, span=config.span, paused=paused)
        self._course = Course(self._notebook, modules, train, lambda: self._probes)

    def blank(self) -> ElderState:
        """Returns a state that knows nothing."""
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
        shapes = [shape_of(module) for module in self.adapted.modules]
        return initial(
            [shape for shape in shapes if shape is not None],
            width=int(text_config(self._model).hidden_size),
            num_experts=config.num_experts,
            rank=config.r,
            seed=self._train.seed,
            like=like,
        )

    def lessons(self, edits: Sequence[tuple[str, Sequence[Encoded]]]) -> list[Lesson]:
        """Returns edits with all that learning needs of them.

        Args:
            edits: Id and wordings of each, the prompt's first.
        """
        asked = [one for _, wordings in edits for one in wordings]
        queries = iter(self._queries(asked))
        return [
            Lesson(edit_id, tuple(wordings), torch.stack([next(queries) for _ in wordings]))
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
        new: Sequence[Lesson],
        old: Sequence[Lesson],
        *,
        told: Callable[[int], None] | None = None,
    ) -> Learned:
        """Returns what is known with a batch on top of a state; see ``Course.learn``."""
        return self._course.learn(state, new, old, told=told)

    def look(self, state: ElderState, lessons: Sequence[Lesson]) -> dict[str, float]:
        """Returns by how much the targets of a state's edits lead; see ``Course.look``."""
        return self._course.look(state, lessons)

    @functools.cached_property
    def _probes(self) -> torch.Tensor:
        """Queries of unrelated text: lines of the general page, whole and broken off."""
        cut = []
        for line in TEXT.splitlines():
            words = line.split()
            cut += [" ".join(words[:count]) for count in sorted({len(words) // 2, len(words)})]
        ending = self._encoder.stop_ids[:1] or (0,)
        prompts = [self._encoder.prompt(text) for text in cut if text]
        return torch.stack(self._queries([Encoded(prompt, ending, "") for prompt in prompts]))
