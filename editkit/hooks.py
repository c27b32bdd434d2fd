"""The only module that hooks into a model or replaces anything on it.

An ``Attachment`` makes a model apply a view of edits. It installs a pre-hook on the module that
runs the blocks (which positions does this call cover?), a hook on the site (which rows fire, and
what replaces their output?), and wraps ``model.generate`` on the instance, so that one call of
``generate`` is one *run*.

A run decides the scope of each row once, when the row's query position passes through the site, and
keeps the decision for the sequence. Positions are absolute (cached tokens included), so the same
rule covers a KV cache, generation without one, chunked prefill, beams, and left or right padding:
the value is put wherever the positions that it replaces are computed, and nowhere else. A forward
call outside ``generate`` is a run of its own; with a cache and a single new token it is a decode
step, which goes on with what was decided for that cache.

Runs live in a context variable: threads and tasks do not see each other's, and a run finishes on
the view it began with.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from editkit.applied import Keys, View
from editkit.config import Position
from editkit.errors import EmptyRow
from editkit.sites import Site

__all__ = [
    "Attachment",
    "Keys",
    "Run",
    "View",
    "capture",
    "narrow_head",
    "resume_above",
    "substitute",
]


class Run:
    """One generation or one forward call.

    Args:
        views: The edits that apply: one view for all rows, or one a prompt.
        position: Which token of a prompt is the query.
        is_generation: One call of ``generate``, which goes on past its prompt.
        keys: What gives the keys of prompts; by default a prompt's key is the state at its query.

    Attributes:
        views: See above.
        fired: For each row of the prefill the edit that fired, -1 for none; ``None`` before.
    """

    def __init__(
        self,
        views: Sequence[View],
        position: Position = "last",
        *,
        is_generation: bool = False,
        keys: Keys | None = None,
    ) -> None:
        self._keys = keys
        self.views = tuple(views)
        self.is_empty = not any(len(view) for view in self.views)
        self.fired: list[int] | None = None
        self._position = position
        self._is_generation = is_generation
        self.restart(None, None)

    def restart(
        self,
        mask: torch.Tensor | None,
        last: int | None,
        prompts: Sequence[Sequence[int]] | torch.Tensor | None = None,
    ) -> None:
        """Forgets what was decided.

        Args:
            mask: ``(prompts, length)`` attention mask of the prompts, where known beforehand.
            last: Position of the last token of prompts without padding, where known beforehand.
            prompts: Their tokens, where known beforehand: lists without padding, or ids or
                embeddings that the mask goes with.
        """
        self._mask, self._last = mask, last
        self._prompts = prompts
        self._prompts_mask = mask
        self._queries: list[int] = []  # absolute, one a prompt
        self._ends: list[int] = []  # position of the prompt's last token
        self._active: list[int] = []  # one a row: -2 undecided, -1 none, else the edit
        self._offset = 0
        self._goes_on = False  # some edit replaces decoded positions too
        self._reach = -1  # no position beyond is of interest, unless an edit goes on

    def begin(self, *, offset: int, tokens: torch.Tensor, mask: torch.Tensor | None) -> None:
        """Notes which absolute positions the coming forward call covers.

        Args:
            offset: Positions before it that are cached.
            tokens: ``(rows, length)`` ids, or ``(rows, length, d)`` embeddings.
            mask: ``(rows, offset + length)`` attention mask.

        Raises:
            EmptyRow: The attention mask has a row without any token.
        """
        self._offset = offset
        if self._queries:
            return
        rows, length = tokens.shape[:2]
        if self._prompts is None and self._keys is not None:
            self._prompts = tokens
            self._prompts_mask = None if mask is None or mask.dim() != 2 else mask[:, -length:]
        mask = mask if self._mask is None else self._mask
        if mask is None or mask.dim() != 2 or bool(mask.all()):
            last = offset + length - 1 if self._last is None else self._last
            if mask is not None and mask.dim() == 2:
                rows, last = len(mask), mask.shape[1] - 1
            self._queries = self._ends = [last] * rows
            if self._position == "first":
                self._queries = [0] * rows
        else:
            # On the host in numpy: a dozen operations on a few numbers, at every prefill.
            attended = mask.detach().to(torch.bool).cpu().numpy()
            empty = np.flatnonzero(~attended.any(axis=1)).tolist()
            if empty:
                raise EmptyRow(
                    f"row {empty[0]} of the attention mask attends to no token, so the prompt in "
                    "it has no last token to look an edit up by",
                    rows=tuple(empty),
                    hint="leave empty prompts out of the batch",
                )
            self._ends = (attended.shape[1] - 1 - attended[:, ::-1].argmax(axis=1)).tolist()
            self._queries = self._ends
            if self._position == "first":
                self._queries = attended.argmax(axis=1).tolist()
        self._reach = max(self._ends)

    def apply(self, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor | None:
        """Returns the site's output with fired rows replaced, or ``None`` to leave it as it is.

        Args:
            inputs: ``(rows, length, d)``, entering the site.
            output: ``(rows, length, m)``, leaving it.
        """
        if not self._queries or (self._offset > self._reach and not self._goes_on):
            return None
        rows, length = output.shape[:2]
        # Beams and several samples a prompt: each prompt's rows follow each other.
        fold = max(1, rows // len(self._queries))
        columns = [self._queries[row // fold] - self._offset for row in range(rows)]
        if len(self._active) != rows:
            self._active = [-2] * rows
        self._decide(inputs, [r for r in range(rows) if 0 <= columns[r] < length], columns, fold)
        at: list[tuple[int, int]] = []
        firing: list[int] = []
        for row, choice in enumerate(self._active):
            if choice < 0:
                continue
            mode = self._view(row, fold).replacement(choice)
            end = self._ends[row // fold] - self._offset + 1
            if mode == "last":
                span = range(max(0, columns[row]), min(length, columns[row] + 1))
            else:
                span = range(0, max(0, min(length, end)) if mode == "prompt" else length)
            at += [(row, column) for column in span]
            firing += [row] * len(span)
        if not at:
            return None
        index = torch.tensor(at, device=output.device)
        replaced = output.clone()
        replaced[index[:, 0], index[:, 1]] = self._values(firing, fold, output)
        return replaced

    def _decide(self, inputs: torch.Tensor, here: list[int], columns: list[int], fold: int) -> None:
        undecided = [row for row in here if self._active[row] == -2]
        if not undecided:
            return
        if self._keys is not None:
            queries = self._pooled([row // fold for row in undecided])
        else:
            at = [columns[row] for row in undecided]
            if len(undecided) == len(inputs) and min(at) == max(at):
                queries = inputs[:, at[0]]  # (undecided, d), the usual case and a view
            else:
                queries = inputs[torch.tensor(undecided), torch.tensor(at)]
        for view in dict.fromkeys(self._view(row, fold) for row in undecided):
            mine = [i for i, row in enumerate(undecided) if self._view(row, fold) is view]
            asked = queries if len(mine) == len(queries) else queries[mine]
            chosen = view.select(asked) if len(view) else [-1] * len(mine)
            for i, choice in zip(mine, chosen, strict=True):
                self._active[undecided[i]] = choice
                if choice >= 0 and view.replacement(choice) == "all":
                    self._goes_on = True
        self.fired = [max(-1, choice) for choice in self._active]

    def _pooled(self, prompts: list[int]) -> torch.Tensor:
        """Returns the keys of prompts ``(n, d)``, from their tokens."""
        assert self._keys is not None
        assert self._prompts is not None
        found = {}
        # Of beams without a mask each is taken for a prompt of its own; their tokens are one's.
        fold = max(1, len(self._queries) // len(self._prompts))
        for index in dict.fromkeys(prompts):
            at = index // fold
            ids = self._prompts[at]
            if isinstance(ids, torch.Tensor):
                if self._prompts_mask is not None:
                    ids = ids[self._prompts_mask[at].to(device=ids.device, dtype=torch.bool)]
                ids = self._keys.ids(ids) if ids.is_floating_point() else ids.tolist()
            found[index] = self._keys.key(ids)
        return torch.from_numpy(np.stack([found[index] for index in prompts]))

    def _values(self, firing: list[int], fold: int, like: torch.Tensor) -> torch.Tensor:
        if len(self.views) == 1:
            return self.views[0].values([self._active[row] for row in firing], like)
        return torch.cat(
            [self._view(row, fold).values([self._active[row]], like) for row in firing]
        )

    def _view(self, row: int, fold: int = 1) -> View:
        return self.views[0] if len(self.views) == 1 else self.views[row // fold]

    @property
    def edits(self) -> list[str | None]:
        """The id of the edit that fired in each row, ``None`` where none did."""
        fired = self.fired or []
        fold = max(1, len(fired) // len(self.views))
        return [self._view(r, fold).edit_id(f) if f >= 0 else None for r, f in enumerate(fired)]


class Attachment:
    """Keeps a model attached to a view until ``remove``; swapping ``view`` is one assignment.

    Args:
        model: The model.
        site: Where the view's values go.
        view: The edits that apply.
        position: Which token of a prompt is the query; by default the family's own.
        keys: What gives the keys of prompts; by default a prompt's key is the state at its query.

    Raises:
        Anything raised while installing leaves the model as it was.
    """

    def __init__(
        self,
        model: Any,
        site: Site,
        view: View,
        *,
        position: Position | None = None,
        keys: Keys | None = None,
    ) -> None:
        self._keys = keys
        self.view = view
        self.site = site
        self._position = position or site.layout.position
        self._host: nn.Module | None = site.layout.host
        self._run: ContextVar[Run | None] = ContextVar("editkit_run", default=None)
        self._own: ContextVar[Run | None] = ContextVar("editkit_forward", default=None)
        # What was decided for a sequence stays with its cache, for decoding loops of others.
        self._decided: weakref.WeakKeyDictionary[Any, Run] = weakref.WeakKeyDictionary()
        self._undo = contextlib.ExitStack()
        with contextlib.ExitStack() as installing:
            before = self._host.register_forward_pre_hook(self._before, with_kwargs=True)
            installing.callback(before.remove)
            after = self._host.register_forward_hook(self._after, always_call=True)
            installing.callback(after.remove)
            at_site = site.module.register_forward_hook(self._at_site)
            installing.callback(at_site.remove)
            if hasattr(model, "generate"):
                _replace(installing, model, "generate", self._wrapped(model.generate))
            self._undo = installing.pop_all()

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
        run = Run(views or (self.view,), self._position, is_generation=True, keys=self._keys)
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
            run = (
                self._decided.get(cache)
                if is_step
                else Run((self.view,), self._position, keys=self._keys)
            )
            self._own.set(run)
        if run is None or run.is_empty:
            return
        mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        run.begin(
            offset=offset, tokens=tokens, mask=mask if isinstance(mask, torch.Tensor) else None
        )

    def _after(self, host: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        run, cache = self._own.get(), getattr(output, "past_key_values", None)
        if run is not None and cache is not None and not run.is_empty:
            self._decided[cache] = run
        self._own.set(None)

    def _at_site(
        self, module: nn.Module, args: tuple[Any, ...], output: torch.Tensor
    ) -> torch.Tensor | None:
        run = self._run.get() or self._own.get()
        if run is None or run.is_empty:
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
        _replace(stack, head, "forward", forward)
        yield passed


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
