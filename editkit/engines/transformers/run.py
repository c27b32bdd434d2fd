"""One generation or one forward call: which edits apply to its rows, and where.

A run decides each row once, and keeps the decision for the sequence: by prompt keys at the start of
the first call that contains the row's query, likewise by the text of its prompt where a scope reads
that, and by hidden states when that query passes through the patched module (or enters the first
block with a LoRA). Positions are absolute (cached tokens
included), so the same rule covers a KV cache, generation without one, chunked prefill, beams, and
left or right padding: an edit applies wherever its positions are computed, and nowhere else.
``editkit.scope.decide`` chooses among several edits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from editkit.engines.base import Keys, Part, Patch, Position, Queries, View
from editkit.engines.reading import PromptReader
from editkit.engines.transformers.lora import lora_output
from editkit.engines.transformers.routes import (
    DEFERRED,
    UNDECIDED,
    Route,
    Track,
    arbitrate,
    lora_of,
    select,
    span,
    values_of,
)
from editkit.errors import EmptyRow
from editkit.scope.decide import asked_for
from editkit.scope.overrides import Override

__all__ = ["Run"]


class Run:
    """One generation or one forward call.

    Args:
        views: The edits that apply: one view for all rows, or one per prompt.
        patches: Patches of methods by name, in the order in which they are consulted.
        position: Default query token of patches that name none.
        reader: Reads prompts and says which edits they ask for, instead of keys and states.

    Attributes:
        views: See above.
        is_empty: Whether no edit could fire.
    """

    def __init__(
        self,
        views: Sequence[View],
        patches: Mapping[str, Patch],
        position: Position = "last",
        reader: PromptReader | None = None,
    ) -> None:
        self.views = tuple(views)
        self._reader = reader
        # Read once: the view of a PEFT adapter builds its part anew on every access.
        parts = [{part.method: part for part in view.parts} for view in self.views]
        tracks = {
            name: Track(patch, position, [known.get(name) for known in parts])
            for name, patch in patches.items()
        }
        self._tracks = {name: track for name, track in tracks.items() if track.is_live}
        self._keyed = [
            track for track in self._tracks.values() if reader or track.patch.keys is not None
        ]
        self.is_empty = not self._tracks
        self._is_overridden = any(view.overrides for view in self.views)
        self.restart(None, None)

    def restart(
        self,
        mask: torch.Tensor | None,
        last: int | None,
        prompts: Sequence[Sequence[int]] | torch.Tensor | None = None,
    ) -> None:
        """Discards all decisions.

        Args:
            mask: ``(prompts, length)`` attention mask of the prompts, if known in advance.
            last: Position of the last token of prompts without padding, if known in advance.
            prompts: Their tokens, if known in advance: lists without padding, or ids or embeddings
                that match the mask.
        """
        self._mask, self._last = mask, last
        self._prompts = prompts
        self._prompts_mask = mask
        self._starts: list[int] = []  # absolute position of each prompt's first token
        self._ends: list[int] = []  # of its last one
        for track in self._tracks.values():
            track.forget()
        self._read: dict[int, str | None] = {}  # the edits that prompts ask for
        self._is_open = bool(self._keyed)  # some rows are not decided by prompt key yet
        self._offset = 0
        self._replaces_decoded = False  # some edit replaces decoded positions too
        self._reach = -1  # last position that matters, unless an edit replaces decoded ones

    def begin(self, *, offset: int, tokens: torch.Tensor, mask: torch.Tensor | None) -> None:
        """Records which absolute positions the next forward call covers.

        Args:
            offset: Number of cached positions before it.
            tokens: ``(rows, length)`` ids, or ``(rows, length, d)`` embeddings.
            mask: ``(rows, offset + length)`` attention mask.

        Raises:
            EmptyRow: A row of the attention mask has no token.
        """
        self._offset = offset
        rows, length = tokens.shape[:2]
        if not self._ends:
            self._locate_prompts(offset, tokens, mask)
        # Decided here and not at a module: a key needs nothing from the blocks, and the Python code
        # that just ran is still in the processor's caches.
        if self._is_open and offset <= self._reach:
            if self._reader is None:
                self._decide_by_keys(rows, length)
            else:
                self._decide_by_text(self._reader, rows, length)

    def _locate_prompts(self, offset: int, tokens: torch.Tensor, mask: torch.Tensor | None) -> None:
        """Records where the prompts begin and end."""
        rows, length = tokens.shape[:2]
        if self._prompts is None and (self._keyed or self._is_overridden):
            self._prompts = tokens
            self._prompts_mask = None if mask is None or mask.dim() != 2 else mask[:, -length:]
        mask = mask if self._mask is None else self._mask
        if mask is None or mask.dim() != 2 or bool(mask.all()):
            self._prompts_mask = None  # no position is masked
            last = offset + length - 1 if self._last is None else self._last
            if mask is not None and mask.dim() == 2:
                rows, last = len(mask), mask.shape[1] - 1
            self._starts, self._ends = [0] * rows, [last] * rows
        else:
            # On the host in numpy: about a dozen operations on a few numbers, at every prefill.
            attended = mask.detach().to(torch.bool).cpu().numpy()
            empty = np.flatnonzero(~attended.any(axis=1)).tolist()
            if empty:
                raise EmptyRow(
                    f"row {empty[0]} of the attention mask attends to no token, so its prompt "
                    "has no last token to look an edit up by",
                    rows=tuple(empty),
                    hint="leave empty prompts out of the batch",
                )
            self._ends = (attended.shape[1] - 1 - attended[:, ::-1].argmax(axis=1)).tolist()
            self._starts = attended.argmax(axis=1).tolist()
        self._reach = max(self._ends)

    def observe(self, method: str, states: torch.Tensor) -> None:
        """Decides rows by the hidden states of their queries, if the method uses states.

        Args:
            method: The method.
            states: ``(rows, length, d)``, input of the first patched block.
        """
        track = self._tracks.get(method)
        if track is not None and self._ends and self._offset <= self._reach:
            if track not in self._keyed:
                self._decide_by_states(track, states)

    def replace(
        self, method: str, inputs: torch.Tensor, output: torch.Tensor
    ) -> torch.Tensor | None:
        """Returns a module's output with fired rows replaced, or ``None`` to keep it.

        Args:
            method: The method whose patch it is.
            inputs: ``(rows, length, d)``, input of the module.
            output: ``(rows, length, m)``, its output.
        """
        track = self._tracks.get(method)
        if track is None or not self._ends:
            return None
        if self._offset > self._reach and not self._replaces_decoded:
            return None
        if track not in self._keyed:
            self._decide_by_states(track, inputs)
        rows, length = output.shape[:2]
        if len(track.routes) != rows:
            return None
        columns, fold = self._columns(track, rows)
        at: list[tuple[int, int]] = []
        firing: list[int] = []
        for row, (selection, number) in enumerate(track.routes):
            if selection is None:
                continue
            ending = self._ends[row // fold] - self._offset
            columns_of = range(*span(selection.positions(number), columns[row], ending, length))
            at += [(row, column) for column in columns_of]
            firing += [row] * len(columns_of)
        if not at:
            return None
        index = torch.tensor(at, device=output.device)
        replaced = output.clone()
        replaced[index[:, 0], index[:, 1]] = values_of(track, firing, output)
        return replaced

    def add(
        self, method: str, module: int, inputs: torch.Tensor, output: torch.Tensor
    ) -> torch.Tensor | None:
        """Returns a module's output with LoRAs added, or ``None`` to keep it.

        Args:
            method: The method whose patch it is.
            module: Index of the module in the patch.
            inputs: ``(rows, length, in)``, its input.
            output: ``(rows, length, out)``, its output.
        """
        track = self._tracks.get(method)
        if track is None or len(track.routes) != len(output):
            return None
        on = [row for row, route in enumerate(track.routes) if route[0] is not None]
        if not on:
            return None
        length = output.shape[1]
        columns, fold = self._columns(track, len(output))
        spans = []
        for row in on:
            selection, number = track.routes[row]
            assert selection is not None
            ending = self._ends[row // fold] - self._offset
            spans.append(span(selection.positions(number), columns[row], ending, length))
        first, end = min(one for one, _ in spans), max(one for _, one in spans)
        if first >= end:
            return None
        if module not in track.loras:
            track.loras[module] = lora_of(track, module, on, inputs)
        down, up = track.loras[module]
        rows = slice(None) if len(on) == len(output) else torch.tensor(on, device=output.device)
        added = lora_output(inputs[rows][:, first:end], down, up)
        if any(one != (first, end) for one in spans):
            at = torch.arange(first, end, device=added.device)
            limits = torch.tensor(spans, device=added.device)[:, :, None]
            added = added * ((at >= limits[:, 0]) & (at < limits[:, 1]))[..., None]
        found = output.clone()
        found[rows, first:end] += added.to(output.dtype)
        return found

    # Deciding ---------------------------------------------------------------------------------

    def _columns(self, track: Track, rows: int) -> tuple[list[int], int]:
        """Returns the columns of the rows' queries in this call, and the rows per prompt."""
        # With beams or several samples per prompt, each prompt's rows are consecutive.
        fold = max(1, rows // len(self._ends))
        at = self._starts if track.position == "first" else self._ends
        return [at[row // fold] - self._offset for row in range(rows)], fold

    def _undecided(self, track: Track, rows: int, length: int) -> tuple[list[int], list[int], int]:
        """Returns the undecided rows whose query is in this call; columns; rows per prompt."""
        columns, fold = self._columns(track, rows)
        if len(track.routes) != rows:
            track.routes = [UNDECIDED] * rows
        here = [
            row for row, column in enumerate(columns)
            if 0 <= column < length and track.routes[row] is UNDECIDED
        ]  # fmt: skip
        return here, columns, fold

    def _decide_by_keys(self, rows: int, length: int) -> None:
        """Decides rows whose query is in this call, for all methods that use prompt keys.

        Tracks that share keys are decided together.
        """
        groups: dict[int, list[Track]] = {}
        for track in self._keyed:
            groups.setdefault(id(track.patch.keys), []).append(track)
        earlier: list[Track] = []
        for group in groups.values():
            here, _, fold = self._undecided(group[0], rows, length)
            for track in group[1:]:
                self._undecided(track, rows, length)
            fired = {row for row in here if any(one.routes[row][0] for one in earlier)}
            asked = [
                row for row in here
                if row not in fired and any(one.part(row // fold) for one in group)
            ]  # fmt: skip
            chosen: list[list[Route]] = [[DEFERRED] * len(asked) for _ in group]
            if asked:
                keys = group[0].patch.keys
                assert keys is not None
                queries = self._prompt_keys(keys, [row // fold for row in asked])
                said = self._said(asked, fold, keys)
                chosen = [select(track, asked, queries, fold, said) for track in group]
                if len(group) > 1:
                    arbitrate(chosen, keys)
            for track, routes in zip(group, chosen, strict=True):
                for row in here:
                    track.routes[row] = DEFERRED
                for row, route in zip(asked, routes, strict=True):
                    track.routes[row] = route
                self._update(track, asked)
            earlier += group
        self._is_open = any(UNDECIDED in track.routes for track in self._keyed)

    def _decide_by_text(self, reader: PromptReader, rows: int, length: int) -> None:
        """Decides rows whose query is in this call by what their prompts ask for."""
        for track in self._keyed:
            here, _, fold = self._undecided(track, rows, length)
            numbers: dict[Part, list[tuple[int, int]]] = {}
            for row in here:
                track.routes[row] = DEFERRED
                prompt = row // fold
                part = track.part(prompt)
                edit_id = None if part is None else self._asked_for(reader, prompt)
                if part is not None and edit_id is not None and part.number(edit_id) >= 0:
                    numbers.setdefault(part, []).append((row, part.number(edit_id)))
            for part, found in numbers.items():
                selection = part.firing([number for _, number in found])
                for at, (row, _) in enumerate(found):
                    track.routes[row] = (selection, at)
            self._update(track, here)
        self._is_open = any(UNDECIDED in track.routes for track in self._keyed)

    def _asked_for(self, reader: PromptReader, prompt: int) -> str | None:
        """Returns the edit that a prompt asks for, read once."""
        if prompt not in self._read:
            view = self.views[0] if len(self.views) == 1 else self.views[prompt]
            ids = self._ids(prompt, reader)
            self._read[prompt] = asked_for(reader, ids, view)
        return self._read[prompt]

    def _decide_by_states(self, track: Track, states: torch.Tensor) -> None:
        """Decides rows whose query is in this call, by its hidden state.

        A row for which an edit of an earlier, keyed method fired takes no edit here: those edits
        were learned without it.
        """
        rows, length = states.shape[:2]
        here, columns, fold = self._undecided(track, rows, length)
        before = [one for one in self._keyed if self._is_before(one, track)]
        asked = []
        for row in here:
            if any(len(one.routes) == rows and one.routes[row][0] for one in before):
                track.routes[row] = DEFERRED
            elif track.part(row // fold) is None:
                track.routes[row] = DEFERRED
            else:
                asked.append(row)
        if not asked:
            return
        at = [columns[row] for row in asked]
        if len(asked) == rows and min(at) == max(at):
            queries = states[:, at[0]]  # the common case: a view, no copy
        else:
            queries = states[torch.tensor(asked), torch.tensor(at)]
        said = self._said(asked, fold, None)
        for row, route in zip(asked, select(track, asked, queries, fold, said), strict=True):
            track.routes[row] = route
        self._update(track, asked)

    def _is_before(self, one: Track, other: Track) -> bool:
        tracks = list(self._tracks.values())
        return tracks.index(one) < tracks.index(other)

    def _update(self, track: Track, rows: list[int]) -> None:
        """Updates the state that depends on the decisions about some rows."""
        track.loras.clear()
        if track.patch.mode == "replace":
            for row in rows:
                selection, number = track.routes[row]
                if selection is not None and selection.positions(number) in ("all", "query"):
                    self._replaces_decoded = True

    def _prompt_keys(self, keys: Keys, prompts: list[int]) -> Queries:
        """Returns the keys of prompts, ``(n, d)``."""
        found = {index: keys.key(self._ids(index, keys)) for index in dict.fromkeys(prompts)}
        if len(prompts) == 1:
            return found[prompts[0]][None]
        return np.stack([found[index] for index in prompts])

    def _said(self, rows: list[int], fold: int, keys: Keys | None) -> dict[int, Override]:
        """Returns what people said about the prompts of rows, by prompt."""
        found = {}
        for index in dict.fromkeys(row // fold for row in rows) if self._is_overridden else ():
            view = self.views[0] if len(self.views) == 1 else self.views[index]
            ids = self._ids(index, keys) if view.overrides else ()
            if view.overrides and ids and (one := view.overrides.of(ids, view.parts)) is not None:
                found[index] = one
        return found

    def _ids(self, prompt: int, keys: Keys | PromptReader | None) -> Sequence[int]:
        """Returns the tokens of a prompt; none for embeddings, without keys that read them."""
        assert self._prompts is not None
        if isinstance(self._prompts, torch.Tensor) and self._prompts_mask is None:
            if not self._prompts.is_floating_point():
                self._prompts = self._prompts.tolist()
        # Without a mask, each beam counts as a prompt of its own, with the same tokens.
        at = prompt // max(1, len(self._ends) // len(self._prompts))
        ids = self._prompts[at]
        if not isinstance(ids, torch.Tensor):
            return ids
        if self._prompts_mask is not None:
            ids = ids[self._prompts_mask[at].to(device=ids.device, dtype=torch.bool)]
        if not ids.is_floating_point():
            return list(ids.tolist())
        return () if keys is None else keys.ids(ids)

    @property
    def edits(self) -> list[str | None]:
        """The id of the edit that fired in each row, or ``None``."""
        rows = max((len(track.routes) for track in self._tracks.values()), default=0)
        if not rows:
            return []
        fold = max(1, rows // len(self.views))
        return [self._edit(row, row // fold) for row in range(rows)]

    def _edit(self, row: int, prompt: int) -> str | None:
        for track in self._tracks.values():
            selection, number = track.routes[row] if row < len(track.routes) else DEFERRED
            part = track.part(prompt)
            if selection is not None and part is not None:
                return part.edit_id(selection.fired[number])
        return None
