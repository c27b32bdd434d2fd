"""What reads the prompts of a running model, and says which edits they ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import torch

    from editkit_store.records import Adjustments, EditRequest

__all__ = ["Near", "PromptReader"]


class PromptReader(Protocol):
    """Says from what a prompt reads which edits it asks for; see ``editkit.scope.reader``."""

    def near(
        self,
        ids: Sequence[int],
        holds: Callable[[str], bool],
        k: int = 1,
        adjusted: Mapping[str, Adjustments] | None = None,
    ) -> list[Near]:
        """Returns at most ``k`` edits that a prompt may ask for, first one that fires if one does.

        Args:
            ids: The prompt's tokens.
            holds: Returns whether an edit is among those to choose from.
            k: See above.
            adjusted: Prompts that edits were said to apply to or to leave alone, by edit.
        """

    def ids(self, embeddings: torch.Tensor) -> list[int]:
        """Returns the token ids of embeddings ``(n, d)``."""

    def put(self, edits: Iterable[tuple[str, EditRequest]]) -> None:
        """Takes in edits that may not be recorded yet."""

    def reload(self) -> None:
        """Reads the edits of the history anew."""


class Near(NamedTuple):
    """An edit near a query.

    Attributes:
        edit_id: The edit.
        distance: Distance to the query, L2 or bits.
        radius: Radius of the edit's scope, in the same unit.
        in_scope: Whether it would fire if no other part's edit were preferred.
        bits: Hamming distance between its code and the query's, if it has a code.
        doubt: Why it does not fire although it is within reach, as a clause of a sentence.
    """

    edit_id: str
    distance: float
    radius: float
    in_scope: bool
    bits: int | None = None
    doubt: str | None = None
