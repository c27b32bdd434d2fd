"""An evaluation as one page of HTML that needs nothing else: no network, no script.

Loads no model and no deep-learning framework; what is shown is a ``Report``. The pictures need
matplotlib, and everything else is shown without it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import UTC

from editkit.errors import PackageMissing
from editkit.evaluation.measures import MEASURES, Shown, leaders
from editkit.evaluation.pictures import svg
from editkit.evaluation.readings import at_radius, last_points, method_names
from editkit.evaluation.records import CaseResult, Reach, Report, Tradeoff
from editkit.markup import STYLE, cell, document, row, save, table, text

__all__ = ["page", "write_page"]

_STYLE = (
    STYLE
    + """
h1, li, dd, figcaption { unicode-bidi: isolate; overflow-wrap: anywhere; }
h2 { scroll-margin-top: 1rem; } h3 { font-size: 1rem; margin: 1.6rem 0 .5rem; }
nav { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: 1rem 0; }
a { color: inherit; }
small { color: var(--quiet); }
td small, th small { display: block; font-weight: 400; white-space: nowrap; }
th.side { position: sticky; left: 0; width: 15rem; } td.plain { white-space: nowrap; }
.failed { border-left: .3rem solid var(--went); padding: .1rem 1rem; }
.failed h2 { margin-top: .5rem; }
figure { margin: 1rem 0 2rem; padding: .8rem; border: 1px solid var(--line);
         border-radius: .5rem; background: #ffffff; }
figure svg { display: block; width: 100%; min-width: 44rem; height: auto; }
figcaption { color: #60646c; margin-top: .6rem; }
dt { font-weight: 600; margin-top: .6rem; } dd { margin: 0; color: var(--quiet); }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .3rem 1.2rem; }
.facts dt { margin: 0; } .facts dd { color: inherit; }
@media (max-width: 40rem) { body { margin: 1rem auto; padding: 0 .8rem; }
  th, td { padding: .35rem .45rem; } th.side { width: auto; max-width: 8rem; }
  td.said { min-width: 9rem; } }
@media print {
  :root { color-scheme: light; --ink: #000000; --quiet: #44484e; --line: #b9bcc1;
          --back: #ffffff; --head: #f4f5f7; --went: #b3372f; }
  body { margin: 0; max-width: none; font-size: 9pt; } nav { display: none; }
  .wide { overflow: visible; } figure svg { min-width: 0; } th.side { position: static; }
  th, td { padding: .2rem .35rem; } tr, figure, dt, .failed { break-inside: avoid; }
  h2, h3, dt { break-after: avoid; }
}"""
)

_CAPTIONS = {
    "curves": "How the scores go as edits come in. Bands and bars are 95% intervals.",
    "tradeoff": "How far edits reach, against what they leave alone, if all had the same radius. "
    "Computed from distances; nothing is generated.",
    "distances": "How far prompts are from the nearest edit, after the last one. An edit fires "
    "for what is nearer than its radius.",
}

_BEST = (
    "Bold: the best of a row, leaving out the untouched model. ★: its interval lies apart from "
    "those of all other methods; a bold value without ★ may be the best by chance."
)
_UNFAIR = "The methods were not measured after equally many edits, so none is called the best."

_WORST = (
    ("edit", "Edits whose own prompt fails", "target"),
    ("rephrase", "Rephrases answered wrongly", "target"),
    ("probe", "Probes whose answer changed", "base model's answer"),
    ("neighbour", "Neighbours whose answer changed", "base model's answer"),
)

_GLOSSARY = (
    ("edit", "A correction: a prompt, and the target that the model is to answer it with."),
    ("rephrase", "The prompt of an edit in other words. It was not shown when the edit was made."),
    ("probe", "A prompt that has nothing to do with the edits. Its answer must not change."),
    ("neighbour", "A prompt that looks like an edit's and is about something else. Its answer must "
     "not change either."),
    ("edit success", "How many edits gave their target right after they were made."),
    ("reliability", "How many edits give their target now, with all later edits in place."),
    ("generalization", "How many rephrases give the target."),
    ("locality", "How many probes are answered as the untouched model answers them; the same of "
     "neighbours."),
    ("free", "The model writes its whole answer by itself, always the likeliest token, and the "
     "answer counts if it is exactly the wanted one. What is not called forced is free."),
    ("forced", "The model is given the wanted answer token by token; the score is the share of "
     "tokens that it would have chosen. A kinder measure than free."),
    ("false fires", "For how many probes and neighbours an edit fired, whether or not the answer "
     "changed."),
    ("perplexity, relative to base", "How much worse the model predicts ordinary text "
     "than before the edits: 1 is unchanged, 2 is twice the perplexity."),
    ("tokens of general text predicted", "How many tokens of ordinary text the model would have "
     "chosen rightly; it should be what it was before."),
    ("known answers still given", "How many questions are given the answer that is known to be "
     "true; it should be what it was before."),
    ("distance, radius", "An edit fires for a prompt whose key is nearer to the edit's than the "
     "edit's radius. Both are L2 distances between the model's own numbers."),
    ("95% interval", "What is judged is a sample. Of ranges made in this way, 19 out of 20 hold "
     "the score that everything of the kind would have."),
    ("base", "The untouched model, for comparison."),
)  # fmt: skip


def write_page(report: Report, path: str | os.PathLike[str]) -> None:
    """Writes the page of an evaluation to a file; one that is there is replaced.

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
        report: The evaluation. What it has nothing of has no section.
    """
    sections = (
        ("results", "After the last edit", _results(report)),
        ("figures", "Figures", _figures(report)),
        ("tradeoff", "How far edits reach", _reach(report)),
        ("worst", "What went wrong", _worst(report.worst)),
        ("points", "All points", _points(report)),
        ("measured", "What was measured", _measured(report)),
        ("glossary", "What the words mean", _glossary()),
    )
    links = [f'<a href="#{name}">{text(title)}</a>' for name, title, lines in sections if lines]
    parts = [
        f"<h1>How well edits of {text(report.model)} hold</h1>",
        f"<p>{text(_summary(report))}</p>",
        *_failed(report.failed_requirements),
        f"<nav>{''.join(links)}</nav>",
    ]
    for name, title, lines in sections:
        if lines:
            parts += [f'<section id="{name}">', f"<h2>{text(title)}</h2>", *lines, "</section>"]
    return document(f"editkit: evaluation of {report.model}", parts, style=_STYLE)


def _summary(report: Report) -> str:
    methods = method_names(report)
    return (
        f"{_counted(report.edits, 'edit')} from {_counted(len(report.data), 'file')}, one after "
        f"the other, by {_counted(len(methods), 'method')}: {', '.join(methods) or 'none'}. "
        f"Seed {report.seed}, {_time(report)}."
    )


def _failed(requirements: Sequence[str]) -> list[str]:
    if not requirements:
        return []
    items = [f"<li>{text(one)}</li>" for one in requirements]
    return ['<div class="failed">', "<h2>Requirements not met</h2>", "<ul>", *items, "</ul></div>"]


def _results(report: Report) -> list[str]:
    points = last_points(report)
    if not points:
        return ["<p>Nothing was measured.</p>"]
    is_fair = len({point.edits for point in points}) == 1
    rows = []
    for measure in MEASURES:
        found = [measure.read(point) for point in points]
        if any(found):
            best = leaders(measure, points) if is_fair else {}
            cells = [_shown(shown, best.get(point.method))
                     for point, shown in zip(points, found, strict=True)]  # fmt: skip
            rows.append(row([f'<th class="side">{text(measure.title)}</th>', *cells]))
    said = ["Below each value its 95% interval, and how many of how many."]
    if sum(point.method != "base" for point in points) > 1:
        said.append(_BEST if is_fair else _UNFAIR)
    return [f"<p>{text(' '.join(said))}</p>", *table(["", *(p.method for p in points)], rows)]


def _shown(shown: Shown | None, is_clear: bool | None = None, *, is_brief: bool = False) -> str:
    """Returns a cell; ``is_clear`` is None of a value that is not the best of its row."""
    if shown is None:
        return cell("–", "plain")
    value = text(shown.value) if is_clear is None else f"<b>{text(shown.value)}</b>"
    value += " ★" if is_clear else ""
    notes = shown.notes[:1] if is_brief else shown.notes
    return f'<td class="plain">{value}{"".join(f"<small>{text(n)}</small>" for n in notes)}</td>'


def _figures(report: Report) -> list[str]:
    try:
        found = svg(report)
    except PackageMissing as error:
        return [
            f"<p>The figures are drawn where matplotlib is installed "
            f"({text(error.hint or error.package)}); everything else is here.</p>"
        ]
    lines = []
    for name, picture in found.items():
        caption = f"<figcaption>{text(_CAPTIONS[name])}</figcaption>"
        lines += ["<figure>", f'<div class="wide">{picture}</div>', caption, "</figure>"]
    return lines


def _reach(report: Report) -> list[str]:
    reach = {one.method: one for one in report.reach}
    tradeoffs = {one.method: one for one in report.tradeoffs if one.radii}
    items = []
    for method in method_names(report):
        said = [*_at_radii(tradeoffs.get(method), reach.get(method)), *_misled(reach.get(method))]
        if said:
            items.append(f"<li><b>{text(method)}</b>: {text(' '.join(said))}</li>")
    return ["<ul>", *items, "</ul>"] if items else []


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


def _worst(cases: Iterable[CaseResult]) -> list[str]:
    found = list(cases)
    lines: list[str] = []
    for asked, heading, wanted in _WORST:
        rows = [_case(one) for one in found if one.asked == asked]
        if rows:
            heads = ("method", "case", "prompt", wanted, "answer", "forced", "what fired")
            lines += [f"<h3>{text(heading)}</h3>", *table(heads, rows)]
    if lines:
        said = "A few of the cases that failed after the last edit. Cases are edits, from 0."
        lines.insert(0, f"<p>{said}</p>")
    return lines


def _case(case: CaseResult) -> str:
    return row(
        [
            cell(case.method, "plain"),
            cell(str(case.case), "plain"),
            cell(case.prompt, "said"),
            cell(case.wanted or "(nothing)", "said"),
            cell(case.answer or "(nothing)", "said"),
            cell("–" if case.forced is None else f"{case.forced:.2f}", "plain"),
            cell(_fired(case), "said"),
        ]
    )


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


def _points(report: Report) -> list[str]:
    if not report.points:
        return []
    measures = [one for one in MEASURES if one.is_main and any(map(one.read, report.points))]
    rows = []
    for method in method_names(report):
        found = sorted((p for p in report.points if p.method == method), key=lambda p: p.edits)
        rows += [
            row(
                [
                    cell(method, "plain"),
                    cell(f"{point.edits:,}", "plain"),
                    cell(f"{point.judged:,}", "plain"),
                    *(_shown(one.read(point), is_brief=True) for one in measures),
                ]
            )
            for point in found
        ]
    return table(["method", "edits", "judged", *(one.title for one in measures)], rows)


def _measured(report: Report) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    facts = (
        ("model", report.model),
        ("fingerprint", report.fingerprint),
        ("edits", f"{report.edits:,}"),
        ("seed", str(report.seed)),
        ("threads", str(report.threads)),
        ("time", _time(report)),
        ("tool", report.tool),
        ("versions", versions),
    )
    terms = [f"<dt>{text(name)}</dt><dd>{text(said)}</dd>" for name, said in facts]
    lines = ['<dl class="facts">', *terms, "</dl>"]
    if report.data:
        files = [
            row([cell(one.path), cell(f"{one.edits:,}", "plain"), cell(one.digest)])
            for one in report.data
        ]
        lines += ["<h3>Data</h3>", *table(("file", "edits", "digest"), files)]
    if report.settings:
        settings = [
            row([cell(method), cell("\n".join(f"{name}: {said}" for name, said in found.items()))])
            for method, found in report.settings.items()
        ]
        lines += ["<h3>Settings</h3>", *table(("method", "settings"), settings)]
    return lines


def _glossary() -> list[str]:
    terms = [f"<dt>{text(term)}</dt><dd>{text(said)}</dd>" for term, said in _GLOSSARY]
    return ["<dl>", *terms, "</dl>"]


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _time(report: Report) -> str:
    if report.time.tzinfo is None:
        return report.time.isoformat(" ", "seconds")
    return f"{report.time.astimezone(UTC).replace(tzinfo=None).isoformat(' ', 'seconds')} UTC"
