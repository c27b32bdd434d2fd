"""What a scope that reads text says in words: how far an edit reaches, and why it fires or not."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from editkit.errors import PromptTooLong
from editkit.scope.asking import plain
from editkit.scope.decide import Decision, decide_by_text
from editkit.scope.wordings import other_questions, other_wordings
from editkit_store.records import Candidate, Edit, EditReach

if TYPE_CHECKING:
    from editkit.engines.base import TokenEncoder, View
    from editkit.engines.reading import PromptReader

__all__ = ["in_words", "text_reach"]

_SMALL = 4  # letters of words that say little about a subject
_SHOWN = 3  # prompts that are shown
_NEAR = 3  # other edits that are looked at
_DOUBTFUL = 0.2  # probability from which on another edit counts as near


def text_reach(
    reader: PromptReader,
    encoder: TokenEncoder,
    edit: Edit,
    view: View,
    *,
    tries: bool = True,
) -> EditReach:
    """Returns how far an active edit reaches.

    Args:
        reader: Reads prompts.
        encoder: Encodes prompts.
        edit: The edit, with its rephrases and locality probes.
        view: All active edits.
        tries: Try other wordings and other questions too; some ten prompts are read for it.
    """

    def fires(prompt: str) -> bool:
        try:
            ids = encoder.prompt(prompt)
        except PromptTooLong:
            return False
        return decide_by_text(reader, ids, view).edit_id == edit.id

    covered = sum(map(fires, edit.rephrases))
    spared = len(edit.locality) - sum(map(fires, edit.locality))
    near = decide_by_text(reader, encoder.prompt(edit.prompt), view, k=_NEAR + 1).near
    own = next((one for one in near if one.edit_id == edit.id), None)
    others = [one for one in near if one.edit_id != edit.id and 1 - one.distance >= _DOUBTFUL]
    answers: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()
    if tries:
        answers = tuple(itertools.islice(filter(fires, other_wordings(edit.prompt)), _SHOWN))
        unlike = itertools.filterfalse(fires, other_questions(edit.prompt))
        leaves = tuple(itertools.islice(unlike, _SHOWN))
    return EditReach(
        radius=0.0 if own is None else own.radius,
        rephrases=len(edit.rephrases),
        covered=covered,
        probes=len(edit.locality),
        spared=spared,
        nearest_edit=others[0].edit_id if others else None,
        nearest_distance=others[0].distance if others else None,
        answers=answers,
        leaves=leaves,
        near=tuple(one.edit_id for one in others),
        summary=_summary(edit, covered, spared, answers, leaves, len(others)),
    )


def _summary(
    edit: Edit,
    covered: int,
    spared: int,
    answers: Sequence[str],
    leaves: Sequence[str],
    others: int,
) -> str:
    said = []
    if answers:
        said.append(f"Answers also {_quoted(answers)}.")
    if leaves:
        said.append(f"Leaves alone {_quoted(leaves)}.")
    if edit.rephrases:
        said.append(f"{covered} of {len(edit.rephrases)} rephrases fire it.")
    if edit.locality:
        said.append(f"{spared} of {len(edit.locality)} locality probes do not.")
    if others:
        said.append(f"{others} other edit{'s are' if others > 1 else ' is'} near.")
    return " ".join(
        said or ["Answers its prompt and other wordings that ask for exactly the same."]
    )


def _quoted(prompts: Sequence[str]) -> str:
    return ", ".join(f"'{one}'" for one in prompts)


def in_words(prompt: str, hit: Candidate, decision: Decision) -> str:
    """Returns why an edit fires for a prompt, or why none does: plain words first, numbers behind.

    Args:
        prompt: The prompt.
        hit: The edit that fires, or the nearest one.
        decision: The decision.
    """
    name = f"{hit.edit_id[:12]} ('{hit.prompt}' -> '{hit.target}')"
    numbers = f"probability {1 - hit.distance:.2f}, fires from {1 - hit.radius:.2f}"
    if decision.edit_id is not None:
        same = plain(prompt) == plain(hit.prompt)
        why = "the prompt is its own" if same else "the prompt asks for the same in other words"
        return f"Edit {name} fires: {why} ({numbers})."
    doubt = decision.near[0].doubt
    if doubt is None:
        shared = _content(prompt) & _content(hit.prompt)
        doubt = (
            f"also says {', '.join(map(repr, sorted(shared)))}, but the prompt asks for something "
            "else about it"
            if shared
            else "is about something else"
        )
    return f"No edit fires: the nearest one, {name}, {doubt} ({numbers})."


def _content(text: str) -> set[str]:
    return {word for word in plain(text).split() if len(word) >= _SMALL or not word.isalpha()}
