"""Reading prompts of a running model: from tokens to text, and to the edits that it asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from editkit.engines.reading import Near
from editkit.scope.meaning import TextScope, Verdict

if TYPE_CHECKING:
    import torch

    from editkit.scope.asking import Text
    from editkit.scope.words import Words
    from editkit_store.records import Adjustments, EditRequest

__all__ = ["ScopeReader"]


class ScopeReader:
    """Reads prompts of one running model for a scope.

    Args:
        scope: Says which edits a text asks for.
        words: Splits the model's prompts into turns.
        ids: Returns the token ids of embeddings ``(n, d)``.
    """

    def __init__(
        self, scope: TextScope, words: Words, ids: Callable[[torch.Tensor], list[int]]
    ) -> None:
        self._scope = scope
        self._words = words
        self._ids = ids

    def near(
        self,
        ids: Sequence[int],
        holds: Callable[[str], bool],
        k: int = 1,
        adjusted: Mapping[str, Adjustments] | None = None,
    ) -> list[Near]:
        """Returns the edits that a prompt may ask for; see ``PromptReader``.

        Distances are probabilities that it asks for something else, radii those up to which an edit
        fires.
        """
        return [_near(one) for one in self._scope.verdicts(self.text(ids), holds, k, adjusted)]

    def text(self, ids: Sequence[int]) -> Text:
        """Returns a prompt as text: its turns, the asking one last."""
        turns = self._words.turns(ids)
        return turns[0] if len(turns) == 1 else tuple(turns)

    def ids(self, embeddings: torch.Tensor) -> list[int]:
        """Returns the token ids of embeddings ``(n, d)``."""
        return self._ids(embeddings)

    def put(self, edits: Iterable[tuple[str, EditRequest]]) -> None:
        """Takes in edits that may not be recorded yet."""
        self._scope.put(edits)

    def reload(self) -> None:
        """Reads the edits of the history anew."""
        self._scope.reload()


def _near(verdict: Verdict) -> Near:
    doubt = None
    if verdict.probability >= verdict.threshold and not verdict.is_in_scope:
        doubt = "would answer it, but the prompt is nearer to one that it must leave alone"
    return Near(
        verdict.edit_id,
        1 - verdict.probability,
        1 - verdict.threshold,
        verdict.is_in_scope,
        doubt=doubt,
    )
