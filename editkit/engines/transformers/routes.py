"""The decisions of a run: for each row of a method, the selection that applies.

A ``Track`` keeps them for one method; the functions make them, and read what the selections apply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from editkit.engines.base import Keys, Part, Patch, Position, Positions, Queries, Selection
from editkit.scope.decide import Proposal, winner
from editkit.scope.overrides import Override, overridden

__all__ = [
    "DEFERRED",
    "UNDECIDED",
    "Route",
    "Track",
    "arbitrate",
    "lora_of",
    "select",
    "span",
    "values_of",
]

Route = tuple[Selection | None, int]
"""The selection that applies to a row, and the row's index in it."""

UNDECIDED: Route = (None, -1)
DEFERRED: Route = (None, 0)


class Track:
    """The state of one method in a run.

    Attributes:
        patch: Its patch.
        position: Token of a prompt that is its query.
        parts: Its edits, one part per view of the run.
        is_live: Whether it has any edits.
        routes: For each row the selection that applies, and the row's index in it.
        loras: By module index, the LoRAs of the rows with a selection.
    """

    def __init__(self, patch: Patch, position: Position, parts: Sequence[Part | None]) -> None:
        self.patch = patch
        self.position = patch.position or position
        self.parts = parts
        self.is_live = any(part is not None and len(part) for part in parts)
        self.forget()

    def forget(self) -> None:
        """Discards all decisions."""
        self.routes: list[Route] = []
        self.loras: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def part(self, prompt: int) -> Part | None:
        """Returns the edits that apply to a prompt, if there are any."""
        part = self.parts[0] if len(self.parts) == 1 else self.parts[prompt]
        return part if part is not None and len(part) else None


def select(
    track: Track,
    rows: list[int],
    queries: Queries,
    fold: int,
    overrides: Mapping[int, Override],
) -> list[Route]:
    """Returns the selections of a track's parts for rows with these queries.

    Args:
        track: The track.
        rows: The rows.
        queries: ``(rows, d)``.
        fold: Rows per prompt.
        overrides: What people said about prompts, by prompt.
    """
    found = [DEFERRED] * len(rows)
    parts = [track.part(row // fold) for row in rows]
    for part in dict.fromkeys(parts):
        if part is None:
            continue
        mine = [i for i, one in enumerate(parts) if one is part]
        selection = part.select(queries if len(mine) == len(rows) else queries[mine])
        for number, i in enumerate(mine):
            if selection.fired[number] >= 0:
                found[i] = (selection, number)
    for i, row in enumerate(rows if overrides else ()):
        override, part = overrides.get(row // fold), parts[i]
        if override is not None and part is not None:
            one = overridden(part, queries[i], override)
            found[i] = DEFERRED if one is None or one.fired[0] < 0 else (one, 0)
    return found


def arbitrate(chosen: list[list[Route]], keys: Keys) -> None:
    """Keeps only the winning route of each row, among several tracks."""
    for row in range(len(chosen[0])):
        routes = [routes[row] for routes in chosen]
        proposals = [
            None if selection is None else Proposal(keys, selection.distance(number))
            for selection, number in routes
        ]
        if sum(one is not None for one in proposals) > 1:
            best = winner(proposals)
            for index, one in enumerate(chosen):
                if index != best:
                    one[row] = DEFERRED


def values_of(track: Track, firing: list[int], like: torch.Tensor) -> torch.Tensor:
    """Returns the values that replace the output at positions of the given rows."""
    selections = {id(track.routes[row][0]) for row in firing}
    if len(selections) == 1:
        selection = track.routes[firing[0]][0]
        assert selection is not None
        return selection.values([track.routes[row][1] for row in firing], like)
    parts = []
    for row in firing:
        selection, number = track.routes[row]
        assert selection is not None
        parts.append(selection.values([number], like))
    return torch.cat(parts)


def lora_of(
    track: Track, module: int, on: list[int], like: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns the LoRAs of some rows, one per row."""
    groups: dict[Selection, list[int]] = {}  # usually one selection for all rows
    for row in on:
        selection, _ = track.routes[row]
        assert selection is not None
        groups.setdefault(selection, []).append(row)
    parts = {
        selection: selection.lora(module, [track.routes[row][1] for row in rows], like)
        for selection, rows in groups.items()
    }
    if len(parts) == 1:
        return next(iter(parts.values()))
    order = torch.tensor([row for rows in groups.values() for row in rows]).argsort()
    downs, ups = zip(*parts.values(), strict=True)
    order = order.to(downs[0].device)
    return torch.cat(downs)[order], torch.cat(ups)[order]


def span(where: Positions, query: int, last: int, length: int) -> tuple[int, int]:
    """Returns the columns of a call in which an edit applies: the first, and one past the last.

    Args:
        where: Where the edit applies.
        query: Column of its query, which may lie outside the call.
        last: Column of the prompt's last token, likewise.
        length: Number of columns of the call.
    """
    first, end = 0, length
    if where in ("last", "query"):
        first = min(max(0, query), length)
    if where == "last":
        end = max(0, min(length, query + 1))
    elif where == "prompt":
        end = max(0, min(length, last + 1))
    return first, end
