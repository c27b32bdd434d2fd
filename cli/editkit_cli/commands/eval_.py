"""`editkit eval`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from editkit.evaluation.names import SCORES
from editkit_cli.terminal.group import CHECK_FAILED, command
from editkit_cli.terminal.interrupts import keeping
from editkit_cli.terminal.options import Method, Settings
from editkit_cli.terminal.tables import Column
from editkit_store.records import DEFAULT_METHOD

if TYPE_CHECKING:
    from editkit.evaluation.records import BlockScores, Mean, Point, Report, Share
    from editkit_cli.terminal.output import Output

__all__ = ["eval_"]


class ContestantName(Method):
    """Name of something that an evaluation compares: a method, its variant, or a baseline."""

    def names(self) -> list[str]:
        """Returns the names that may be given."""
        from editkit.evaluation.names import method_names

        return list(method_names())

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Returns the name, unless nothing has it."""
        names = self.names()
        if value in names:
            return value
        name, _, _ = value.partition(":")
        super().convert(name, param, ctx)  # refuses a method that is not installed
        self.fail(f"there is no '{value}'; there are: {', '.join(names)}", param, ctx)


def _counts(
    _: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    if value is None:
        return None
    try:
        found = tuple(int(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"'{value}' is no list of numbers such as 1,10,100") from None
    if min(found) < 1:
        raise click.BadParameter("edits are counted from 1")
    return found


def _bars(_: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> dict[str, float]:
    found = {}
    for one in value:
        name, equals, bar = one.partition("=")
        try:
            found[name] = float(bar)
        except ValueError:
            found[name] = -1.0
        if name not in SCORES or not equals or not 0 <= found[name] <= 1:
            raise click.BadParameter(
                f"'{one}' is no score and bar such as reliability=0.97; scores: {', '.join(SCORES)}"
            )
    return found


@command(
    "eval",
    example=f"""
        editkit eval --data zsre.jsonl --edits 100
        editkit eval --data zsre.jsonl --method {DEFAULT_METHOD} --method fine-tuning
        editkit eval --data facts.jsonl --require reliability=0.97 --require locality=0.99
        editkit eval --data blocks.jsonl --require right=0.7 --require fired_other=0.05
    """,
    shared=("model", "judge", "json", "quiet"),
)
@click.option(
    "--data", "files", multiple=True, required=True, metavar="FILE",
    help="Edits in JSON lines, JSON or CSV: your own, or those of zsRE, CounterFact, …; repeatable",
)  # fmt: skip
@click.option(
    "--method", "methods", multiple=True, type=ContestantName(), default=(DEFAULT_METHOD,),
    show_default=DEFAULT_METHOD, help="What to compare; repeatable",
)  # fmt: skip
@click.option("--edits", type=click.IntRange(min=1), metavar="N", help="At most so many edits")
@click.option(
    "--at", callback=_counts, metavar="N,N,…",
    help="Judge after so many edits  [default: 1, 10, 100, … and all; with blocks, all]",
)  # fmt: skip
@click.option(
    "--judged", type=click.IntRange(min=1), metavar="N",
    help="Judge at most so many edits at a time, a random sample  [default: all]",
)  # fmt: skip
@click.option(
    "--text", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE",
    help="Ordinary text, a piece a line, to measure perplexity on  [default: a page of our own]",
)  # fmt: skip
@click.option(
    "--require", "bars", multiple=True, callback=_bars, metavar="SCORE=BAR",
    help="Exit with 3 if the first method ends below this (fired_other: above); repeatable",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random sample")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default="evaluation",
    show_default=True, metavar="DIR", help="Folder for results; a run goes on from what is there",
)  # fmt: skip
def eval_(
    settings: Settings,
    files: tuple[str, ...],
    methods: tuple[str, ...],
    edits: int | None,
    at: tuple[int, ...] | None,
    judged: int | None,
    text: Path | None,
    bars: dict[str, float],
    seed: int,
    out: Path,
) -> int:
    """Measure how well edits hold, reach their rephrasings, and leave the rest alone.

    The edits of the files are made one after the other on a model that is loaded for this; no store
    is touched. After 1, 10, 100, … of them everything is asked again: do all edits so far still
    hold, do their rephrasings give the target, do unrelated prompts (and neighbours) still get the
    answer of the unedited model? Answers are generated freely and compared as a whole.

    A line has `prompt` and `target`, and, to be judged by, `rephrases`, `locality` and
    `neighbours`; the names of the published data sets are understood, too. A block has `same` and
    `other` instead: lists of prompts that ask for exactly what `prompt` asks for, and for something
    else. A prompt is a text, a list of turns (user first and last), or an object with `prompt`,
    `kind` and `language`. With blocks all edits are made first, then everything is asked once.

    The folder gets report.html, report.json, points.csv, cases.csv and pictures. The same command
    resumes an interrupted run; another --method adds to what is there.
    """
    printer = settings.out
    again = shlex.join(["editkit", *settings.argv])
    kept = f"what was judged so far is in '{out}'; the same command resumes here: {again}"
    general = _read(text)
    with keeping(lambda: kept):
        from editkit.evaluation.evaluate import evaluate as run

        report = run(
            files,
            model=settings.model,
            methods=methods,
            judge=settings.judge,
            out=out,
            edits=edits,
            at=at,
            judged=judged,
            general=general,
            require=bars,
            seed=seed,
            allow_pickle=settings.allow_pickle,
            progress=printer.progress(),
        )
    printer.result(report, lambda: _draw(printer, report))
    printer.status(f"report: {out / 'report.html'}")
    for missed in report.failed_requirements:
        printer.warning(missed)
    return CHECK_FAILED if report.failed_requirements else 0


def _read(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"'{path}' cannot be read as text: {error}") from error


def _draw(out: Output, report: Report) -> None:
    out.table(
        (
            Column("method"), Column("edits", right=True), Column("reliability", right=True),
            Column("rephrases", right=True), Column("locality", right=True),
            Column("neighbours", right=True), Column("perplexity", right=True),
            Column("fired", right=True), Column("s/edit", right=True),
        ),
        [
            (
                point.method,
                str(point.edits),
                _shown(point.reliability),
                _shown(point.generalization),
                _shown(point.locality),
                _shown(point.neighbours),
                _ratio(point.retention.perplexity, point.retention.base_perplexity)
                if point.retention
                else "",
                "" if point.false_fires is None else f"{point.false_fires.value or 0:.3f}",
                f"{point.seconds_per_edit:.2f}",
            )
            for point in report.points
        ],
    )  # fmt: skip
    _draw_blocks(out, report)


def _draw_blocks(out: Output, report: Report) -> None:
    rows = []
    for point in report.points:
        if point.right is None:
            continue
        groups: list[tuple[str, str, Point | BlockScores]] = [("all", "", point)]
        groups += [("kind", name, one) for name, one in point.kind.items()]
        groups += [("language", name, one) for name, one in point.language.items()]
        rows += [
            (
                point.method,
                str(point.edits),
                by,
                name,
                _ranged(scores.right),
                _shown(scores.right_free),
                _shown(scores.fired_same),
                _ranged(scores.fired_other),
            )
            for by, name, scores in groups
        ]
    if rows:
        out.table(
            (
                Column("method"), Column("edits", right=True), Column("by"), Column("of"),
                Column("same: right"), Column("free", right=True), Column("fires", right=True),
                Column("other: fires"),
            ),
            rows,
        )  # fmt: skip


def _ranged(share: Share | None) -> str:
    if share is None or share.value is None:
        return ""
    return f"{share.value:.3f} ({share.low:.3f} to {share.high:.3f})"


def _shown(share: Share | Mean | None) -> str:
    return "" if share is None or share.value is None else f"{share.value:.3f}"


def _ratio(now: float | None, before: float | None) -> str:
    return "" if now is None or before is None else f"{now / before:.4f}x"
