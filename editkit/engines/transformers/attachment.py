"""Hooks that apply a view of edits to a model.

An ``Attachment`` installs a pre-hook on the module that runs the blocks (which positions does this
call cover?), hooks on the modules that methods patch (which rows fire, and how does their output
change?), and wraps ``model.generate`` on the instance, so that one call of ``generate`` is one
*run*. A forward call outside ``generate`` is a run of its own; with a cache and a single new token
it is a decode step, which reuses the decisions made for that cache.

Runs live in a context variable: threads and tasks do not see each other's runs, and a run finishes
on the view it started with.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any

import torch
from torch import nn

from editkit.engines.base import Patch, Position, View
from editkit.engines.reading import PromptReader
from editkit.engines.transformers.replacing import replace
from editkit.engines.transformers.run import Run
from editkit.models.layout import Layout

__all__ = ["Attachment"]


class Attachment:
    """Keeps a model attached to a view until ``remove``; swapping ``view`` is one assignment.

    Args:
        model: The model.
        layout: Its layout.
        view: The edits that apply.
        patches: Patches of methods by name, in the order in which they are consulted.
        position: Default query token of patches that name none; by default the model family's.

    Attributes:
        reader: Reads prompts and says which edits they ask for; None where keys and states do.

    Raises:
        If installing raises, the model is left unchanged.
    """

    def __init__(
        self,
        model: Any,
        layout: Layout,
        view: View,
        patches: Mapping[str, Patch] | None = None,
        *,
        position: Position | None = None,
    ) -> None:
        self.view = view
        self.reader: PromptReader | None = None
        self._position: Position = position or layout.position
        self._host: nn.Module | None = layout.host
        self._patches: dict[str, Patch | None] = {}
        self._run: ContextVar[Run | None] = ContextVar("editkit_run", default=None)
        self._own: ContextVar[Run | None] = ContextVar("editkit_forward", default=None)
        # Decisions for a sequence are kept with its cache, for decoding loops outside `generate`.
        self._decided: weakref.WeakKeyDictionary[Any, Run] = weakref.WeakKeyDictionary()
        self._undo = contextlib.ExitStack()
        self._hooked: dict[str, contextlib.ExitStack] = {}
        with contextlib.ExitStack() as installing:
            before = self._host.register_forward_pre_hook(self._before_forward, with_kwargs=True)
            installing.callback(before.remove)
            after = self._host.register_forward_hook(self._after_forward, always_call=True)
            installing.callback(after.remove)
            installing.callback(self._unpatch)
            for method, patch in (patches or {}).items():
                self.patch(method, patch)
            if hasattr(model, "generate"):
                replace(installing, model, "generate", self._wrapped(model.generate))
            self._undo = installing.pop_all()

    def patch(self, method: str, patch: Patch | None) -> None:
        """Sets the patch of a method; None removes it.

        Args:
            method: The method. A new one is consulted after those that are known.
            patch: The patch.
        """
        if method in self._patches and self._patches[method] == patch:
            return
        if method in self._hooked:
            self._hooked.pop(method).close()
        with contextlib.ExitStack() as installing:
            if patch is not None:
                if patch.entry is not None:
                    entering = patch.entry.register_forward_pre_hook(
                        functools.partial(self._on_entry, method), with_kwargs=True
                    )
                    installing.callback(entering.remove)
                for number, module in enumerate(patch.modules):
                    act = (
                        functools.partial(self._on_replace, method)
                        if patch.mode == "replace"
                        else functools.partial(self._on_add, method, number)
                    )
                    installing.callback(module.register_forward_hook(act).remove)
            self._hooked[method] = installing.pop_all()
        # One assignment: a run that starts meanwhile sees either the old patches or the new.
        self._patches = {**self._patches, method: patch}

    def _unpatch(self) -> None:
        for method in reversed(list(self._hooked)):
            self.patch(method, None)

    @property
    def is_attached(self) -> bool:
        """Whether the hooks are in place."""
        return self._host is not None

    def remove(self) -> None:
        """Removes every hook, in reverse order; a second call does nothing."""
        self._undo.close()
        self._host = None

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
    def running(self, *views: View) -> Iterator[Run]:
        """Runs the calls of its body as one generation.

        Args:
            *views: One view for all rows, or one per prompt; by default the current one.
        """
        run = self._new_run(views or (self.view,))
        token = self._run.set(run)
        try:
            yield run
        finally:
            self._run.reset(token)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Disables all edits for the calls of this thread in its body."""
        token = self._run.set(Run((), {}, self._position))
        try:
            yield
        finally:
            self._run.reset(token)

    def _new_run(self, views: Sequence[View]) -> Run:
        patches = {name: one for name, one in self._patches.items() if one is not None}
        return Run(views, patches, self._position, self.reader)

    def _wrapped(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(generate)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            run = self._run.get()
            with contextlib.ExitStack() as stack:
                if run is None:
                    run = stack.enter_context(self.running())
                inputs = kwargs.get("input_ids", kwargs.get("inputs", args[0] if args else None))
                mask, last = kwargs.get("attention_mask"), None
                if mask is None and isinstance(inputs, torch.Tensor) and _is_chunked(kwargs):
                    last = inputs.shape[1] - 1
                prompts = inputs if isinstance(inputs, torch.Tensor) else None
                if prompts is None:
                    prompts = kwargs.get("inputs_embeds")
                run.restart(mask, last, prompts)
                return generate(*args, **kwargs)

        return wrapper

    def _before_forward(
        self, host: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        run = self._run.get()
        cache = kwargs.get("past_key_values")
        tokens = kwargs.get("input_ids", args[0] if args else None)
        if tokens is None:
            tokens = kwargs.get("inputs_embeds")
        if not isinstance(tokens, torch.Tensor):
            return
        offset = 0 if cache is None else int(cache.get_seq_length())
        if run is None:
            # A cache and one new token: a decode step of the caller's own loop.
            is_step = offset > 0 and tokens.shape[1] == 1
            run = self._decided.get(cache) if is_step else self._new_run((self.view,))
            self._own.set(run)
        if run is None or run.is_empty:
            return
        mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        run.begin(
            offset=offset, tokens=tokens, mask=mask if isinstance(mask, torch.Tensor) else None
        )

    def _after_forward(self, host: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._run.get() is not None:
            return  # inside `paused`, the enclosing call may have a run of its own
        run, cache = self._own.get(), getattr(output, "past_key_values", None)
        if run is not None and cache is not None and not run.is_empty:
            self._decided[cache] = run
        self._own.set(None)

    def _on_entry(
        self, method: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        run = self._run.get() or self._own.get()
        if run is not None and not run.is_empty:
            run.observe(method, args[0] if args else kwargs["hidden_states"])

    def _on_add(
        self,
        method: str,
        number: int,
        module: nn.Module,
        args: tuple[Any, ...],
        output: torch.Tensor,
    ) -> torch.Tensor | None:
        run = self._run.get() or self._own.get()
        if run is None:
            self._refuse_recompute(method)
            return None
        if run.is_empty:
            return None
        return run.add(method, number, args[0], output)

    def _refuse_recompute(self, method: str) -> None:
        part = next((one for one in self.view.parts if one.method == method), None)
        # A block recomputed in the backward pass does not know which forward call it belongs to:
        # without this check, the added LoRAs would silently get no gradients.
        if part is not None and len(part) and torch._C._current_graph_task_id() != -1:
            raise RuntimeError(
                "a mixture of LoRAs cannot be recomputed in the backward pass; switch gradient "
                "checkpointing off"
            )

    def _on_replace(
        self, method: str, module: nn.Module, args: tuple[Any, ...], output: torch.Tensor
    ) -> torch.Tensor | None:
        run = self._run.get() or self._own.get()
        if run is None or run.is_empty:
            return None
        return run.replace(method, args[0], output)


def _is_chunked(kwargs: dict[str, Any]) -> bool:
    config = kwargs.get("generation_config")
    return bool(kwargs.get("prefill_chunk_size") or getattr(config, "prefill_chunk_size", None))
