"""The only module that hooks into a model or replaces anything on it.

An ``Attachment`` makes a model apply a view of edits. It installs a pre-hook on the model (which
positions does this call cover?), a hook on the site (which rows fire, and what replaces their
output?), and wraps ``model.generate`` on the instance, so that one call of ``generate`` is one
*run*.

A run decides the scope of each row once, when the row's query position passes through the site, and
keeps the decision for the sequence. Positions are absolute (cached tokens included), so the same
rule covers a KV cache, generation without one, chunked prefill, beams, and left or right padding:
the value is put wherever the query position is computed, and nowhere else. A forward call outside
``generate`` is a run of its own; with a cache and a single new token it is a decode step, whose
scope was decided earlier.

Runs live in a context variable: threads and tasks do not see each other's, and a run finishes on
the view it began with.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol

import torch
from torch import nn

from editkit.sites import Site

__all__ = ["Attachment", "Run", "View", "capture", "resume_above", "substitute"]


class View(Protocol):
    """What an attachment applies: a set of edits at the attached site."""

    version: str

    def __len__(self) -> int:
        """Number of edits that could fire; 0 makes every hook return at once."""

    def select(self, queries: torch.Tensor) -> list[int]:
        """Returns for each query ``(rows, d)`` the edit that fires, -1 for none."""

    def values(self, chosen: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """Returns their values ``(rows, m)`` in the dtype and on the device of ``like``."""

    def edit_id(self, chosen: int) -> str:
        """Returns the id of an edit."""


@dataclass
class Run:
    """One generation or one forward call, on one view.

    Attributes:
        view: The edits that apply.
        fired: For each row of the prefill the edit that fired, -1 for none; ``None`` before.
    """

    view: View
    fired: list[int] | None = None
    _mask: torch.Tensor | None = None
    _last: int | None = None  # query position of unpadded rows, when known beforehand
    _is_generation: bool = False
    _queries: list[int] | None = None
    _offset: int = 0
    _decides: bool = True
    _active: list[int] = field(default_factory=list)

    def begin(self, *, offset: int, length: int, rows: int, mask: torch.Tensor | None) -> None:
        """Notes which absolute positions the coming forward call covers."""
        self._offset = offset
        if not self._is_generation:
            # A cache and one new token: a decode step of somebody's own loop.
            self._decides = not (offset > 0 and length == 1)
        if self._queries is None and self._decides:
            if self._mask is not None:
                mask = self._mask
            if mask is not None and mask.dim() == 2:
                reach = mask.shape[1] - 1
                flipped = mask.to(torch.bool).flip(1).to(torch.int8)
                # argmax of the flipped mask is the number of trailing pads; an empty row has its
                # query at the end, where nothing attends to it.
                self._queries = (reach - flipped.argmax(dim=1)).tolist()
            else:
                last = offset + length - 1 if self._last is None else self._last
                self._queries = [last] * rows

    def apply(self, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor | None:
        """Returns the site's output with fired rows replaced, or ``None`` to leave it as it is.

        Args:
            inputs: ``(rows, length, d)``, entering the site.
            output: ``(rows, length, m)``, leaving it.
        """
        if not self._decides or self._queries is None:
            return None
        rows, length = output.shape[:2]
        queries = self._queries
        if len(queries) != rows and queries and rows % len(queries) == 0:
            # Beams and several samples a prompt: each prompt's rows follow each other.
            queries = [q for q in queries for _ in range(rows // len(queries))]
        columns = [q - self._offset for q in queries]
        here = [row for row in range(min(rows, len(columns))) if 0 <= columns[row] < length]
        if not here:
            return None
        if self.fired is None or len(self.fired) != rows:
            self.fired = [-1] * rows
            self._active = [-2] * rows
        undecided = [row for row in here if self._active[row] == -2]
        if undecided:
            at = torch.tensor([columns[row] for row in undecided], device=inputs.device)
            chosen = self.view.select(inputs[torch.tensor(undecided, device=inputs.device), at])
            for row, choice in zip(undecided, chosen, strict=True):
                self._active[row] = self.fired[row] = choice
        firing = [row for row in here if self._active[row] >= 0]
        if not firing:
            return None
        replaced = output.clone()
        index = torch.tensor(firing, device=output.device)
        at = torch.tensor([columns[row] for row in firing], device=output.device)
        replaced[index, at] = self.view.values([self._active[row] for row in firing], output)
        return replaced

    @property
    def edits(self) -> list[str | None]:
        """The id of the edit that fired in each row, ``None`` where none did."""
        return [self.view.edit_id(f) if f >= 0 else None for f in self.fired or ()]


class Attachment:
    """Keeps a model attached to a view until ``remove``; swapping ``view`` is one assignment.

    Raises:
        Anything raised while installing leaves the model as it was.
    """

    def __init__(self, model: Any, site: Site, view: View) -> None:
        self.view = view
        self.site = site
        self._model = model
        self._run: ContextVar[Run | None] = ContextVar("editkit_run", default=None)
        self._own: ContextVar[Run | None] = ContextVar("editkit_forward", default=None)
        self._undo = contextlib.ExitStack()
        with contextlib.ExitStack() as installing:
            before = model.register_forward_pre_hook(self._before, with_kwargs=True)
            installing.callback(before.remove)
            after = model.register_forward_hook(self._after, always_call=True)
            installing.callback(after.remove)
            at_site = site.module.register_forward_hook(self._at_site)
            installing.callback(at_site.remove)
            _replace(installing, model, "generate", self._wrapped(model.generate))
            self._undo = installing.pop_all()

    @property
    def is_attached(self) -> bool:
        """Whether the hooks are in place."""
        return self._model is not None

    def remove(self) -> None:
        """Takes every hook off, in reverse order; a second call does nothing."""
        self._undo.close()
        self._model = None

    def __enter__(self) -> Attachment:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.remove()

    @contextlib.contextmanager
    def running(self, view: View | None = None) -> Iterator[Run]:
        """Runs the calls of its body as one generation on ``view`` (by default the current one)."""
        run = Run(self.view if view is None else view, _is_generation=True)
        token = self._run.set(run)
        try:
            yield run
        finally:
            self._run.reset(token)

    def _wrapped(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(generate)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            run = self._run.get()
            with contextlib.ExitStack() as stack:
                if run is None:
                    run = stack.enter_context(self.running())
                inputs = kwargs.get("input_ids", kwargs.get("inputs", args[0] if args else None))
                run._mask = kwargs.get("attention_mask")
                if run._mask is None and isinstance(inputs, torch.Tensor) and _is_chunked(kwargs):
                    run._last = inputs.shape[1] - 1
                return generate(*args, **kwargs)

        return wrapper

    def _before(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        run = self._run.get()
        if run is None:
            run = Run(self.view)
            self._own.set(run)
        if len(run.view) == 0:
            return
        tokens = kwargs.get("input_ids", args[0] if args else None)
        if tokens is None:
            tokens = kwargs.get("inputs_embeds")
        if not isinstance(tokens, torch.Tensor):
            return
        cache = kwargs.get("past_key_values")
        mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        run.begin(
            offset=0 if cache is None else int(cache.get_seq_length()),
            length=tokens.shape[1],
            rows=tokens.shape[0],
            mask=mask if isinstance(mask, torch.Tensor) else None,
        )

    def _after(self, model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        self._own.set(None)

    def _at_site(
        self, module: nn.Module, args: tuple[Any, ...], output: torch.Tensor
    ) -> torch.Tensor | None:
        run = self._run.get() or self._own.get()
        if run is None or len(run.view) == 0:
            return None
        return run.apply(args[0], output)


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
            _replace(stack, block, "forward", lambda *args, **kwargs: output)
        yield


@contextlib.contextmanager
def substitute(module: nn.Module, column: int, value: torch.Tensor) -> Iterator[None]:
    """Replaces the module's output at ``column`` by ``value``, ``(rows, m)``, with gradients."""

    def put(_: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
        position = torch.arange(output.shape[1], device=output.device) == column
        replacement = value.to(output.dtype)[:, None, :]  # (rows, 1, m)
        return torch.where(position[None, :, None], replacement, output)

    handle = module.register_forward_hook(put)
    try:
        yield
    finally:
        handle.remove()


def _replace(stack: contextlib.ExitStack, owner: Any, name: str, new: Any) -> None:
    """Sets an attribute on the instance, and puts back what was there when ``stack`` closes."""
    had, old = name in owner.__dict__, owner.__dict__.get(name)
    owner.__dict__[name] = new

    def restore() -> None:
        if had:
            owner.__dict__[name] = old
        else:
            owner.__dict__.pop(name, None)

    stack.callback(restore)


def _is_chunked(kwargs: dict[str, Any]) -> bool:
    config = kwargs.get("generation_config")
    return bool(kwargs.get("prefill_chunk_size") or getattr(config, "prefill_chunk_size", None))
