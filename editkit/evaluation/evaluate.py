"""``editkit.evaluate``: comparing methods on one stream of edits."""

from __future__ import annotations

import hashlib
import math
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import get_args

import torch
import transformers

from editkit.config import JudgeName
from editkit.errors import UnsupportedMethod
from editkit.evaluation.blocks import threshold_curve
from editkit.evaluation.cases import Case, read_cases
from editkit.evaluation.judging import general_pairs
from editkit.evaluation.methods import maker
from editkit.evaluation.names import CEILINGS, SCORES
from editkit.evaluation.output import write
from editkit.evaluation.records import (
    Asked,
    CaseResult,
    DataFile,
    Point,
    Reach,
    Report,
    Share,
    Tradeoff,
)
from editkit.evaluation.streaming import Plan, Stream, checkpoints
from editkit.models.aliases import DEFAULT_MODEL
from editkit.models.layout import layout_of
from editkit.models.load import ModelSpec, load_model
from editkit.models.progress import Progress, SilentProgress
from editkit.scope.general import TEXT
from editkit_store.errors import InvalidRequest
from editkit_store.records import DEFAULT_METHOD, EditKind

__all__ = ["evaluate"]

_WORST = 20
"""Maximum failing cases of each kind and method in a report."""

_RADII = 60
"""Radii at which the trade-off is computed."""


def evaluate(
    data: Sequence[str | os.PathLike[str]],
    *,
    model: ModelSpec | None = None,
    methods: Sequence[str] = (DEFAULT_METHOD,),
    judge: str | None = None,
    out: str | os.PathLike[str],
    edits: int | None = None,
    at: Sequence[int] | None = None,
    judged: int | None = None,
    general: str | None = None,
    require: Mapping[str, float] | None = None,
    seed: int = 0,
    allow_pickle: bool | None = None,
    progress: Progress | None = None,
) -> Report:
    """Evaluates how well methods edit a model, on a stream of edits judged at several points.

    Results are stored in a folder as they are computed. The same call resumes from there, and
    methods can be added later. At the end the folder also contains ``report.html``,
    ``report.json``, ``points.csv``, ``cases.csv`` and plots.

    Args:
        data: Edit files, one stream in this order; see ``editkit.editing.files``.
        model: Alias, hub id, folder, or a loaded ``(model, tokenizer)``; by default
            ``smollm2-135m``.
        methods: Names of methods; see ``editkit.evaluation.methods``.
        judge: What decides which edit a prompt asks for, as for ``editkit.open``; a variant of a
            method may have its own.
        out: The folder.
        edits: Maximum number of edits of the stream.
        at: Numbers of edits after which to judge; by default the powers of ten, and the end. With
            blocks only the end: what counts is all edits in one store.
        judged: Maximum number of cases to judge at a point, a random sample.
        general: Ordinary text, one passage per line, to measure perplexity on; by default a page
            that ships with editkit.
        require: Minimum values of scores of ``SCORES`` that the first method must reach at the
            end; maximum values of those in ``CEILINGS``.
        seed: Seed of the random sample.
        allow_pickle: As for ``editkit.open``.
        progress: Reports the progress.

    Raises:
        InvalidRequest, MalformedLine: The data or an argument cannot be used.
        UnsupportedMethod: There is no such method.
        UnknownModel, ModelUnavailable, UnsupportedModel: The model cannot be used.
        StoreUnwritable: The results cannot be written.
    """
    bars = dict(require or {})
    unknown = next((name for name in bars if name not in SCORES), None)
    if unknown is not None:
        raise InvalidRequest(
            f"'{unknown}' is no score", field="require", hint=f"scores: {', '.join(SCORES)}"
        )
    if not methods:
        raise UnsupportedMethod("no method to evaluate was named")
    names = tuple(dict.fromkeys(methods))
    spec = model or DEFAULT_MODEL
    if judge not in (None, *get_args(JudgeName)):
        raise InvalidRequest(
            f"there is no judge '{judge}'; choose among {', '.join(get_args(JudgeName))}",
            field="judge",
        )
    options = {"allow_pickle": allow_pickle, "judge": judge}
    makers = {name: maker(name, spec, **options) for name in names}
    bar = progress or SilentProgress()
    loaded = load_model(spec, allow_pickle=allow_pickle, progress=bar)
    family = layout_of(loaded.model).family
    kind: EditKind = "label" if family == "classifier" else "fact"
    cases: list[Case] = []
    files: list[DataFile] = []
    for path in data:
        found, file = read_cases(
            path, kind=kind, limit=None if edits is None else edits - len(cases)
        )
        cases += found
        files.append(file)
        if edits is not None and len(cases) >= edits:
            break
    page = TEXT if general is None else general
    plan = Plan(
        tool=_tool(),
        fingerprint=loaded.fingerprint,
        data=tuple(file.digest for file in files),
        edits=len(cases),
        checkpoints=_checked(at, cases),
        judged=judged,
        general="sha256:" + hashlib.sha256(page.encode()).hexdigest(),
        seed=seed,
        judge=judge,
    )
    del loaded  # each method loads its own copy, unaffected by the others
    pairs = [] if family == "classifier" else general_pairs(page)
    stream = Stream(cases, pairs, plan, Path(out), bar)
    points: list[Point] = []
    settings = {}
    results: dict[str, list[CaseResult]] = {}
    for name in names:
        found_points, settings[name] = stream.run(name, makers[name])
        points += found_points
        results[name] = stream.cases(name)
    targets = [case.request.target.strip() for case in cases]
    reach = [r for name in names if (r := _reach(name, results[name], targets)) is not None]
    report = Report(
        tool=plan.tool,
        model=spec if isinstance(spec, str) else str(getattr(spec, "name", "loaded model")),
        fingerprint=plan.fingerprint,
        time=datetime.now(UTC),
        seed=seed,
        threads=torch.get_num_threads(),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        data=tuple(files),
        edits=len(cases),
        methods=names,
        settings=settings,
        points=tuple(points),
        reach=tuple(reach),
        tradeoffs=tuple(_tradeoff(one) for one in reach),
        curves=tuple(curve for n in names if (curve := threshold_curve(n, results[n], targets))),
        worst=tuple(case for name in names for case in _worst(results[name])),
        failed_requirements=_missed(bars, [p for p in points if p.method == names[0]][-1]),
    )
    write(report, [case for name in names for case in results[name]], Path(out))
    return report


def _checked(at: Sequence[int] | None, cases: Sequence[Case]) -> tuple[int, ...]:
    edits = len(cases)
    if at is None:
        has_blocks = any(case.same or case.other for case in cases)
        return (edits,) if has_blocks else checkpoints(edits)
    found = sorted({count for count in at if count <= edits} | {edits})
    if found[0] < 1:
        raise InvalidRequest("edits are counted from 1", field="at")
    return tuple(found)


def _tool() -> str:
    from editkit import __version__

    return f"editkit {__version__}"


def _reach(method: str, cases: Sequence[CaseResult], targets: Sequence[str]) -> Reach | None:
    """Returns the distances of a method's last point; None if it has none but those of edits."""
    known = [
        (case.asked, case.distance, targets[case.nearest] == targets[case.case])
        for case in cases
        if case.distance is not None and case.radius is not None and case.nearest is not None
    ]
    if not any(asked in ("rephrase", "probe", "neighbour") for asked, _, _ in known):
        return None

    def apart(kind: str, right: bool | None = None) -> tuple[float, ...]:
        return tuple(
            distance
            for asked, distance, is_right in known
            if asked == kind and right in (None, is_right)
        )

    radii = {case.nearest: case.radius for case in cases if case.radius is not None}
    return Reach(
        method=method,
        radius=median(radii.values()),
        rephrases_right=apart("rephrase", True),
        rephrases_wrong=apart("rephrase", False),
        probes=apart("probe"),
        neighbours=apart("neighbour"),
    )


def _tradeoff(reach: Reach) -> Tradeoff:
    spared = (*reach.probes, *reach.neighbours)
    rephrased = len(reach.rephrases_right) + len(reach.rephrases_wrong)
    every = (*reach.rephrases_right, *reach.rephrases_wrong, *spared)
    most = max((*every, 2 * reach.radius))
    radii = tuple(most * step / _RADII for step in range(_RADII + 1))

    def within(distances: Sequence[float], radius: float, count: int) -> float:
        return sum(distance <= radius for distance in distances) / max(1, count)

    return Tradeoff(
        method=reach.method,
        radii=radii,
        reached=tuple(within(reach.rephrases_right, r, rephrased) for r in radii),
        misled=tuple(within(reach.rephrases_wrong, r, rephrased) for r in radii),
        spared=tuple(1 - within(spared, r, len(spared)) for r in radii),
    )


def _worst(cases: Sequence[CaseResult]) -> list[CaseResult]:
    """Returns failing cases, a few of each kind, edits first."""
    found = []
    for kind in get_args(Asked):
        wrong = [case for case in cases if case.asked == kind and not case.right]
        wrong.sort(key=_other_first if kind == "other" else _edit_first)
        found += wrong[:_WORST]
    return found


def _edit_first(case: CaseResult) -> tuple[bool, int]:
    """Firing another edit is worse than firing none."""
    return case.fired in (None, case.case), case.case


def _other_first(case: CaseResult) -> float:
    """The nearer an edit is that should not fire, the worse."""
    return math.inf if case.ratio is None else case.ratio


def _missed(bars: Mapping[str, float], point: Point) -> tuple[str, ...]:
    found = []
    for name, bar in bars.items():
        share: Share | None = getattr(point, name)
        value = None if share is None else share.value
        is_met = value is not None and (value <= bar if name in CEILINGS else value >= bar)
        if not is_met:
            shown = "nothing to judge" if value is None else f"{value:.3f}"
            most = "at most " if name in CEILINGS else ""
            found.append(f"{name} {shown}, required {most}{bar:g}")
    return tuple(found)
