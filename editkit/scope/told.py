"""What a scope that reads text says in words: how far an edit reaches, and why it fires or not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from editkit.errors import PromptTooLong
from editkit.scope.asking import plain
from editkit.scope.decide import Decision, decide_by_text
from editkit_store.records import Candidate, Edit, EditReach

if TYPE_CHECKING:
    from editkit.engines.base import Part, PromptReader, TokenEncoder

__all__ = ["in_words", "text_reach"]

_SMALL = 4  # letters of words that say little about a subject


def text_reach(
    reader: PromptReader, encoder: TokenEncoder, edit: Edit, parts: Sequence[Part]
) -> EditReach:
    """Returns how far an active edit reaches.

    Args:
        reader: Reads prompts.
        encoder: Encodes prompts.
        edit: The edit, with its rephrases and locality probes.
        parts: All active edits.
    """
    covered = sum(_fires(reader, encoder, edit, one, parts) for one in edit.rephrases)
    fired = sum(_fires(reader, encoder, edit, one, parts) for one in edit.locality)
    near = decide_by_text(reader, encoder.prompt(edit.prompt), parts, k=2).near
    own = next((one for one in near if one.edit_id == edit.id), None)
    other = next((one for one in near if one.edit_id != edit.id), None)
    spared = len(edit.locality) - fired
    said = ["It answers its prompt in other words, as far as they ask for exactly the same."]
    if edit.rephrases:
        said.append(f"{covered} of {len(edit.rephrases)} rephrases fire it.")
    if edit.locality:
        said.append(f"{spared} of {len(edit.locality)} locality probes do not.")
    if other is not None:
        said.append(
            f"The nearest other edit, {other.edit_id[:12]}, asks for the same with a probability "
            f"of {1 - other.distance:.2f}."
        )
    return EditReach(
        radius=0.0 if own is None else own.radius,
        rephrases=len(edit.rephrases),
        covered=covered,
        probes=len(edit.locality),
        spared=spared,
        nearest_edit=other.edit_id if other else None,
        nearest_distance=other.distance if other else None,
        summary=" ".join(said),
    )


def _fires(
    reader: PromptReader, encoder: TokenEncoder, edit: Edit, prompt: str, parts: Sequence[Part]
) -> bool:
    try:
        ids = encoder.prompt(prompt)
    except PromptTooLong:
        return False
    return decide_by_text(reader, ids, parts).edit_id == edit.id


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
