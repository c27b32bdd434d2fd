"""Comparing one model's answers at two versions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from editkit.engines.base import Engine, Generated, TokenEncoder, View
from editkit.models.progress import Progress, SilentProgress
from editkit_store.errors import EditkitError, InvalidRequest
from editkit_store.records import AdjustmentChange, Edit, Message
from editkit_store.records.comparisons import BehaviorChange, Diff, QuestionKind, Unasked

__all__ = ["with_answers"]

_SLACK = 4
"""Extra tokens that an answer may have beyond its target, as in verification."""

_ROWS = 16
"""Questions per batch."""


@dataclass(frozen=True)
class _Question:
    """One prompt to ask at both versions.

    Attributes:
        ids: The prompt as tokens.
        prompt: The prompt as text.
        kind: Its source.
        limit: Maximum number of tokens of the answer.
        edit: The edit that it comes from, None for a probe.
    """

    ids: tuple[int, ...]
    prompt: str
    kind: QuestionKind
    limit: int
    edit: Edit | None = None


def with_answers(
    found: Diff,
    *,
    views: tuple[View, View],
    engine: Engine,
    adjusted: Mapping[str, Edit],
    probes: Sequence[str] = (),
    max_new_tokens: int,
    progress: Progress | None = None,
) -> Diff:
    """Adds the model's answers at both versions to a comparison; see ``Kit.diff``.

    Args:
        found: The comparison.
        views: The model's views of the two versions.
        engine: The running model.
        adjusted: The edits whose reach the comparison says was adjusted, by id.
        probes: Prompts to ask in addition to those of the edits.
        max_new_tokens: Limit of answers that have no target, tokens.
        progress: Reports every answer.

    Raises:
        InvalidRequest, PromptTooLong: A probe is empty or too long, or the limit is below 1.
    """
    if max_new_tokens < 1:
        raise InvalidRequest("max_new_tokens must be at least 1", field="max_new_tokens")
    unasked: list[Unasked] = []
    questions: dict[tuple[QuestionKind, tuple[int, ...]], _Question] = {}
    # An invalid probe is the caller's mistake; it raises before anything is computed.
    probed = [
        _Question(engine.encoder.prompt(text), text, "probe", max_new_tokens) for text in probes
    ]
    said = [(edit, list(_prompts(edit))) for edit in (*found.added, *found.removed)]
    said += [(adjusted[one.edit_id], [_adjusted(one)]) for one in found.adjusted]
    asked = _edit_questions(said, engine.encoder, max_new_tokens, unasked)
    for question in (*asked, *probed):
        known = questions.setdefault((question.kind, question.ids), question)
        if question.limit > known.limit:  # same prompt with a longer target
            questions[question.kind, question.ids] = replace(known, limit=question.limit)
    answers = _answers(list(questions.values()), views, engine, progress or SilentProgress())
    return found.model_copy(update={"behavior": tuple(answers), "unasked": tuple(unasked)})


def _edit_questions(
    asked: Sequence[tuple[Edit, Sequence[tuple[QuestionKind, str]]]],
    encoder: TokenEncoder,
    max_new_tokens: int,
    unasked: list[Unasked],
) -> Iterator[_Question]:
    """Yields the questions of edits; collects those that cannot be asked in ``unasked``.

    A history may hold edits that this model cannot even encode; they must not prevent a comparison.
    """
    for edit, prompts in asked:
        try:
            length = len(encoder.request(edit).target) + _SLACK
        except EditkitError:  # the target cannot be encoded, but its prompt may be
            length = max_new_tokens
        for kind, prompt in prompts:
            try:
                ids = _ids(edit, kind, prompt, encoder)
            except EditkitError as error:
                unasked.append(
                    Unasked(prompt=prompt, kind=kind, edit_id=edit.id, reason=str(error))
                )
            else:
                limit = max_new_tokens if kind == "locality" else length
                yield _Question(ids, prompt, kind, limit, edit)


def _prompts(edit: Edit) -> Iterator[tuple[QuestionKind, str]]:
    yield "edit", edit.prompt
    for text in edit.rephrases:
        yield "rephrase", text
    for text in edit.locality:
        yield "locality", text


def _adjusted(change: AdjustmentChange) -> tuple[QuestionKind, str]:
    """Returns the question about an adjusted prompt, as if the request had named it."""
    return "rephrase" if (change.after or change.before) == "also" else "locality", change.prompt


def _ids(edit: Edit, kind: QuestionKind, prompt: str, encoder: TokenEncoder) -> tuple[int, ...]:
    if edit.chat is None:
        return encoder.prompt(prompt)
    # A rephrase replaces the corrected turn within its conversation.
    last = edit.chat[-1:] if kind == "edit" else (Message(role="user", content=prompt),)
    return encoder.chat([*edit.chat[:-1], *last])


def _answers(
    questions: Sequence[_Question],
    views: tuple[View, View],
    engine: Engine,
    bar: Progress,
) -> list[BehaviorChange]:
    """Returns the answers to every question, in order.

    Both versions run the same batches: a row in which nothing fires then has the same logits, and
    an answer differs only because of the edits.
    """
    if not questions:
        return []
    distinct = views[:1] if views[0].does_the_same(views[1]) else views
    answered: dict[int, tuple[Generated, Generated]] = {}
    bar.start("Asking at both versions", len(questions), "prompts")
    try:
        for indices in _batches(questions):
            prompts = [questions[index].ids for index in indices]
            limit = questions[indices[0]].limit
            found = [engine.generate(prompts, views=[v], max_new_tokens=limit) for v in distinct]
            answered.update(zip(indices, zip(found[0], found[-1], strict=True), strict=True))
            bar.advance(len(indices))
    finally:
        bar.done()
    return [_side_by_side(question, *answered[index]) for index, question in enumerate(questions)]


def _batches(questions: Sequence[_Question]) -> Iterator[list[int]]:
    """Yields batches of question indices, of equal limit and similar length."""
    order = sorted(
        range(len(questions)), key=lambda index: (questions[index].limit, len(questions[index].ids))
    )
    for _, group in itertools.groupby(order, lambda index: questions[index].limit):
        indices = list(group)
        for at in range(0, len(indices), _ROWS):
            yield indices[at : at + _ROWS]


def _side_by_side(question: _Question, before: Generated, after: Generated) -> BehaviorChange:
    edit = question.edit
    return BehaviorChange(
        prompt=question.prompt,
        kind=question.kind,
        edit_id=None if edit is None else edit.id,
        target=None if edit is None or question.kind == "locality" else edit.target,
        before=before.text,
        after=after.text,
        changed=before.text != after.text,
        fired_before=() if before.fired is None else (before.fired,),
        fired_after=() if after.fired is None else (after.fired,),
    )
