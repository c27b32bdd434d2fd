"""The HTML page of a ``Report``. Loads no model and no deep-learning framework.

The plots need matplotlib; without it the page has everything else.
"""

from __future__ import annotations

import os
from datetime import UTC
from typing import Any

from editkit.errors import PackageMissing
from editkit.evaluation.measures import MEASURES, ShownCell, leaders, shown
from editkit.evaluation.pictures import svg
from editkit.evaluation.readings import at_radius, last_points, method_names
from editkit.evaluation.records import BlockScores, CaseResult, Reach, Report, Tradeoff
from editkit.reports.html import render, save

__all__ = ["page", "write_page"]

BLOCKS = tuple(BlockScores.model_fields)


def write_page(report: Report, path: str | os.PathLike[str]) -> None:
    """Writes the page of an evaluation to a file, replacing an existing one.

    Args:
        report: The evaluation.
        path: The file.

    Raises:
        StoreUnwritable: The file cannot be written.
    """
    save(page(report), path)


def page(report: Report) -> str:
    """Returns an evaluation as one self-contained HTML page.

    Args:
        report: The evaluation. Sections without data are omitted.
    """
    pictures, remedy = _pictures(report)
    return render(
        "evaluation.html",
        report=report,
        summary=_summary(report),
        results=_results(report),
        pictures=pictures,
        remedy=remedy,
        reach=_reach(report),
        fired=_fired,
        blocks=_blocks(report),
        points=_points(report),
        facts=_facts(report),
    )


def _summary(report: Report) -> str:
    methods = method_names(report)
    return (
        f"{_counted(report.edits, 'edit')} from {_counted(len(report.data), 'file')}, one after "
        f"the other, by {_counted(len(methods), 'method')}: {', '.join(methods) or 'none'}. "
        f"Seed {report.seed}, {_time(report)}."
    )


def _results(report: Report) -> dict[str, Any]:
    """Returns a table of the last points: one row per measure, one column per method."""
    points = last_points(report)
    is_fair = len({point.edits for point in points}) == 1
    rows = []
    for measure in MEASURES:
        found = [measure.read(point) for point in points]
        if any(found):
            best = leaders(measure, points) if is_fair else {}
            clear = [best.get(point.method) for point in points]
            rows.append((measure.title, list(zip(found, clear, strict=True))))
    return {
        "heads": [point.method for point in points],
        "rows": rows,
        "is_fair": is_fair,
        "is_compared": sum(point.method != "base" for point in points) > 1,
    }


def _pictures(report: Report) -> tuple[dict[str, str] | None, str]:
    """Returns the plots, or None and a hint how to get them."""
    try:
        return svg(report), ""
    except PackageMissing as error:
        return None, error.hint or error.package


def _reach(report: Report) -> list[tuple[str, str]]:
    """Returns a description of what each method's radii reach."""
    reach = {one.method: one for one in report.reach}
    tradeoffs = {one.method: one for one in report.tradeoffs if one.radii}
    items = []
    for method in method_names(report):
        said = [*_at_radii(tradeoffs.get(method), reach.get(method)), *_misled(reach.get(method))]
        if said:
            items.append((method, " ".join(said)))
    return items


def _at_radii(tradeoff: Tradeoff | None, reach: Reach | None) -> list[str]:
    if tradeoff is None:
        return []
    said = []
    here = at_radius(tradeoff, reach.radius if reach else None)
    if reach and here:
        said.append(
            f"at the median radius of its edits, {reach.radius:.3g}, {here.reached:.1%} of the "
            f"rephrases fire the right edit and {here.misled:.1%} another one, and "
            f"{here.spared:.1%} of the probes and neighbours fire none."
        )
    elif reach:
        said.append(
            f"the median radius of its edits, {reach.radius:.3g}, is not one of those tried."
        )
    curve = zip(tradeoff.reached, tradeoff.spared, tradeoff.radii, strict=True)
    reached, spared, radius = max(curve, key=lambda one: (one[0] + one[1], -one[2]))
    said.append(
        f"Of the radii tried, {radius:.3g} has the largest sum of both: {reached:.1%} of the "
        f"rephrases fire the right edit, {spared:.1%} of the others fire none."
    )
    return said


def _misled(reach: Reach | None) -> list[str]:
    count = len(reach.rephrases_right) + len(reach.rephrases_wrong) if reach else 0
    if reach is None or not count:
        return []
    share = len(reach.rephrases_wrong) / count
    return [
        f"For {share:.1%} of the rephrases, another edit is nearer than one with their target: no "
        "radius makes those right."
    ]


def _fired(case: CaseResult) -> str:
    apart = "" if case.distance is None else f"distance {case.distance:.4g}"
    apart += "" if case.radius is None else f", radius {case.radius:.4g}"
    if case.fired is not None:
        is_own = case.fired == case.case and case.asked in ("edit", "rephrase")
        which = "its own edit" if is_own else f"edit {case.fired}"
        said = [f"{which}: {case.fired_prompt}" if case.fired_prompt else which, apart]
    elif case.nearest is not None or apart:
        which = "" if case.nearest is None else f"; nearest is edit {case.nearest}"
        which += f": {case.nearest_prompt}" if case.nearest_prompt else ""
        said = [f"none{which}", apart]
    else:
        return "–"
    return "\n".join(one for one in said if one)


def _points(report: Report) -> dict[str, Any]:
    """Returns a table of all points, with the main measures that any point has."""
    measures = [one for one in MEASURES if one.is_main and any(map(one.read, report.points))]
    points = [
        point
        for method in method_names(report)
        for point in sorted(report.points, key=lambda one: one.edits)
        if point.method == method
    ]
    return {
        "heads": [one.title for one in measures],
        "rows": [(point, [one.read(point) for one in measures]) for point in points],
    }


def _blocks(report: Report) -> list[tuple[str, str, list[tuple[str, list[ShownCell | None]]]]]:
    """Returns a table of each method's scores by kind and one by language, at its last point."""
    return [
        (point.method, what, [(name, [shown(getattr(one, s)) for s in BLOCKS]) for name, one in by])
        for point in last_points(report)
        for what, by in (("kind", point.kind.items()), ("language", point.language.items()))
        if by
    ]


def _facts(report: Report) -> tuple[tuple[str, str], ...]:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    return (
        ("model", report.model),
        ("fingerprint", report.fingerprint),
        ("edits", f"{report.edits:,}"),
        ("seed", str(report.seed)),
        ("threads", str(report.threads)),
        ("time", _time(report)),
        ("tool", report.tool),
        ("versions", versions),
    )


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _time(report: Report) -> str:
    if report.time.tzinfo is None:
        return report.time.isoformat(" ", "seconds")
    return f"{report.time.astimezone(UTC).replace(tzinfo=None).isoformat(' ', 'seconds')} UTC"
