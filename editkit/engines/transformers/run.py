"""One generation or one forward call: which edits apply to its rows, and where.

A run decides the scope of each row once, when the row's query position passes through the site (or,
of a mixture of LoRAs, enters the first block that has any; or, of keys of prompts, when the first
call begins, if it has the query), and keeps the decision for the sequence. Positions are absolute
(cached tokens included), so the same rule covers a KV cache, generation without one, chunked
prefill, beams, and left or right padding: the value is put wherever the positions that it replaces
are computed, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from editkit.config import Position
from editkit.engines.base import Keys, Mixture, Queries, Routes, View
from editkit.errors import EmptyRow
from editkit.methods.elder.mixture import mixed

__all__ = ["Run"]

_Route = tuple[Routes | None, int]
_UNDECIDED: _Route = (None, -1)
_DEFERRED: _Route = (None, 0)


class Run:
    """One generation or one forward call.

    Args:
        views: The edits that apply: one view for all rows, or one a prompt.
        position: Which token of a prompt is the query.
        is_generation: One call of ``generate``, which goes on past its prompt.
        keys: What gives the keys of prompts; by default a prompt's key is the state at its query.
        routing: What gives those that a mixture is asked by; by default that state.

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
        routing: Keys | None = None,
    ) -> None:
        self._keys = keys
        self._routing = routing
        self.views = tuple(views)
        # Once: a view of an adapter makes its mixture anew whenever it is asked for it.
        self._mixtures = tuple(view.mixture for view in self.views)
        self._mixes = any(mixture is not None and len(mixture) for mixture in self._mixtures)
        self.is_empty = not self._mixes and not any(len(view) for view in self.views)
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
        self._routed: list[_Route] = []  # one a row
        self._loras: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}  # of a layer, one a row on
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
        if self._prompts is None and (self._keys is not None or self._routing is not None):
            self._prompts = tokens
            self._prompts_mask = None if mask is None or mask.dim() != 2 else mask[:, -length:]
        mask = mask if self._mask is None else self._mask
        if mask is None or mask.dim() != 2 or bool(mask.all()):
            self._prompts_mask = None  # nothing is left out of them
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
        if self._keys is not None:
            # Now, not at the site: a key needs nothing of the blocks, and what has just run,
            # Python, is still in the processor's caches.
            columns, fold = self._columns(len(tokens))
            self._decide(tokens, columns, length, fold)

    def apply(self, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor | None:
        """Returns the site's output with fired rows replaced, or ``None`` to leave it as it is.

        Args:
            inputs: ``(rows, length, d)``, entering the site.
            output: ``(rows, length, m)``, leaving it.
        """
        if not self._queries or (self._offset > self._reach and not self._goes_on):
            return None
        length = output.shape[1]
        columns, fold = self._columns(len(output))
        self._decide(inputs, columns, length, fold)
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

    def route(self, states: torch.Tensor) -> None:
        """Decides which rows take a mixture of LoRAs, and which.

        Where prompts are looked up by their tokens, a row for which the site's edit fires takes
        none: that edit was learned without them.

        Args:
            states: ``(rows, length, d)``, entering the first block with such layers.
        """
        if not self._mixes or not self._queries or self._offset > self._reach:
            return
        rows, length = states.shape[:2]
        columns, fold = self._columns(rows)
        if self._keys is not None:
            self._decide(states, columns, length, fold)
        if len(self._routed) != rows:
            self._routed = [_UNDECIDED] * rows
        here = [
            row for row in range(rows)
            if 0 <= columns[row] < length and self._routed[row] is _UNDECIDED
        ]  # fmt: skip
        if self._keys is not None:
            for row in here:
                if self._active[row] >= 0:
                    self._routed[row] = _DEFERRED
            here = [row for row in here if self._routed[row] is _UNDECIDED]
        if here:
            queries = self._asked(self._routing, states, here, columns, fold)
            for row, (routes, number) in zip(here, self._sent(here, queries, fold), strict=True):
                self._routed[row] = (routes, number)

    def _sent(self, rows: list[int], queries: Queries, fold: int) -> list[_Route]:
        """Returns where mixtures send rows with these queries."""
        found = [_DEFERRED] * len(rows)
        if not isinstance(queries, torch.Tensor):
            queries = torch.from_numpy(queries)
        for mixture in dict.fromkeys(self._mixture(row, fold) for row in rows):
            if mixture is None or not len(mixture):
                continue
            mine = [i for i, row in enumerate(rows) if self._mixture(row, fold) is mixture]
            routes = mixture.route(queries if len(mine) == len(rows) else queries[mine])
            for number, i in enumerate(mine):
                if routes.fired[number] >= 0:
                    found[i] = (routes, number)
        self._loras.clear()
        return found

    def mix(self, layer: int, inputs: torch.Tensor, output: torch.Tensor) -> torch.Tensor | None:
        """Returns a layer's output with the mixture added, or ``None`` to leave it as it is.

        Args:
            layer: Which of the adapted layers.
            inputs: ``(rows, length, in)``, entering it.
            output: ``(rows, length, out)``, leaving it.
        """
        if not self._mixes or len(self._routed) != len(output):
            return None
        on = [row for row, route in enumerate(self._routed) if route[0] is not None]
        if not on:
            return None
        length = output.shape[1]
        columns, fold = self._columns(len(output))
        starts = []
        for row in on:
            mixture = self._mixture(row, fold)
            is_all = mixture is not None and mixture.span == "sequence"
            starts.append(0 if is_all else min(max(0, columns[row]), length))
        first = min(starts)
        if first == length:
            return None
        if layer not in self._loras:
            self._loras[layer] = self._lora(layer, on, inputs)
        down, up = self._loras[layer]
        rows = slice(None) if len(on) == len(output) else torch.tensor(on, device=output.device)
        added = mixed(inputs[rows][:, first:], down, up)
        if max(starts) > first:
            at = torch.arange(first, length, device=added.device)
            behind = torch.tensor(starts, device=added.device)
            added = added * (at >= behind[:, None])[..., None]
        found = output.clone()
        found[rows, first:] += added.to(output.dtype)
        return found

    def _lora(
        self, layer: int, on: list[int], like: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        groups: dict[Routes, list[int]] = {}  # by where they were decided: mostly one for all
        for row in on:
            routes, _ = self._routed[row]
            assert routes is not None
            groups.setdefault(routes, []).append(row)
        parts = {
            routes: routes.lora(layer, [self._routed[row][1] for row in rows], like)
            for routes, rows in groups.items()
        }
        if len(parts) == 1:
            return next(iter(parts.values()))
        order = torch.tensor([row for rows in groups.values() for row in rows]).argsort()
        downs, ups = zip(*parts.values(), strict=True)
        order = order.to(downs[0].device)
        return torch.cat(downs)[order], torch.cat(ups)[order]

    def _columns(self, rows: int) -> tuple[list[int], int]:
        """Where the rows' queries are in this call, and how many rows a prompt has."""
        # Beams and several samples a prompt: each prompt's rows follow each other.
        fold = max(1, rows // len(self._queries))
        return [self._queries[row // fold] - self._offset for row in range(rows)], fold

    def _decide(self, states: torch.Tensor, columns: list[int], length: int, fold: int) -> None:
        """Decides which edit at the site fires, for rows whose query is in this call."""
        if len(self._active) != len(columns):
            self._active = [-2] * len(columns)
        undecided = [
            row for row, column in enumerate(columns)
            if 0 <= column < length and self._active[row] == -2
        ]  # fmt: skip
        if not undecided:
            return
        is_joint = self._mixes and self._keys is not None and self._keys is self._routing
        if not is_joint and not any(len(view) for view in self.views):
            # Nothing to look up: and a prompt's key may not be at hand before there is.
            for row in undecided:
                self._active[row] = -1
            self.fired = [-1] * len(self._active)
            return
        queries = self._asked(self._keys, states, undecided, columns, fold)
        for view in dict.fromkeys(self._view(row, fold) for row in undecided):
            mine = [i for i, row in enumerate(undecided) if self._view(row, fold) is view]
            asked = queries if len(mine) == len(queries) else queries[mine]
            chosen = view.select(asked) if len(view) else [-1] * len(mine)
            for i, choice in zip(mine, chosen, strict=True):
                self._active[undecided[i]] = choice
        if is_joint:
            self._choose(undecided, queries, fold)
        for row in undecided:
            choice = self._active[row]
            if choice >= 0 and self._view(row, fold).replacement(choice) == "all":
                self._goes_on = True
        self.fired = [max(-1, choice) for choice in self._active]

    def _choose(self, rows: list[int], queries: Queries, fold: int) -> None:
        """Decides between an edit at the site and one of a mixture: the nearer one applies.

        Both are asked by the same keys of prompts, so that their distances compare.
        """
        if len(self._routed) != len(self._active):
            self._routed = [_UNDECIDED] * len(self._active)
        for i, (row, route) in enumerate(zip(rows, self._sent(rows, queries, fold), strict=True)):
            routes, number = route
            choice = self._active[row]
            if routes is not None and choice >= 0:
                is_nearer = len(routes.apart) and routes.apart[number] < self._view(
                    row, fold
                ).apart(choice, queries[i])
                if is_nearer:
                    self._active[row] = -1
                else:
                    route = _DEFERRED
            self._routed[row] = route

    def _asked(
        self,
        keys: Keys | None,
        states: torch.Tensor,
        rows: list[int],
        columns: list[int],
        fold: int,
    ) -> Queries:
        """What rows are looked up by, ``(n, d)``: keys of their prompts, or states at queries."""
        if keys is not None:
            return self._pooled(keys, [row // fold for row in rows])
        at = [columns[row] for row in rows]
        if len(rows) == len(states) and min(at) == max(at):
            return states[:, at[0]]  # the usual case and a view
        return states[torch.tensor(rows), torch.tensor(at)]

    def _pooled(self, keys: Keys, prompts: list[int]) -> Queries:
        """Returns the keys of prompts ``(n, d)``, from their tokens."""
        assert self._prompts is not None
        if isinstance(self._prompts, torch.Tensor) and self._prompts_mask is None:
            if not self._prompts.is_floating_point():
                self._prompts = self._prompts.tolist()
        found = {}
        # Of beams without a mask each is taken for a prompt of its own; their tokens are one's.
        fold = max(1, len(self._queries) // len(self._prompts))
        for index in dict.fromkeys(prompts):
            at = index // fold
            ids = self._prompts[at]
            if isinstance(ids, torch.Tensor):
                if self._prompts_mask is not None:
                    ids = ids[self._prompts_mask[at].to(device=ids.device, dtype=torch.bool)]
                ids = keys.ids(ids) if ids.is_floating_point() else ids.tolist()
            found[index] = keys.key(ids)
        if len(prompts) == 1:
            return found[prompts[0]][None]
        return np.stack([found[index] for index in prompts])

    def _values(self, firing: list[int], fold: int, like: torch.Tensor) -> torch.Tensor:
        if len(self.views) == 1:
            return self.views[0].values([self._active[row] for row in firing], like)
        return torch.cat(
            [self._view(row, fold).values([self._active[row]], like) for row in firing]
        )

    def _view(self, row: int, fold: int = 1) -> View:
        return self.views[0] if len(self.views) == 1 else self.views[row // fold]

    def _mixture(self, row: int, fold: int = 1) -> Mixture | None:
        return self._mixtures[0 if len(self.views) == 1 else row // fold]

    @property
    def edits(self) -> list[str | None]:
        """The id of the edit that fired in each row, ``None`` where none did."""
        rows = max(len(self._active), len(self._routed))
        if not rows:
            return []
        fold = max(1, rows // len(self.views))
        return [self._edit(row, fold) for row in range(rows)]

    def _edit(self, row: int, fold: int) -> str | None:
        if row < len(self._active) and self._active[row] >= 0:
            return self._view(row, fold).edit_id(self._active[row])
        routes, number = self._routed[row] if row < len(self._routed) else _DEFERRED
        mixture = self._mixture(row, fold)
        if routes is None or mixture is None:
            return None
        return mixture.edit_id(routes.fired[number])
