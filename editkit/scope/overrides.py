"""Overrides: the prompts that people said an edit applies to, or does not apply to.

An override holds for one wording: a prompt that equals it up to capitals, spaces and punctuation.
It decides before any key does. This module is all that knows of overrides; a scope that compares
prompts with what people said replaces it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from editkit.scope.words import Words
from editkit_store.digest import digest_json
from editkit_store.history.adjustments import stances
from editkit_store.history.wording import wording
from editkit_store.records import Adjustments, Message

if TYPE_CHECKING:
    from editkit.engines.base import Part, Queries, Selection
    from editkit_store.history import History

__all__ = ["Override", "Overrides", "asked_text", "claimed", "overridden"]


class Override(NamedTuple):
    """What was said about one prompt.

    Attributes:
        forced: The edit that fires, if there is one.
        barred: Edits that must not fire.
    """

    forced: str | None
    barred: frozenset[str]


class Overrides:
    """The overrides of one version. Immutable.

    Args:
        adjustments: What was said about the reach of active edits; of two edits that a prompt was
            added to, the later one fires.
        said: Returns the text that a prompt asks, given its tokens.
        claimed: Prompts that are an active edit's own; no other edit is forced there.

    Attributes:
        adjustments: See above.
    """

    def __init__(
        self,
        adjustments: Mapping[str, Adjustments],
        said: Callable[[Sequence[int]], str],
        *,
        claimed: Collection[str] = (),
    ) -> None:
        self.adjustments = dict(adjustments)
        self._said = said
        self._claimed = frozenset(claimed)
        self._forced: dict[str, str] = {}
        self._barred: dict[str, set[str]] = {}
        for edit_id, one in self.adjustments.items():
            for key, (stance, prompt) in stances(one).items():
                if stance == "not":
                    self._barred.setdefault(key, set()).add(edit_id)
                elif prompt not in self._claimed:
                    self._forced[key] = edit_id

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._forced or self._barred)

    def says_the_same(self, other: Overrides | None) -> bool:
        """Returns whether other overrides, or none, decide alike."""
        if other is None:
            return not self
        return self._forced == other._forced and self._barred == other._barred

    def at(self, text: str) -> Override:
        """Returns what was said about a text."""
        key = wording(text)
        return Override(self._forced.get(key), frozenset(self._barred.get(key, ())))

    def of(self, ids: Sequence[int], parts: Sequence[Part]) -> Override | None:
        """Returns what was said about a prompt, None for nothing.

        Args:
            ids: Its tokens.
            parts: The edits; an edit that none of them can apply is not forced.
        """
        forced, barred = self.at(self._said(ids))
        if forced is not None and all(part.own_query(forced) is None for part in parts):
            forced = None
        return Override(forced, barred) if forced is not None or barred else None

    def claimed_by(self, prompt: str) -> Overrides:
        """Returns the overrides with a prompt that has become an edit's own."""
        if wording(prompt) not in self._forced:
            return self
        return Overrides(self.adjustments, self._said, claimed={*self._claimed, prompt})

    def with_adjusted(self, edit_id: str, adjustments: Adjustments) -> Overrides:
        """Returns the overrides with other adjustments of one edit, which count as the latest."""
        others = {one: said for one, said in self.adjustments.items() if one != edit_id}
        return Overrides({**others, edit_id: adjustments}, self._said, claimed=self._claimed)


def overridden(part: Part, query: Queries, override: Override) -> Selection | None:
    """Returns the decision of a part about one prompt with an override; None if nothing can fire.

    A forced edit is looked up by its own prompt, so that it does what it does there.

    Args:
        part: The part.
        query: ``(d,)``, the query of the prompt.
        override: What was said about it.
    """
    if override.forced is not None:
        own = part.own_query(override.forced)
        if own is None:  # of another part
            return None
        query = own
    left = part.without(override.barred) if override.barred else part
    return left.select(query[None]) if len(left) else None


def claimed(history: History, prompts: Collection[str], version: int) -> dict[str, str]:
    """Returns which prompts are those of edits that are active at a version, plain or as a chat.

    Args:
        history: The history.
        prompts: The prompts.
        version: The version.

    Returns:
        The edits, by their prompts.
    """
    digests = {digest: prompt for prompt in prompts for digest in _digests(prompt)}
    peers = history.peers(list(digests)) if digests else {}
    owners = {edit_id: digests[digest] for digest, ids in peers.items() for edit_id in ids}
    active = history.active_among(list(owners), version)
    return {owners[edit_id]: edit_id for edit_id in active}


def _digests(prompt: str) -> tuple[str, ...]:
    chat = [Message(role="user", content=prompt).model_dump(mode="json")]
    return digest_json(prompt), digest_json(chat)


def asked_text(tokenizer: Any) -> Callable[[Sequence[int]], str]:
    """Returns a function that returns what a prompt asks: in a chat, the user's last turn.

    Args:
        tokenizer: A Hugging Face tokenizer.
    """
    words = Words(tokenizer)

    def said(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(words.asked(ids)), skip_special_tokens=True))

    return said
