"""Scope without an encoder: an edit fires for its own prompt and the rephrasings that came with it.

Capitals, marks, spaces, accents' encoding and slips of the fingers do not count, as the judge does
not count them either; everything else does.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from editkit.scope.asking import Text, plain, question
from editkit.scope.meaning import Verdict, ranked, wordings_of
from editkit.scope.repair import repaired
from editkit_store.records import Adjustments

if TYPE_CHECKING:
    from editkit_store.records import EditRequest

__all__ = ["ExactScope"]

_CANDIDATES = 16  # edits whose words are looked at for slips


class ExactScope:
    """Decides by the letters of prompts; see ``TextScope``. May be used from several threads.

    Args:
        requests: Returns the requests of some edits by id; of None all of the history, oldest
            first.
    """

    def __init__(
        self, requests: Callable[[Sequence[str] | None], Mapping[str, EditRequest]]
    ) -> None:
        self._requests = requests
        self._lock = threading.RLock()
        self.reload()

    def reload(self) -> None:
        """Reads the edits of the history anew, when they are next asked for."""
        with self._lock:
            self._texts: dict[str, tuple[str, ...]] | None = None
            self._by_word: dict[str, list[str]] = {}

    def put(self, edits: Iterable[tuple[str, EditRequest]]) -> None:
        """Takes in edits that may not be recorded yet."""
        with self._lock:
            known = self._filled()
            self._add(known, {edit_id: one for edit_id, one in edits if edit_id not in known})

    def verdicts(
        self,
        text: Text,
        holds: Callable[[str], bool],
        k: int = 1,
        adjusted: Mapping[str, Adjustments] | None = None,
    ) -> list[Verdict]:
        """Returns which edits a prompt asks for by its letters: probabilities are 0 or 1."""
        adjusted = adjusted or {}
        asked = plain(question(text).asking)
        words = asked.split()
        with self._lock:
            known = self._filled()
            shared = Counter(edit for word in set(words) for edit in self._by_word.get(word, ()))
            # A slip leaves most words as they are; a prompt of one word has no others.
            near = [one for one, _ in shared.most_common() if holds(one)][:_CANDIDATES]
            near += [one for one in adjusted if one in known and holds(one)]
            if len(words) <= 1:
                near += [one for one, some in known.items() if _one_word(some) and holds(one)]
            place = {edit_id: at for at, edit_id in enumerate(known)}
        found = []
        for edit_id in dict.fromkeys(near):
            said = adjusted.get(edit_id, Adjustments())
            never = {plain(one) for one in said.exclude}
            texts = [*known[edit_id], *map(plain, said.also)]
            hits = any(
                one and (one == asked or repaired(asked, one.split(), ()) == one) for one in texts
            )
            is_own = known[edit_id][0] == asked
            found.append(
                Verdict(edit_id, float(hits), 1.0, float(asked in never and not is_own), is_own)
            )
        return ranked(found, place)[: max(k, 1)]

    def _filled(self) -> dict[str, tuple[str, ...]]:
        if self._texts is None:
            found: dict[str, tuple[str, ...]] = {}
            self._add(found, self._requests(None))
            self._texts = found
        return self._texts

    def _add(self, known: dict[str, tuple[str, ...]], edits: Mapping[str, EditRequest]) -> None:
        for edit_id, edit in edits.items():
            known[edit_id] = tuple(plain(question(one).asking) for one in wordings_of(edit))
            for word in {word for one in known[edit_id] for word in one.split()}:
                self._by_word.setdefault(word, []).append(edit_id)


def _one_word(texts: tuple[str, ...]) -> bool:
    return any(len(text.split()) <= 1 for text in texts)
