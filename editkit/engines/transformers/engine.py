"""The engine on Hugging Face transformers, which can also learn edits."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch

from editkit.engines.base import (
    Encoded,
    Generated,
    Patch,
    Sampling,
    Scored,
    Targets,
    View,
    Watch,
)
from editkit.engines.learning import Change, Forced, LearningEngine, Site
from editkit.engines.reading import PromptReader
from editkit.engines.transformers import training
from editkit.engines.transformers.attachment import Attachment
from editkit.engines.transformers.batches import Batch, lay_out, supported
from editkit.engines.transformers.generator import ROWS, Generator
from editkit.engines.transformers.site import feed_forward, find_site
from editkit.engines.transformers.tokens import Encoder
from editkit.models.layout import layout_of
from editkit.models.load import LoadedModel
from editkit.scope.keys import pooled_keys

if TYPE_CHECKING:
    from torch import nn

    from editkit.scope.pooled import PooledKeys

__all__ = ["TransformersEngine"]


class TransformersEngine(LearningEngine):
    """A transformers model with a view of edits applied.

    Args:
        loaded: The model. It is in eval mode until ``close``, which restores its own mode: dropout
            would make verification random.

    Attributes:
        layout: Structure of the model.

    Raises:
        UnsupportedModel: The model cannot be edited; it is left unchanged.
    """

    encoder: Encoder

    def __init__(self, loaded: LoadedModel) -> None:
        self.layout = layout_of(loaded.model)
        self.name = loaded.name
        self.fingerprint = loaded.fingerprint
        self.model = loaded.model
        self.tokenizer = loaded.tokenizer
        self.encoder = Encoder(loaded.model, loaded.tokenizer)
        self._loaded = loaded
        self._was_training = bool(loaded.model.training)
        self._attachment = Attachment(loaded.model, self.layout, View("v0"))
        self._generator = Generator(loaded.model, self.encoder, self._attachment)
        loaded.model.eval()

    @property
    def device(self) -> str:
        """Torch name of the model's device."""
        return str(self.model.device)

    @functools.cached_property
    def pooled(self) -> PooledKeys:
        """Computes prompt keys from words."""
        return pooled_keys(self._loaded, self.encoder.family)

    @property
    def view(self) -> View:
        """The edits that apply; assigning another view switches the model to it."""
        return self._attachment.view

    @view.setter
    def view(self, view: View) -> None:
        self._attachment.view = view

    @property
    def reader(self) -> PromptReader | None:
        """Says which edits prompts ask for; None where keys and hidden states do."""
        return self._attachment.reader

    @reader.setter
    def reader(self, reader: PromptReader | None) -> None:
        self._attachment.reader = reader

    @property
    def is_open(self) -> bool:
        """Whether edits can apply; not after ``close``."""
        return self._attachment.is_attached

    def patch(self, method: str, patch: Patch | None) -> None:
        """Sets the modules that a method changes; see ``Engine.patch``."""
        self._attachment.patch(method, patch)

    def generate(
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
        """Returns one answer per prompt; see ``Engine.generate``. Options are ``model.generate``'s.

        Raises:
            ValueError: More prompts than fit in one batch, with a watch or sampling.
        """
        return self._generator.run(
            prompts,
            views=views,
            max_new_tokens=max_new_tokens,
            watch=watch,
            sampling=sampling,
            targets=targets,
            **options,
        )

    def drafted(
        self, batch: Forced, requests: Sequence[Encoded], views: Sequence[View]
    ) -> list[Generated | None]:
        """Returns the greedy answers that equal their targets; see ``Generator.drafted``."""
        return self._generator.drafted(batch, requests, views)

    def score(self, requests: Sequence[Encoded], *, views: Sequence[View] = ()) -> list[Scored]:
        """Returns the likelihoods of targets after their prompts, one forward pass per batch."""
        found: dict[int, Scored] = {}
        lengths = [len(one.prompt) + len(one.target) for one in requests]
        order = sorted(range(len(requests)), key=lambda index: lengths[index])
        for start in range(0, len(order), ROWS):
            part = order[start : start + ROWS]
            asked = [requests[index] for index in part]
            chosen = [views[index] for index in part] if len(views) > 1 else views
            scored = self._generator.scored(self.lay_out(asked), asked, chosen)
            found.update(zip(part, scored, strict=True))
        return [found[index] for index in range(len(requests))]

    def lay_out(self, requests: Sequence[Encoded]) -> Batch:
        """Returns requests as one batch of full sequences, one per row."""
        return lay_out(self.model, self.layout, requests, replacement="prompt", position=None)

    def site(self, path: str) -> Site:
        """Returns the module at a dotted path; see ``LearningEngine.site``."""
        return find_site(self.model, path)

    def feed_forward(self, depth: float) -> Site:
        """Returns the last linear map of a block's feed-forward part."""
        return feed_forward(self.model, depth)

    def states(self, module: nn.Module, prompts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Returns the input of a module for each prompt; see ``LearningEngine.states``."""
        host, found = self.layout.host, []
        for prompt in prompts:
            ids = torch.tensor([list(prompt)], device=self.model.device)
            with torch.no_grad(), self.paused(), training.capture(module) as passed:
                host(input_ids=ids, **supported(host, use_cache=False, logits_to_keep=1))
            found.append(passed[0][0][0].float().cpu())
        return found

    def adjust(self, modules: Sequence[nn.Module], change: Change) -> AbstractContextManager[None]:
        """Replaces the outputs of modules, with gradients; see ``LearningEngine.adjust``."""
        return training.adjust(modules, change)

    def running(self, *views: View) -> AbstractContextManager[Any]:
        """Runs the calls of its body as one generation; see ``Attachment.running``."""
        return self._attachment.running(*views)

    def paused(self) -> AbstractContextManager[None]:
        """Disables all edits for the calls of this thread in its body."""
        return self._attachment.paused()

    def close(self) -> None:
        """Removes every hook from the model, and restores its train or eval mode."""
        if self._attachment.is_attached:
            self._attachment.remove()
            self.model.train(self._was_training)
