"""Context managers for learning: capture modules, skip blocks, substitute outputs.

They change the model only for the calls of their own thread; other threads are not affected.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from editkit.engines.transformers.replacing import replace

__all__ = ["adjust", "capture", "narrow_head", "resume_above", "substitute"]


@contextlib.contextmanager
def capture(*modules: nn.Module) -> Iterator[list[tuple[torch.Tensor, Any]]]:
    """Collects ``(input, output)`` of each module, in the order given, during its body."""
    found: list[Any] = [None] * len(modules)
    with contextlib.ExitStack() as stack:
        for index, module in enumerate(modules):

            def keep(_: nn.Module, args: tuple[Any, ...], output: Any, index: int = index) -> None:
                found[index] = (args[0] if args else None, output)

            stack.callback(module.register_forward_hook(_in_this_thread(keep)).remove)
        yield found


@contextlib.contextmanager
def resume_above(blocks: Sequence[nn.Module], index: int, output: Any) -> Iterator[None]:
    """Skips the blocks below ``index``: the model resumes from ``output``, their known result.

    Nothing below an edited block depends on what is learned there, so its activations are computed
    once. The blocks' ``forward`` is replaced during the body; the model's own code does the rest
    (masks, positions, final norm, head).
    """
    with contextlib.ExitStack() as stack:
        for block in blocks[:index]:
            _replace(stack, block, lambda *args, **kwargs: output)
        yield


@contextlib.contextmanager
def substitute(module: nn.Module, where: torch.Tensor, value: torch.Tensor) -> Iterator[None]:
    """Replaces the module's output by ``value``, with gradients.

    Args:
        module: The site.
        where: ``(rows, length)`` bool, positions to replace.
        value: ``(rows, m)``, one per row.
    """

    def put(_: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        replacement = value.to(device=output.device, dtype=output.dtype)[:, None, :]  # (rows, 1, m)
        return torch.where(where.to(output.device)[..., None], replacement, output)

    handle = module.register_forward_hook(_in_this_thread(put))
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def narrow_head(
    head: nn.Module, weight: torch.Tensor, bias: torch.Tensor | None
) -> Iterator[list[tuple[torch.Tensor, torch.Tensor]]]:
    """Makes a language-model head compute the logits of some tokens only.

    The body gets a list that collects the inputs and outputs of the head.

    Args:
        head: Linear map from hidden states to the vocabulary.
        weight: ``(n, hidden)``, the rows of its weight for those tokens.
        bias: ``(n,)``, those of its bias, if it has one.
    """
    passed: list[tuple[torch.Tensor, torch.Tensor]] = []

    def forward(hidden: torch.Tensor) -> torch.Tensor:
        logits = functional.linear(hidden, weight, bias)
        passed.append((hidden.detach(), logits.detach()))
        return logits

    with contextlib.ExitStack() as stack:
        _replace(stack, head, forward)
        yield passed


@contextlib.contextmanager
def adjust(
    modules: Sequence[nn.Module],
    change: Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor],
) -> Iterator[None]:
    """Replaces the outputs of modules by those that ``change`` returns, with gradients.

    Args:
        modules: The modules.
        change: Takes a module's index, its input and its output; returns the new output.
    """
    with contextlib.ExitStack() as stack:
        for number, module in enumerate(modules):

            def put(
                _: nn.Module, args: tuple[Any, ...], output: torch.Tensor, number: int = number
            ) -> torch.Tensor:
                return change(number, args[0], output)

            stack.callback(module.register_forward_hook(_in_this_thread(put)).remove)
        yield


def _in_this_thread(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a hook that does nothing in threads other than this one."""
    mine = threading.get_ident()

    @functools.wraps(hook)
    def called(*args: Any) -> Any:
        return hook(*args) if threading.get_ident() == mine else None

    return called


def _replace(stack: contextlib.ExitStack, module: nn.Module, new: Callable[..., Any]) -> None:
    """Replaces a module's ``forward`` for this thread, until ``stack`` closes."""
    mine, old = threading.get_ident(), module.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        return (new if threading.get_ident() == mine else old)(*args, **kwargs)

    replace(stack, module, "forward", forward)
