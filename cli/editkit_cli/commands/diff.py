"""`editkit diff`."""

from __future__ import annotations

from pathlib import Path

import click

from editkit_cli.backend.opening import check_store, open_history, open_model
from editkit_cli.terminal.group import command
from editkit_cli.terminal.history import draw_diff
from editkit_cli.terminal.options import Settings, text
from editkit_store.errors import InvalidRequest

__all__ = ["diff"]


@command(
    "diff",
    example="""
        editkit diff v1 v3
        editkit diff prod --html prod.html
        editkit diff v1 v3 --behavior --probe 'The capital of France is'
    """,
    shared=("store", "model", "json", "quiet"),
)
@click.argument("before", metavar="A", default="@-")
@click.argument("after", metavar="B", default="@")
@click.option(
    "--behavior", is_flag=True, help="Also ask the model, and show its answers at both versions"
)
@click.option(
    "--probe",
    "probes",
    multiple=True,
    type=text,
    metavar="TEXT",
    help="Ask this too, with --behavior implied; may be given again",
)
@click.option(
    "--max-new-tokens",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    metavar="N",
    help="Stop answers to probes and locality prompts after so many tokens",
)
@click.option(
    "--html", "page", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
    help="Also write the comparison to one HTML page",
)  # fmt: skip
def diff(
    settings: Settings,
    before: str,
    after: str,
    behavior: bool,
    probes: tuple[str, ...],
    max_new_tokens: int,
    page: Path | None,
) -> None:
    """Compare two versions: edits, codebook and adaptor weights.

    A is the version before the current one unless given, B the current one.

    With --behavior the model is loaded. At both versions it is asked the prompts of the edits that
    came or went, their rephrases and their locality prompts, and decodes greedily; answers that
    differ are marked with *.
    """
    asked = behavior or bool(probes)
    if asked:
        if not all(probe.strip() for probe in probes):
            raise InvalidRequest("a probe is empty", field="probe")
        check_store(settings, before, after)
        with open_model(settings, read_only=True) as backend:
            found = backend.diff(
                before,
                after,
                behavior=True,
                probes=probes,
                max_new_tokens=max_new_tokens,
                progress=settings.out.progress(),
            )
    else:
        with open_history(settings) as history:
            found = history.diff(before, after)
    out = settings.out
    out.result(found, lambda: draw_diff(out, found, asked=asked))
    if page is not None:
        # Last: a page that cannot be written does not take the answers along.
        from editkit.reports.diff import write_page

        write_page(found, page)
        out.status(f"wrote {page}")
