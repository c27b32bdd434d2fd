"""Context managers that a method learns with: watch modules, skip blocks, put values in place."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from editkit.hooks.replacing import replace

__all__ = ["adjust", "capture", "narrow_head", "resume_above", "substitute"]


@contextlib.contextmanager
def capture(*modules: nn.Module) -> Iterator[list[tuple[torch.Tensor, Any]]]:
    """Collects ``(input, output)`` of each module, in the order given, during its body."""
    found: list[Any] = [None] * len(modules)
    with contextlib.ExitStack() as stack:
        for index, module in enumerate(modules):

            def keep(_: nn.Module, args: tuple[Any, ...], output: Any, index: int = index) -> None:
                found[index] = (args[0] if args else None, output)

            stack.callback(module.register_forward_hook(keep).remove)
        yield found


@contextlib.contextmanager
def resume_above(blocks: Sequence[nn.Module], index: int, output: Any) -> Iterator[None]:
    """Skips the blocks below ``index``: the model goes on from ``output``, their known result.

    Nothing below an edited block depends on what is learned there, so its activations are computed
    once. The blocks' ``forward`` is replaced for the duration of the body; the model's own code
    does the rest (masks, positions, final norm, head).
    """
    with contextlib.ExitStack() as stack:
        for block in blocks[:index]:
            replace(stack, block, "forward", lambda *args, **kwargs: output)
        yield


@contextlib.contextmanager
def substitute(module: nn.Module, where: torch.Tensor, value: torch.Tensor) -> Iterator[None]:
    """Replaces the module's output by ``value`` with gradients.

    Args:
        module: The site.
        where: ``(rows, length)`` bool, positions to replace.
        value: ``(rows, m)``, one a row.
    """

    def put(_: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        replacement = value.to(device=output.device, dtype=output.dtype)[:, None, :]  # (rows, 1, m)
        return torch.where(where.to(output.device)[..., None], replacement, output)

    handle = module.register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def narrow_head(
    head: nn.Module, weight: torch.Tensor, bias: torch.Tensor | None
) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Makes a language-model head compute the logits of some tokens only.

    The body gets a list that collects what enters the head and what leaves it.

    Args:
        head: Linear map from hidden states to the vocabulary.
        weight: ``(n, hidden)``, those tokens' rows of its weight.
        bias: ``(n,)``, of its bias if it has one.
    """
    passed: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        logits = functional.linear(hidden, weight, bias)
        passed.append((hidden.detach(), logits.detach()))
        return logits

    with contextlib.ExitStack() as stack:
        replace(stack, head, "forward", forward)
        yield passed


@contextlib.contextmanager
def adjust(
    modules: Sequence[nn.Module],
    change: Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor],
) -> Iterator[None]:
    """Replaces what modules give by what ``change`` makes of it, with gradients.

    Args:
        modules: The modules.
        change: Takes a module's number, its input and its output; returns another output.
    """
    with contextlib.ExitStack() as stack:
        for number, module in enumerate(modules):

            def put(
                _: nn.Module, args: tuple[Any, ...], output: torch.Tensor, number: int = number
            ) -> torch.Tensor:
                return change(number, args[0], output)

            stack.callback(module.register_forward_hook(put).remove)
        yield
