"""Explaining why an edit fires or does not: the scope decision in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from editkit.engines.base import Keys, Part, Queries, View
from editkit.engines.reading import PromptReader
from editkit.methods.opened import Methods
from editkit.scope.decide import Decision, decide, decide_by_text
from editkit.scope.overrides import Override
from editkit.scope.told import in_words
from editkit_store.records import DEFAULT_METHOD, Candidate, Edit, Explanation, Stance

__all__ = ["explain"]

_MAX_WORDS = 6  # words of each kind that an explanation lists

Words = tuple[list[str], list[str]]
"""Names and other words of a prompt."""


def explain(
    prompt: str,
    ids: Sequence[int],
    view: View,
    methods: Methods,
    edits: Callable[[Sequence[str]], Mapping[str, Edit]],
    *,
    encode: Callable[[str], Sequence[int]],
    reader: PromptReader | None,
    k: int,
) -> Explanation:
    """Returns the decision of a view for a prompt, with the nearest edits.

    Args:
        prompt: The prompt to explain.
        ids: Its token ids.
        view: The view.
        methods: Methods of the running model.
        edits: Returns edits of the view by id.
        encode: Returns the token ids of a prompt.
        reader: Reads prompts, if their text decides.
        k: Number of candidates.
    """
    asked = {method.name: method for method in methods}
    parts = [part for name in asked if (part := view.part(name)) is not None]

    def query(part: Part) -> Queries:
        return asked[part.method].query(ids)

    def keys(part: Part) -> Keys | None:
        return asked[part.method].keys

    override = view.overrides.of(ids, parts) if view.overrides else None
    if reader is None:
        decision = decide(parts, query, keys, k=k, override=override)
    else:
        decision = decide_by_text(reader, ids, view, k=k)
    sites = (methods.get(name) for name in (decision.method, DEFAULT_METHOD) if name is not None)
    site = next((one.site for one in sites if one is not None and one.site is not None), "")
    if decision.reason == "no edits":
        return Explanation(
            prompt=prompt,
            version=view.version,
            site=site,
            summary=f"No edit is active at {view.version}, so the model answers by itself.",
        )
    if not decision.near:
        return Explanation(
            prompt=prompt,
            version=view.version,
            site=site,
            summary="No edit fires: none is about what the prompt asks for.",
        )
    known = edits([one.edit_id for one in decision.near])
    candidates = tuple(
        Candidate(
            edit_id=one.edit_id,
            method=name,
            prompt=known[one.edit_id].prompt,
            target=known[one.edit_id].target,
            distance=one.distance,
            radius=one.radius,
            in_scope=one.in_scope,
            bits=one.bits,
            adjusted=_stance(one.edit_id, override),
        )
        for one, name in zip(decision.near, decision.methods, strict=True)
    )
    hit = next((one for one in candidates if one.edit_id == decision.edit_id), candidates[0])
    because = ""
    if reader is not None:
        return Explanation(
            prompt=prompt,
            version=view.version,
            fired=decision.edit_id,
            site=site,
            summary=in_words(prompt, hit, decision),
            candidates=candidates,
        )
    if decision.reason != "adjusted" and (decision.reason != "doubtful" or hit.bits is None):
        method = methods.get(decision.method or DEFAULT_METHOD)
        words = None if method is None else method.words(ids)
        others = None if words is None or method is None else method.words(encode(hit.prompt))
        because = "" if words is None or others is None else _because(words, others)
    return Explanation(
        prompt=prompt,
        version=view.version,
        fired=decision.edit_id,
        site=site,
        summary=_summary(decision, hit) + because,
        candidates=candidates,
    )


def _stance(edit_id: str, override: Override | None) -> Stance | None:
    if override is None or edit_id not in (override.forced, *override.barred):
        return None
    return "also" if edit_id == override.forced else "not"


def _summary(decision: Decision, hit: Candidate) -> str:
    if decision.reason == "adjusted":
        return (
            f"Edit {hit.edit_id[:12]} ('{hit.prompt}' -> '{hit.target}') fires: it was adjusted to "
            "apply to this prompt too."
        )
    if decision.edit_id is not None:
        return (
            f"Edit {hit.edit_id[:12]} ('{hit.prompt}' -> '{hit.target}') fires: the prompt is "
            f"{hit.distance:.3g} from its key, within its radius {hit.radius:.3g}."
        )
    doubt = decision.near[0].doubt
    if doubt is None:
        doubt = f"is {hit.distance:.3g} away and reaches {hit.radius:.3g}"
    return f"No edit fires: the nearest one, {hit.edit_id[:12]} ('{hit.prompt}'), {doubt}."


def _because(asked: Words, edit: Words) -> str:
    """Describes which words an edit's prompt and the given one share and which they do not."""
    (names, others), (its_names, its_others) = asked, edit
    found = [
        ("Both name", _shared(names, its_names)),
        ("Only the prompt names", _missing(names, its_names)),
        ("Only the edit names", _missing(its_names, names)),
        ("Both say", _shared(others, its_others)),
    ]
    phrases = [f"{what} {', '.join(map(repr, some[:_MAX_WORDS]))}." for what, some in found if some]
    return " " + " ".join(phrases or ["They share no content word."])


def _shared(words: Sequence[str], others: Sequence[str]) -> list[str]:
    known = {word.casefold() for word in others}
    return [word for word in words if word.casefold() in known]


def _missing(words: Sequence[str], others: Sequence[str]) -> list[str]:
    known = {word.casefold() for word in others}
    return [word for word in words if word.casefold() not in known]
