"""What an engine applies to a running model, and what is asked of it.

A *view* is what the edits of one version do, as *parts*: one for each method. A part says which of
its edits fire for a row, and what is then put in place: a vector that replaces a module's output,
or a LoRA that is added to it. Where in the model that goes a method's *patch* says; the engine
applies it to the rows and positions in question, and knows no method.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "Keys",
    "Near",
    "Part",
    "Patch",
    "Position",
    "Positions",
    "Queries",
    "Selection",
    "View",
]

Queries = torch.Tensor | npt.NDArray[np.float32]
"""What edits are looked up by: states on the model's device, or keys of prompts on the host."""

Position = Literal["first", "last"]
"""Token of a prompt whose state is its query."""

Positions = Literal["last", "prompt", "all", "query"]
"""Where a fired edit applies: at the query alone (``last``), at all of the prompt (``prompt``), at
the prompt and all that follows (``all``), or at the query and all that follows (``query``)."""


class Keys(Protocol):
    """What gives the keys of prompts from their tokens."""

    def key(self, ids: Sequence[int]) -> npt.NDArray[np.float32]:
        """Returns the key of a prompt, ``(d,)``."""

    def ids(self, embeddings: torch.Tensor) -> list[int]:
        """Returns the tokens that embeddings ``(n, d)`` are of."""


class Near(NamedTuple):
    """How an edit stands to a query.

    Attributes:
        edit_id: The edit.
        distance: To it, L2 or bits.
        radius: How far it reaches, in the same unit.
        in_scope: Whether it would fire, if no other part's edit were preferred.
        bits: Between its code and the query's, where it has one.
        doubt: Why it does not fire though it is within reach, as a clause of a sentence.
    """

    edit_id: str
    distance: float
    radius: float
    in_scope: bool
    bits: int | None = None
    doubt: str | None = None


class Selection:
    """Which edits of a part fire for some rows, decided once; a part's own class has the rest.

    Args:
        fired: For each row the number of the edit within its part, -1 for none.

    Attributes:
        fired: See above.
    """

    def __init__(self, fired: Sequence[int]) -> None:
        self.fired = fired

    def distance(self, row: int) -> float:
        """Returns the L2 distance from a row's query to the edit that fires for it.

        By it edits of several parts that are asked by the same keys are compared; infinite of a
        part whose edits cannot be.
        """
        return float("inf")

    def positions(self, row: int) -> Positions:
        """Returns where the edit that fires for a row applies."""
        raise NotImplementedError

    def values(self, rows: Sequence[int], like: torch.Tensor) -> torch.Tensor:
        """Returns what replaces the output in some rows, ``(rows, m)``: of a ``replace`` patch.

        Args:
            rows: The rows.
            like: Dtype and device.
        """
        raise NotImplementedError

    def lora(
        self, module: int, rows: Sequence[int], like: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns what is added in some rows, as one LoRA a row: of an ``add`` patch.

        Args:
            module: Which of the patch's modules.
            rows: The rows.
            like: Device.

        Returns:
            ``(rows, r, in)`` and ``(rows, out, r)``.
        """
        raise NotImplementedError


class Part(Protocol):
    """What one method's edits at one version do. Immutable."""

    @property
    def method(self) -> str:
        """Name of the method."""

    @property
    def is_comparable(self) -> bool:
        """Whether its scopes tell its edits apart, so that a new edit can lie in an older's."""

    def __len__(self) -> int:
        """Number of edits that could fire."""

    def select(self, queries: Queries) -> Selection:
        """Decides which edits fire for queries ``(rows, d)``."""

    def near(self, query: Queries, k: int) -> list[Near]:
        """Returns the ``k`` edits nearest to a query ``(d,)``, and the one that fires."""

    def edit_id(self, number: int) -> str:
        """Returns the id of an edit."""

    def without(self, edit_ids: Collection[str]) -> Part:
        """Returns the same part without some edits."""


@dataclass(frozen=True)
class View:
    """What a running model applies: the edits of one version.

    Attributes:
        version: Name of the version.
        parts: In the order in which they are asked; see ``editkit.scope.decide``.
    """

    version: str
    parts: tuple[Part, ...] = ()

    def __len__(self) -> int:
        """Number of edits that could fire."""
        return sum(map(len, self.parts))

    def part(self, method: str) -> Part | None:
        """Returns what a method's edits do, if it has any."""
        return next((part for part in self.parts if part.method == method), None)

    def replacing(self, method: str, part: Part | None, version: str | None = None) -> View:
        """Returns a view with another part of one method, at the same or another version."""
        known = {one.method: one for one in self.parts}
        if part is not None:
            known[method] = part
        else:
            known.pop(method, None)
        return View(self.version if version is None else version, tuple(known.values()))

    def without(self, edit_ids: Collection[str]) -> View:
        """Returns a view without some edits."""
        return View(self.version, tuple(part.without(edit_ids) for part in self.parts))


@dataclass(frozen=True)
class Patch:
    """Where a method's edits go in a model, and what they are asked by.

    Attributes:
        mode: Replace the output of a module, or add to the outputs of some.
        modules: The module, or the linear maps.
        keys: What gives the keys of prompts; None where the query is a state.
        entry: With ``add``, the block that holds the first of the modules: what enters it is the
            query, where that is a state. With ``replace`` it is what enters the module.
        position: Token whose state is the query; by default the model's own.
    """

    mode: Literal["replace", "add"]
    modules: tuple[nn.Module, ...]
    keys: Keys | None = None
    entry: nn.Module | None = None
    position: Position | None = None
