"""A model that follows a view of edits.

An ``Attachment`` installs a pre-hook on the module that runs the blocks (which positions does this
call cover?), a hook on the site (which rows fire, and what replaces their output?), hooks where a
mixture of LoRAs goes, and wraps ``model.generate`` on the instance, so that one call of
``generate`` is one *run*. A forward call outside ``generate`` is a run of its own; with a cache and
a single new token it is a decode step, which goes on with what was decided for that cache.

Runs live in a context variable: threads and tasks do not see each other's, and a run finishes on
the view it began with.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import nn

from editkit.config import Position
from editkit.engines.base import Keys, View
from editkit.engines.transformers.layout import Layout
from editkit.engines.transformers.replacing import replace
from editkit.engines.transformers.run import Run
from editkit.engines.transformers.site import Site

__all__ = ["Adapted", "Attachment"]


@dataclass(frozen=True)
class Adapted:
    """Where a mixture of LoRAs goes.

    Attributes:
        entry: The block that holds the first of the modules: what enters it is the query.
        modules: The linear maps.
        keys: What gives the keys of prompts that it is asked by; None for the query's state.
    """

    entry: nn.Module
    modules: tuple[nn.Module, ...]
    keys: Keys | None = None


class Attachment:
    """Keeps a model attached to a view until ``remove``; swapping ``view`` is one assignment.

    Args:
        model: The model.
        site: Where the view's values go; or, with nothing at a site, the model's layout.
        view: The edits that apply.
        position: Which token of a prompt is the query; by default the family's own.
        keys: What gives the keys of prompts; by default a prompt's key is the state at its query.
        adapted: Where a view's mixture goes.

    Raises:
        Anything raised while installing leaves the model as it was.
    """

    def __init__(
        self,
        model: Any,
        site: Site | Layout,
        view: View,
        *,
        position: Position | None = None,
        keys: Keys | None = None,
        adapted: Adapted | None = None,
    ) -> None:
        self._keys = keys
        self.view = view
        self._site = site if isinstance(site, Site) else None
        layout = site.layout if isinstance(site, Site) else site
        self._position = position or layout.position
        self._host: nn.Module | None = layout.host
        self._run: ContextVar[Run | None] = ContextVar("editkit_run", default=None)
        self._own: ContextVar[Run | None] = ContextVar("editkit_forward", default=None)
        # What was decided for a sequence stays with its cache, for decoding loops of others.
        self._decided: weakref.WeakKeyDictionary[Any, Run] = weakref.WeakKeyDictionary()
        self._routing: Keys | None = None
        self._undo = contextlib.ExitStack()
        self._mixing = contextlib.ExitStack()
        with contextlib.ExitStack() as installing:
            before = self._host.register_forward_pre_hook(self._before, with_kwargs=True)
            installing.callback(before.remove)
            after = self._host.register_forward_hook(self._after, always_call=True)
            installing.callback(after.remove)
            if self._site is not None:
                at_site = self._site.module.register_forward_hook(self._at_site)
                installing.callback(at_site.remove)
            self.adapt(adapted)
            installing.callback(self.adapt, None)
            if hasattr(model, "generate"):
                replace(installing, model, "generate", self._wrapped(model.generate))
            self._undo = installing.pop_all()

    def adapt(self, adapted: Adapted | None) -> None:
        """Applies a view's mixture there from now on; with None, and where it did before, not."""
        self._mixing.close()
        self._routing = None if adapted is None else adapted.keys
        with contextlib.ExitStack() as installing:
            if adapted is not None:
                entering = adapted.entry.register_forward_pre_hook(self._entering, with_kwargs=True)
                installing.callback(entering.remove)
                for layer, module in enumerate(adapted.modules):
                    at_layer = functools.partial(self._at_layer, layer)
                    installing.callback(module.register_forward_hook(at_layer).remove)
            self._mixing = installing.pop_all()

    @property
    def site(self) -> Site:
        """Where the view's values go."""
        assert self._site is not None
        return self._site

    @property
    def is_attached(self) -> bool:
        """Whether the hooks are in place."""
        return self._host is not None

    def remove(self) -> None:
        """Takes every hook off, in reverse order; a second call does nothing."""
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
            *views: One view for all rows, or one a prompt; by default the current one.
        """
        run = self._new(views or (self.view,), is_generation=True)
        token = self._run.set(run)
        try:
            yield run
        finally:
            self._run.reset(token)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Runs the calls of its body, and those of this thread alone, without any edit."""
        token = self._run.set(Run((), self._position))
        try:
            yield
        finally:
            self._run.reset(token)

    def _new(self, views: Sequence[View], *, is_generation: bool = False) -> Run:
        return Run(
            views,
            self._position,
            is_generation=is_generation,
            keys=self._keys,
            routing=self._routing,
        )

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

    def _before(self, host: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        run = self._run.get()
        cache = kwargs.get("past_key_values")
        tokens = kwargs.get("input_ids", args[0] if args else None)
        if tokens is None:
            tokens = kwargs.get("inputs_embeds")
        if not isinstance(tokens, torch.Tensor):
            return
        offset = 0 if cache is None else int(cache.get_seq_length())
        if run is None:
            # A cache and one new token: a decode step of somebody's own loop.
            is_step = offset > 0 and tokens.shape[1] == 1
            run = self._decided.get(cache) if is_step else self._new((self.view,))
            self._own.set(run)
        if run is None or run.is_empty:
            return
        mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        run.begin(
            offset=offset, tokens=tokens, mask=mask if isinstance(mask, torch.Tensor) else None
        )

    def _after(self, host: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if self._run.get() is not None:
            return  # within `paused`, the call around this one may have a run of its own
        run, cache = self._own.get(), getattr(output, "past_key_values", None)
        if run is not None and cache is not None and not run.is_empty:
            self._decided[cache] = run
        self._own.set(None)

    def _entering(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        run = self._run.get() or self._own.get()
        if run is not None and not run.is_empty:
            run.route(args[0] if args else kwargs["hidden_states"])

    def _at_layer(
        self, layer: int, module: nn.Module, args: tuple[Any, ...], output: torch.Tensor
    ) -> torch.Tensor | None:
        run = self._run.get() or self._own.get()
        if run is None:
            self._refuse_recomputing()
            return None
        if run.is_empty:
            return None
        return run.mix(layer, args[0], output)

    def _refuse_recomputing(self) -> None:
        mixture = self.view.mixture
        # A block that is computed again within a backward pass does not know which forward call
        # it belongs to: without this, its experts would silently get no gradients.
        if mixture is not None and len(mixture) and torch._C._current_graph_task_id() != -1:
            raise RuntimeError(
                "a mixture of LoRAs cannot be computed again in the backward pass; switch gradient "
                "checkpointing off"
            )

    def _at_site(
        self, module: nn.Module, args: tuple[Any, ...], output: torch.Tensor
    ) -> torch.Tensor | None:
        run = self._run.get() or self._own.get()
        if run is None or run.is_empty:
            return None
        return run.apply(args[0], output)


def _is_chunked(kwargs: dict[str, Any]) -> bool:
    config = kwargs.get("generation_config")
    return bool(kwargs.get("prefill_chunk_size") or getattr(config, "prefill_chunk_size", None))
