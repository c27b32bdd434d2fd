"""Scope by meaning: an edit fires where a prompt asks for exactly what the edit's prompt asks for.

Two stages, both on text. *Recall* proposes a few edits by a cheap key (``editkit.scope.recall``);
the *judge* (``editkit.scope.judge``) says of each how likely the prompt asks for the same, and an
edit fires from a threshold on, which its scope chooses. The rephrasings that came with an edit are
compared as well as its prompt, and the nearest counts; a prompt that is nearer to one that the edit
must leave alone does not fire it.

Nothing here depends on the model that is edited, on the method or on what was learned: the same
decisions for all, and an existing history takes it up without learning anything anew.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from editkit.config import ScopeName
from editkit.scope.asking import Text
from editkit.scope.encoder import Reading
from editkit.scope.index import KeyTable
from editkit.scope.judge import Judge, Judged

if TYPE_CHECKING:
    from editkit_store.records import Adjustments, EditRequest

    Requests = Mapping[str, EditRequest]

__all__ = ["MeaningScope", "TextScope", "Verdict", "ranked", "wordings_of"]

_CANDIDATES = 16  # edits that the judge is asked about
_RADIUS = 1.15  # L2 between keys of recall, from which on a prompt asks for something else
_KEPT = 1 << 14  # texts whose states are kept: a few kilobytes each


class Verdict(NamedTuple):
    """What is said of a prompt and an edit.

    Attributes:
        edit_id: The edit.
        probability: That the prompt asks for what the edit's prompt, or a rephrasing, asks for.
        threshold: From which on the edit fires.
        excluded: Probability that it asks for what the edit must leave alone.
        is_own: The prompt reads like the edit's own.
    """

    edit_id: str
    probability: float
    threshold: float
    excluded: float = 0.0
    is_own: bool = False

    @property
    def is_in_scope(self) -> bool:
        """Whether the edit fires for the prompt, if no other one is more likely."""
        return self.probability >= self.threshold and self.probability > self.excluded


class TextScope(Protocol):
    """Says from the text of a prompt alone which edits it asks for."""

    def verdicts(
        self,
        text: Text,
        holds: Callable[[str], bool],
        k: int = 1,
        adjusted: Mapping[str, Adjustments] | None = None,
    ) -> list[Verdict]:
        """Returns what is said of a prompt and the edits that it may ask for.

        Args:
            text: The prompt, or the turns of a conversation with the asking one last.
            holds: Returns whether an edit is among those to choose from.
            k: Number of edits to return; fewer if no others could be meant.
            adjusted: Prompts that edits were said to apply to or to leave alone, by edit. They
                count as those that came with the edit do.

        Returns:
            Those that are in scope first, then by falling probability; newer ones first at a tie.
        """

    def put(self, edits: Iterable[tuple[str, EditRequest]]) -> None:
        """Takes in edits that may not be recorded yet."""

    def reload(self) -> None:
        """Reads the edits of the history anew."""


class _Wordings(NamedTuple):
    """An edit as the judge sees it: texts that fire it, texts that must not, and its threshold."""

    also: tuple[Reading, ...]
    never: tuple[Reading, ...]
    threshold: float

    def adjusted(self, judge: Judge, said: Adjustments | None) -> _Wordings:
        """Returns the same with what was said about the edit's reach."""
        if said is None:
            return self
        also = tuple(judge.read(one) for one in said.also)
        never = tuple(judge.read(one) for one in said.exclude)
        # A later word about a prompt outweighs what came with the edit.
        kept = [one for one in self.also[1:] if one not in never]
        left = [one for one in self.never if one not in also]
        return _Wordings((self.also[0], *kept, *also), (*left, *never), self.threshold)


class MeaningScope:
    """Decides by recall and judge. May be used from several threads.

    Args:
        judge: The judge.
        requests: Returns the requests of some edits by id; of None all of the history, oldest
            first.
        scope: How far an edit reaches that does not say so itself.
    """

    def __init__(
        self,
        judge: Judge,
        requests: Callable[[Sequence[str] | None], Requests],
        scope: ScopeName,
    ) -> None:
        self._judge = judge
        self._requests = requests
        self._scope = scope
        self._lock = threading.RLock()
        self._judged: OrderedDict[Reading, Judged] = OrderedDict()
        self.reload()

    def reload(self) -> None:
        """Reads the edits of the history anew, when they are next asked for."""
        with self._lock:
            self._table: KeyTable | None = None
            self._owners: list[str] = []
            self._radii = np.empty(0, np.float32)
            self._places: dict[str, int] = {}  # of edits in their order, oldest first
            self._said: set[tuple[str, str]] = set()  # adjustments that recall knows
            self._wordings: dict[str, _Wordings] = {}
            self._new: dict[str, EditRequest] = {}  # not in the history when they were put

    def put(self, edits: Iterable[tuple[str, EditRequest]]) -> None:
        """Takes in edits that may not be recorded yet."""
        with self._lock:
            table = self._filled()
            new = {edit_id: one for edit_id, one in edits if edit_id not in self._places}
            self._add(table, new)
            self._new.update(new)

    def verdicts(
        self,
        text: Text,
        holds: Callable[[str], bool],
        k: int = 1,
        adjusted: Mapping[str, Adjustments] | None = None,
    ) -> list[Verdict]:
        """Returns what the judge says of a prompt; see ``TextScope``."""
        adjusted = adjusted or {}
        with self._lock:
            self._take(adjusted)
            near = self._proposed(text, holds)
            wordings = [
                self._known(edit_id).adjusted(self._judge, adjusted.get(edit_id))
                for edit_id in near
            ]
        if not near:
            return []
        judge = self._judge
        texts = [one for edit in wordings for one in (*edit.also, *edit.never)]
        reading = judge.read(text, near=texts)
        if any(one.asks_the_same(reading) for edit in wordings for one in edit.also):
            # Nothing has to be encoded to know which edit has this very prompt.
            scores = iter([float(one.asks_the_same(reading)) for one in texts])
        else:
            scores = iter(self._scores(judge, reading, texts))
        found = []
        for edit_id, edit in zip(near, wordings, strict=True):
            also = [next(scores) for _ in edit.also]
            never = [next(scores) for _ in edit.never]
            # What came with the edit, or was said of it later, outweighs a likeness.
            excluded = max(never, default=0.0)
            is_own = edit.also[0].asks_the_same(reading)
            found.append(Verdict(edit_id, max(also), edit.threshold, excluded, is_own))
        return ranked(found, self._places)[: max(k, 1)]

    # Recall -----------------------------------------------------------------------------------

    def _filled(self) -> KeyTable:
        """Returns the keys of all edits, computed if they are not here yet."""
        if self._table is None:
            table = KeyTable(self._judge.recall.width)
            self._add(table, self._requests(None))
            self._table = table
        return self._table

    def _add(self, table: KeyTable, edits: Requests) -> None:
        texts = [wordings_of(edit) for edit in edits.values()]
        keys = self._judge.keys([one for some in texts for one in some])
        if not len(keys):
            return
        table.add(keys)
        for edit_id, some in zip(edits, texts, strict=True):
            self._places[edit_id] = len(self._places)
            self._owners += [edit_id] * len(some)

    def _take(self, adjusted: Mapping[str, Adjustments]) -> None:
        """Takes in prompts that edits were said to apply to, which may be far from their own."""
        said = {(edit_id, text) for edit_id, one in adjusted.items() for text in one.also}
        for edit_id, text in sorted(said - self._said):
            self._filled().add(self._judge.keys([text]))
            self._owners.append(edit_id)
            self._said.add((edit_id, text))

    def _proposed(self, text: Text, holds: Callable[[str], bool]) -> list[str]:
        """Returns the edits whose wordings lie nearest to a prompt, nearest first."""
        table = self._filled()
        if not len(table):
            return []
        key = self._judge.key(text)
        if not key.any():
            return []
        if len(self._radii) != len(table):
            self._radii = np.full(len(table), _RADIUS, np.float32)
        wanted = 2 * _CANDIDATES
        while True:
            rows, _ = table.around(key, wanted, self._radii, _RADIUS)
            near = dict.fromkeys(self._owners[row] for row in rows.tolist())
            found = [one for one in near if holds(one)][:_CANDIDATES]
            # Edits that are not active take places, so more are asked for until enough are left.
            if len(found) == _CANDIDATES or len(rows) < wanted:
                return found
            wanted *= 4

    # Judge ------------------------------------------------------------------------------------

    def _known(self, edit_id: str) -> _Wordings:
        found = self._wordings.get(edit_id)
        if found is None:
            edit = self._new.get(edit_id) or self._requests([edit_id])[edit_id]
            judge = self._judge
            found = _Wordings(
                tuple(judge.read(one) for one in wordings_of(edit)),
                tuple(judge.read(one) for one in edit.locality),
                judge.thresholds[edit.scope or self._scope],
            )
            self._wordings[edit_id] = found
            while len(self._wordings) > _KEPT:
                del self._wordings[next(iter(self._wordings))]
        return found

    def _scores(self, judge: Judge, prompt: Reading, texts: Sequence[Reading]) -> list[float]:
        """Returns the probabilities that a prompt asks for what texts ask for."""
        if prompt.is_empty:
            return [0.0] * len(texts)
        encoded = list(self._encoded(judge, [prompt, *texts]))
        return [float(one) for one in judge.score(encoded[0], encoded[1:])]

    def _encoded(self, judge: Judge, readings: Sequence[Reading]) -> Iterator[Judged]:
        for reading in readings:
            with self._lock:
                found = self._judged.get(reading)
                if found is not None:
                    self._judged.move_to_end(reading)
            if found is None:
                found = judge.judged(reading)
                with self._lock:
                    self._judged[reading] = found
                    while len(self._judged) > _KEPT:
                        self._judged.popitem(last=False)
            yield found


def ranked(found: Sequence[Verdict], places: Mapping[str, int]) -> list[Verdict]:
    """Returns verdicts in their order: what is in scope, what is likely, an own prompt, the newest.

    Args:
        found: The verdicts.
        places: Places of edits in the history, oldest first.
    """
    return sorted(
        found,
        key=lambda one: (
            not one.is_in_scope, -one.probability, not one.is_own, -places[one.edit_id]
        ),
    )  # fmt: skip


def wordings_of(edit: EditRequest) -> list[Text]:
    """Returns the texts that ask for what an edit's prompt asks for, its prompt first."""
    before = tuple(message.content for message in edit.chat or () if message.role != "system")[:-1]
    return [(*before, one) if before else one for one in (edit.prompt, *edit.rephrases)]
