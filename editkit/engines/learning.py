"""What a method learns with: an engine that also gives states, gradients and likelihoods.

A method needs nothing else of an engine, and so names no library. Whatever is put in place while
something is learned is seen by the calls of the learning thread alone.
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
    from editkit.scope.pooled import PooledKeys

__all__ = ["Change", "Forced", "LearningEngine", "Site"]

Change = Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]
"""Takes a module's number, its input and its output; returns another output."""


@dataclass(frozen=True)
class Site:
    """A place to attach to.

    Attributes:
        path: Dotted path of the module.
        module: The module itself.
        block: Index of the block that holds the module.
        inputs: Size of what it takes.
        width: Size of what it gives.
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
        """The blocks that the site is in one of, first to last."""
        return self.layout.blocks


class Forced(ABC):
    """Prompts with their targets given, as one batch: a pass gives the logits of every target.

    Attributes:
        model: The library's model.
        target: ``(rows, t)`` int64, target tokens padded on the right; of a classifier the label.
        valid: ``(rows, t)`` bool, where a target token is.
        prompts: ``(rows, p)`` int64, attention mask of the prompts alone.
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
        layout: The parts of the model that editing needs.
    """

    layout: Layout

    @property
    @abstractmethod
    def device(self) -> str:
        """Torch's name of the device that the model is on."""

    @property
    @abstractmethod
    def pooled(self) -> PooledKeys:
        """What gives keys of prompts from their words. Methods that share them compare by them."""

    @abstractmethod
    def site(self, path: str) -> Site:
        """Returns the module of a dotted path within one of the blocks.

        Raises:
            UnknownSite: There is none.
        """

    @abstractmethod
    def feed_forward(self, depth: float) -> Site:
        """Returns the linear map that ends the feed-forward part of a block.

        Args:
            depth: Which block, as a share of all of them.

        Raises:
            UnsupportedModel: The block has none.
        """

    @abstractmethod
    def lay_out(self, requests: Sequence[Encoded]) -> Forced:
        """Returns requests as one batch, a sequence a row: whatever edits change in it is there."""

    @abstractmethod
    def states(self, module: nn.Module, prompts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Returns what enters a module, for each prompt ``(length, d)`` float32 on the CPU.

        Args:
            module: The module; nothing that is attached to the model applies.
            prompts: Token ids.
        """

    @abstractmethod
    def adjust(self, modules: Sequence[nn.Module], change: Change) -> AbstractContextManager[None]:
        """Replaces what modules give by what ``change`` makes of it, with gradients.

        For the calls of this thread, until the body ends.
        """

    @abstractmethod
    def drafted(
        self, batch: Any, requests: Sequence[Encoded], views: Sequence[View]
    ) -> list[Generated | None]:
        """Returns the greedy answers that are the targets themselves, in one pass; else None.

        Args:
            batch: The requests, laid out.
            requests: Prompts and targets.
            views: One view, or one a request.
        """
