"""The state of one method in a run, and what its decisions give for the rows of a call."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from editkit.engines.base import Keys, Part, Patch, Position, Positions, Queries, Selection
from editkit.scope.decide import Proposal, winner

__all__ = [
    "DEFERRED",
    "UNDECIDED",
    "Route",
    "Track",
    "arbitrate",
    "loras",
    "select",
    "span",
    "values",
]

Route = tuple[Selection | None, int]
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


def select(track: Track, rows: list[int], queries: Queries, fold: int) -> list[Route]:
    """Returns the selections of a track's parts for rows with these queries."""
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


def values(track: Track, firing: list[int], like: torch.Tensor) -> torch.Tensor:
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


def loras(
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
