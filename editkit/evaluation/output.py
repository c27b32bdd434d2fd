"""Writing an evaluation's results to its folder: JSON, CSV, plots, and an HTML page."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from editkit.errors import PackageMissing
from editkit.evaluation.page import write_page
from editkit.evaluation.pictures import draw
from editkit.evaluation.records import CaseResult, Report
from editkit.evaluation.tables import cases_csv, points_csv
from editkit_store.database.outputs import replace_output
from editkit_store.errors import OutputUnwritable

__all__ = ["write"]


def write(report: Report, cases: Iterable[CaseResult], folder: Path) -> tuple[str, ...]:
    """Writes a report, replacing existing files. Returns their names.

    Without matplotlib there are no plots; the page explains how to get them.

    Args:
        report: The report.
        cases: The result of each prompt at the last points.
        folder: The folder.

    Raises:
        OutputUnwritable: A file cannot be written.
        UnsafeTarget: One of the files is a store, or belongs to one.
    """
    try:
        for name, text in (
            ("report.json", report.model_dump_json(indent=1) + "\n"),
            ("points.csv", points_csv(report)),
            ("cases.csv", cases_csv(cases)),
        ):
            replace_output(folder / name, text.encode())
        try:
            pictures = [path.name for path in draw(report, folder)]
        except PackageMissing:
            pictures = []
    except OSError as error:
        raise OutputUnwritable(
            f"results cannot be written to '{folder}': {error.strerror}", path=folder
        ) from error
    write_page(report, folder / "report.html")
    return ("report.html", "report.json", "points.csv", "cases.csv", *pictures)
