"""The scores of blocks: prompts that ask for the same as an edit's (`same`), or not (`other`)."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from editkit.evaluation.records import BlockScores, CaseResult, Share, ThresholdCurve

__all__ = ["score_blocks", "threshold_curve"]

_THRESHOLDS = 60
"""Intervals between the thresholds of a curve."""


def score_blocks(
    cases: Sequence[CaseResult], targets: Sequence[str], *, fires: bool
) -> dict[str, Any]:
    """Returns a point's scores of blocks, by kind and by language too; empty without blocks.

    Args:
        cases: Results of the prompts of blocks.
        targets: The target of each edit.
        fires: Whether the method decides for each prompt if an edit applies.
    """
    if not cases:
        return {}
    return {
        **dict(_scores(cases, targets, fires)),
        "kind": _by(cases, lambda case: case.kind, targets, fires),
        "language": _by(cases, lambda case: case.language, targets, fires),
    }


def threshold_curve(
    method: str, cases: Iterable[CaseResult], targets: Sequence[str]
) -> ThresholdCurve | None:
    """Returns right against fired over thresholds; None where nothing has a distance.

    Args:
        method: Name of the method.
        cases: Results of all its prompts at the last point.
        targets: The target of each edit.
    """
    asked = [case for case in cases if case.asked in ("same", "other")]
    known = [(case, case.ratio) for case in asked if case.ratio is not None]
    if not known:
        return None
    ratios = sorted({ratio for _, ratio in known} | {1.0})
    steps = {round(step * (len(ratios) - 1) / _THRESHOLDS) for step in range(_THRESHOLDS + 1)}
    thresholds = [ratios[step] for step in sorted(steps | {ratios.index(1.0)})]

    def shares(role: str, is_counted: Callable[[CaseResult], bool]) -> tuple[float, ...]:
        near = sorted(r for case, r in known if case.asked == role and is_counted(case))
        count = max(1, sum(case.asked == role for case in asked))
        return tuple(bisect.bisect_right(near, threshold) / count for threshold in thresholds)

    def is_own(case: CaseResult) -> bool:
        return case.nearest is not None and targets[case.nearest] == targets[case.case]

    return ThresholdCurve(
        method=method,
        thresholds=tuple(thresholds),
        reached=shares("same", is_own),
        right=shares("same", lambda case: case.right and case.fired is not None),
        # An edit that may fire for an `other` prompt is no false one at any threshold.
        fired=shares("other", lambda case: not (case.right and case.fired is not None)),
    )


def _scores(cases: Sequence[CaseResult], targets: Sequence[str], fires: bool) -> BlockScores:
    same = [case for case in cases if case.asked == "same"]
    other = [case for case in cases if case.asked == "other"]

    def is_reached(case: CaseResult) -> bool:
        return case.fired is not None and targets[case.fired] == targets[case.case]

    return BlockScores(
        right=_share(same, lambda case: case.right),
        right_free=_share(same, _is_free),
        fired_same=_share(same, is_reached) if fires else None,
        delivered_free=_share(list(filter(is_reached, same)), _is_free) if fires else None,
        fired_other=_share(other, lambda case: not case.right) if fires else None,
    )


def _by(
    cases: Sequence[CaseResult],
    name: Callable[[CaseResult], str | None],
    targets: Sequence[str],
    fires: bool,
) -> dict[str, BlockScores]:
    groups: dict[str, list[CaseResult]] = {}
    for case in cases:
        if (found := name(case)) is not None:
            groups.setdefault(found, []).append(case)
    return {found: _scores(some, targets, fires) for found, some in sorted(groups.items())}


def _share(cases: Sequence[CaseResult], is_hit: Callable[[CaseResult], bool]) -> Share:
    return Share.of(map(is_hit, cases), [case.case for case in cases])


def _is_free(case: CaseResult) -> bool:
    return case.right and case.delivered != "held"
