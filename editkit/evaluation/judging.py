"""Judging a model after a number of edits: edits, rephrases, probes, and retention."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from editkit.editing.files import BlockPrompt
from editkit.evaluation.blocks import score_blocks
from editkit.evaluation.cases import Case, Probe
from editkit.evaluation.contestants import SLACK, Answer, Contestant, Question
from editkit.evaluation.records import Asked, CaseResult, Mean, Point, Retention, Share
from editkit.scope.general import TEXT
from editkit_store.records import Record, Score

__all__ = ["Base", "Judge", "general_pairs"]

_PROBED = 16
"""Maximum tokens of an answer to a probe."""

_ROWS = 16
"""Questions per batch."""


class Base(Record):
    """The unedited model's answers, and its likelihoods of ordinary text."""

    answers: dict[str, str]
    general: tuple[Score, ...] = ()


@dataclass(frozen=True)
class _Ask:
    case: int
    asked: Asked
    question: Question
    wanted: str
    limit: int
    kind: str | None = None
    language: str | None = None


def general_pairs(text: str = TEXT) -> list[tuple[str, str]]:
    """Splits passages of text into prompts and continuations, between words near the middle.

    Args:
        text: One passage per line.
    """
    pairs = []
    for line in filter(None, map(str.strip, text.splitlines())):
        words = line.split()
        if len(words) > 1:
            half = len(words) // 2
            pairs.append((" ".join(words[:half]), " ".join(words[half:])))
    return pairs


class Judge:
    """Judges methods on one stream of cases.

    Args:
        cases: The stream.
        skipped: Cases that a later case of the stream contradicts.
        general: Prompts and continuations of ordinary text; none for a classifier.
        base: Answers and scores of the unedited model.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        skipped: set[int],
        general: Sequence[tuple[str, str]],
        base: Base,
    ) -> None:
        self._cases = cases
        self._skipped = skipped
        self._general = general
        self._base = base
        self._asked_of = [
            {_plain(one) for one in (Question.of(case.request), *map(_question, case.same))}
            for case in cases
        ]

    @staticmethod
    def base(
        contestant: Contestant,
        cases: Sequence[Case],
        general: Sequence[tuple[str, str]],
        advance: Callable[[int], None],
    ) -> Base:
        """Returns a model's answers and scores before the first edit."""
        probes = list(
            dict.fromkeys(p.prompt for case in cases for p in (*case.probes, *case.neighbours))
        )
        answers: dict[str, str] = {}
        for start in range(0, len(probes), _ROWS):
            part = [Question(prompt) for prompt in probes[start : start + _ROWS]]
            for question, answer in zip(part, contestant.answers(part, _PROBED), strict=True):
                answers[question.prompt] = answer.text
            advance(len(part))
        return Base(answers=answers, general=tuple(_scores(contestant, general)))

    def asks(self, chosen: Sequence[int]) -> int:
        """Returns the number of prompts needed to judge these cases."""
        return sum(1 for _ in self._questions(chosen, lambda text: 0))

    def point(
        self,
        contestant: Contestant,
        chosen: Sequence[int],
        *,
        success: Sequence[bool],
        seconds: float,
        advance: Callable[[int], None],
    ) -> tuple[Point, list[CaseResult]]:
        """Returns the scores of a method, and the result of each prompt.

        Args:
            contestant: The method, after ``len(success)`` edits.
            chosen: Cases to judge, of those that were edited.
            success: For each edit whether it gave its target right after it was made.
            seconds: Time that the edits took.
            advance: Called with the number of prompts judged.
        """
        done = len(success)
        cases = list(self._judged(contestant, chosen, done, advance))
        of = {kind: [c for c in cases if c.asked == kind] for kind in _KINDS}
        spared = of["probe"] + of["neighbour"]
        point = Point(
            method=contestant.name,
            edits=done,
            judged=len(chosen),
            edit_success=Share.of(success),
            reliability=_free(of["edit"]),
            reliability_forced=_forced(of["edit"]),
            generalization=_free(of["rephrase"]),
            generalization_forced=_forced(of["rephrase"]),
            locality=_free(of["probe"]),
            locality_forced=_forced(of["probe"]),
            neighbours=_free(of["neighbour"]),
            neighbours_forced=_forced(of["neighbour"]),
            false_fires=Share.of(c.fired is not None for c in spared) if contestant.fires else None,
            retention=self._retention(contestant, chosen, of["probe"]),
            **score_blocks(
                of["same"] + of["other"],
                [case.request.target.strip() for case in self._cases],
                fires=contestant.fires,
            ),
            keys=contestant.keys,
            keys_per_edit=None if contestant.keys is None else contestant.keys / done,
            seconds_per_edit=seconds / done,
        )
        return point, cases

    def _questions(self, chosen: Sequence[int], length: Callable[[str], int]) -> Iterator[_Ask]:
        for index in chosen:
            case = self._cases[index]
            target = case.request.target.strip()
            if index not in self._skipped:  # contradicted by a later edit, so it cannot hold
                limit = length(target) + SLACK
                yield _Ask(index, "edit", Question.of(case.request), target, limit)
                for text in case.rephrases:
                    yield _Ask(index, "rephrase", Question(text), target, limit)
                for one in case.same:
                    yield _Ask(index, "same", _question(one), target, limit, one.kind, one.language)
            for one in case.other:
                yield _Ask(index, "other", _question(one), target, _PROBED, one.kind, one.language)
            kinds: tuple[tuple[Asked, tuple[Probe, ...]], ...] = (
                ("probe", case.probes), ("neighbour", case.neighbours),
            )  # fmt: skip
            for kind, probes in kinds:
                for probe in probes:
                    wanted = self._base.answers[probe.prompt]
                    yield _Ask(index, kind, Question(probe.prompt), wanted, _PROBED)

    def _judged(
        self,
        contestant: Contestant,
        chosen: Sequence[int],
        done: int,
        advance: Callable[[int], None],
    ) -> Iterator[CaseResult]:
        tokenizer: Any = contestant.kit.tokenizer
        asks = list(self._questions(chosen, lambda text: len(tokenizer(text)["input_ids"])))
        for part in _batches(asks):
            questions = [ask.question for ask in part]
            said = contestant.answers(questions, max(ask.limit for ask in part))
            forced = _agreements(contestant, part, said)
            near = contestant.nearest(questions)
            for ask, answer, share, nearest in zip(part, said, forced, near, strict=True):
                fired = answer.fired
                yield CaseResult(
                    method=contestant.name,
                    edits=done,
                    case=ask.case,
                    asked=ask.asked,
                    prompt=_shown(ask.question),
                    wanted=ask.wanted,
                    answer=answer.text,
                    right=self._is_right(ask, answer, fires=contestant.fires),
                    forced=share,
                    fired=fired,
                    fired_prompt=None if fired is None else self._cases[fired].request.prompt,
                    nearest=None if nearest is None else nearest.edit,
                    nearest_prompt=None
                    if nearest is None
                    else self._cases[nearest.edit].request.prompt,
                    distance=None if nearest is None else nearest.distance,
                    radius=None if nearest is None else nearest.radius,
                    kind=ask.kind,
                    language=ask.language,
                    delivered=answer.delivered,
                )
            advance(len(part))

    def _is_right(self, ask: _Ask, answer: Answer, *, fires: bool) -> bool:
        """Returns whether an answer is the expected one; of `other`, whether no edit fired."""
        if ask.asked != "other":
            return answer.text == ask.wanted
        if not fires:
            return answer.text != ask.wanted
        return answer.fired is None or _plain(ask.question) in self._asked_of[answer.fired]

    def _retention(
        self, contestant: Contestant, chosen: Sequence[int], probes: Sequence[CaseResult]
    ) -> Retention:
        now = _scores(contestant, self._general)
        known = {
            probe.prompt: probe.answer
            for index in chosen
            for probe in self._cases[index].probes
            if probe.answer
        }
        asked = [(case, str(known[case.prompt])) for case in probes if case.prompt in known]
        return Retention(
            perplexity=_perplexity(now),
            base_perplexity=_perplexity(self._base.general),
            accuracy=Mean.of(one.right / one.tokens for one in now),
            base_accuracy=Mean.of(one.right / one.tokens for one in self._base.general),
            answers=Share.of(_says(case.answer, answer) for case, answer in asked),
            base_answers=Share.of(_says(case.wanted, answer) for case, answer in asked),
        )


_KINDS: tuple[Asked, ...] = ("edit", "rephrase", "probe", "neighbour", "same", "other")


def _question(prompt: BlockPrompt) -> Question:
    return Question(prompt.prompt, prompt.chat, "exact")


def _plain(question: Question) -> str:
    """Returns what is asked, without differences of case and spaces."""
    return " ".join(_shown(question).casefold().split())


def _shown(question: Question) -> str:
    """Returns a prompt, or the turns of a longer conversation, without the system prompt."""
    turns = [one for one in question.chat or () if one.role != "system"]
    if len(turns) < 2:
        return question.prompt
    return "\n".join(f"{one.role}: {one.content}" for one in turns)


def _batches(asks: Sequence[_Ask]) -> Iterator[Sequence[_Ask]]:
    """Yields batches of questions.

    Answers to probes are cut to the length of the base model's, so they are not mixed with others
    that may be longer. A batch takes as long as its longest answer.
    """
    for group in (("edit", "rephrase"), ("probe", "neighbour"), ("same",), ("other",)):
        here = sorted((ask for ask in asks if ask.asked in group), key=lambda ask: ask.limit)
        for start in range(0, len(here), _ROWS):
            yield here[start : start + _ROWS]


def _free(cases: Sequence[CaseResult]) -> Share:
    return Share.of(case.right for case in cases)


def _forced(cases: Sequence[CaseResult]) -> Mean:
    return Mean.of(case.forced for case in cases if case.forced is not None)


def _agreements(
    contestant: Contestant, asks: Sequence[_Ask], said: Sequence[Answer]
) -> list[float | None]:
    """Returns the fraction of each expected answer's tokens that the model would choose.

    If the free answer is the expected one, all of its tokens were chosen and no pass is needed.
    Prompts of blocks are only judged freely.
    """
    found: list[float | None] = [
        1.0 if a.text == ask.wanted else None for ask, a in _both(asks, said)
    ]
    missing = [
        index
        for index, ask in enumerate(asks)
        if found[index] is None
        and ask.wanted
        and ask.question.chat is None
        and ask.asked not in ("same", "other")
    ]
    if missing:
        scores = contestant.scores(
            [asks[index].question.prompt for index in missing],
            [asks[index].wanted for index in missing],
        )
        for index, score in zip(missing, scores, strict=True):
            found[index] = score.right / score.tokens
    return found


def _both(asks: Sequence[_Ask], said: Sequence[Answer]) -> Iterator[tuple[_Ask, Answer]]:
    return zip(asks, said, strict=True)


def _scores(contestant: Contestant, pairs: Sequence[tuple[str, str]]) -> list[Score]:
    return contestant.scores([p for p, _ in pairs], [t for _, t in pairs]) if pairs else []


def _perplexity(scores: Sequence[Score]) -> float | None:
    tokens = sum(score.tokens for score in scores)
    if not tokens:
        return None
    return math.exp(-math.fsum(score.log_likelihood for score in scores) / tokens)


def _says(text: str, answer: str) -> bool:
    """Returns whether a text contains an answer, ignoring case."""
    return answer.strip().casefold() in text.casefold()
