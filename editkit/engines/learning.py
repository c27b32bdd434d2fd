"""The learning interface: an engine that also gives hidden states, gradients and likelihoods.

A method needs nothing else from an engine, and so depends on no library. Temporary changes to the
model during learning only affect the calls of the learning thread.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from editkit.engines.base import Encoded, Engine, Generated, View

if TYPE_CHECKING:
    from torch import nn

    from editkit.models.layout import Layout
    from editkit.scope.keys import PromptKeys
    from editkit.scope.pooled import PooledKeys

__all__ = ["Change", "Forced", "LearningEngine", "Site"]

Change = Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]
"""Takes a module's index, its input and its output; returns the new output."""


@dataclass(frozen=True)
class Site:
    """A module that edits can attach to.

    Attributes:
        path: Dotted path of the module.
        module: The module itself.
        block: Index of the block that holds the module.
        inputs: Input size.
        width: Output size.
        layout: The model around it.
    """

    path: str
    module: nn.Module
    block: int
    inputs: int
    width: int
    layout: Layout

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The stack of blocks that contains the site, first to last."""
        return self.layout.blocks


class Forced(ABC):
    """A teacher-forced batch of prompts and targets: one pass gives the logits of every target.

    Attributes:
        model: The library's model.
        target: ``(rows, t)`` int64, target tokens padded on the right; for a classifier the label.
        valid: ``(rows, t)`` bool, True at target tokens.
        prompts: ``(rows, p)`` int64, attention mask of the prompts only.
    """

    model: Any
    target: torch.Tensor
    valid: torch.Tensor
    prompts: torch.Tensor

    def __len__(self) -> int:
        return len(self.target)

    @abstractmethod
    def logits(self) -> torch.Tensor:
        """Runs the model; returns the logits of the target tokens, ``(rows, t, n)`` float32."""


class LearningEngine(Engine):
    """A running model that can learn.

    Attributes:
        layout: Structure of the model.
    """

    layout: Layout

    @property
    @abstractmethod
    def device(self) -> str:
        """Torch name of the model's device."""

    @property
    @abstractmethod
    def pooled(self) -> PooledKeys:
        """Computes prompt keys from words. Methods that share them can be compared."""

    def prepare(self, keys: PromptKeys) -> None:
        """Takes in what keys need to know, so that no prompt waits for it.

        Where the text of prompts decides there is nothing to prepare: keys are for learning then.
        """
        if self.reader is None:
            with self.paused():
                keys.prepare()

    @abstractmethod
    def site(self, path: str) -> Site:
        """Returns the module at a dotted path within one of the blocks.

        Raises:
            UnknownSite: There is no such module.
        """

    @abstractmethod
    def feed_forward(self, depth: float) -> Site:
        """Returns the last linear map of a block's feed-forward part.

        Args:
            depth: Position of the block, as a fraction of all blocks.

        Raises:
            UnsupportedModel: The block has no such map.
        """

    @abstractmethod
    def lay_out(self, requests: Sequence[Encoded]) -> Forced:
        """Returns requests as one batch of full sequences, one per row."""

    @abstractmethod
    def states(self, module: nn.Module, prompts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Returns the input of a module for each prompt, ``(length, d)`` float32 on the CPU.

        Args:
            module: The module; edits do not apply.
            prompts: Token ids.
        """

    @abstractmethod
    def adjust(self, modules: Sequence[nn.Module], change: Change) -> AbstractContextManager[None]:
        """Replaces the outputs of modules by those that ``change`` returns, with gradients.

        Affects the calls of this thread, until the body ends.
        """

    @abstractmethod
    def drafted(
        self, batch: Any, requests: Sequence[Encoded], views: Sequence[View]
    ) -> list[Generated | None]:
        """Returns the greedy answers that equal their targets, in one pass; None for the others.

        Args:
            batch: The requests, from ``lay_out``.
            requests: Prompts and targets.
            views: One view, or one per request.
        """
