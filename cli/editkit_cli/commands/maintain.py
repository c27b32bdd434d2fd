"""The store itself: making one, and where it stands. Loads no model."""

from __future__ import annotations

import click

from editkit_cli.backend.opening import open_history
from editkit_cli.terminal.group import command
from editkit_cli.terminal.options import Settings, text
from editkit_cli.terminal.output import Output
from editkit_cli.terminal.tables import Column, short_digest
from editkit_store.records import Status, Verified

__all__ = ["compact", "init", "sql", "status", "verify"]

DAMAGED = 3
"""Exit code when a verification finds something wrong."""

SHOWN = 20
"""Problems that are printed."""


@command(
    "init",
    example="editkit init --model smollm2-135m",
    shared=("store", "model", "json", "quiet"),
)
def init(settings: Settings) -> None:
    """Create the store and remember the model.

    A store that is there keeps its history; with --model it remembers that model from now on.
    The model's name is checked, nothing is fetched.
    """
    model = None if settings.model is None else _known_name(settings.model)
    existed = settings.path.exists()
    with open_history(settings) as history:
        made = history.begin(model).model_copy(update={"store": settings.store})
    out = settings.out
    if existed:
        out.status("the store was there already; its history is kept")
    uses = made.model or "the default model"
    out.result(made, lambda: out.text(f"{made.store} at {made.version}, for {uses}"))


def _known_name(name: str) -> str:
    """What the store remembers: a path in full, so that it holds in any folder; else the name."""
    from editkit.models import resolve

    source = resolve(name)
    return source.name if source.path is None else str(source.path)


@command("status", example="editkit status --json")
def status(settings: Settings) -> None:
    """Show where the store stands."""
    with open_history(settings) as history:
        found = history.status()
    out = settings.out
    out.result(found, lambda: _draw_status(out, found))
    for warning in found.warnings:
        out.warning(warning)


@command("verify", example="editkit verify\neditkit verify --head sha256:4f0c...")
@click.option("--head", metavar="DIGEST", help="A head noted earlier; the log must still hold it")
def verify(settings: Settings, head: str | None) -> int:
    """Derive every digest of the history anew, and name what was altered or is missing.

    Needs no model. The head it prints stands for the whole history: whoever keeps it elsewhere can
    tell any later change of the past.

    Exits with 3 when something is wrong.
    """
    with open_history(settings) as history:
        found = history.verify(head=head)
    out = settings.out
    out.result(found, lambda: _draw_verified(out, found))
    return 0 if found.ok else DAMAGED


def _draw_verified(out: Output, found: Verified) -> None:
    for problem in found.problems[:SHOWN]:
        out.text(f"{problem.name}: {problem.message}")
    if len(found.problems) > SHOWN:
        out.text(f"... and {len(found.problems) - SHOWN} more; --json lists them all")
    out.fields(
        ("verified", "everything holds" if found.ok else f"{len(found.problems)} problems"),
        ("checked", f"{found.checked} rows"),
        ("head", found.head or "none: the history is empty"),
    )


@command("compact", example="editkit compact")
def compact(settings: Settings) -> None:
    """Make the file smaller without losing a version.

    Writes the history anew beside the store and puts it in its place in one step, so it needs room
    for a second file. Tensors that no edit needs any more stay behind.
    """
    with open_history(settings) as history:
        done = history.compact()
    out = settings.out
    out.result(
        done, lambda: out.text(f"{done.store}: {_megabytes(done.before)}, now "
                               f"{_megabytes(done.after)}"),
    )  # fmt: skip


@command("sql", example="editkit sql 'SELECT prompt, target FROM active_edits'")
@click.argument("query", type=text)
def sql(settings: Settings, query: str) -> None:
    """Ask the history in SQL; it is open to read only.

    The views: active_edits, edit_history, operation_log, codebook_rows. With --json the rows are
    objects by the names of their columns. A query of - is read from stdin.
    """
    with open_history(settings) as history:
        found = history.sql(query)
    out = settings.out
    if out.as_json:
        out.json([dict(zip(found.columns, row, strict=True)) for row in found.rows])
        return
    flexible = [Column(name, flexible=True) for name in found.columns]
    rows = [["NULL" if cell is None else str(cell) for cell in row] for row in found.rows]
    out.table(flexible, rows)


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _draw_status(out: Output, found: Status) -> None:
    learned = [
        f"{count} on {short_digest(fingerprint)}" for fingerprint, count in found.models.items()
    ]
    out.fields(
        ("store", f"{found.store} ({_megabytes(found.store_bytes)})"),
        (
            "space",
            ", ".join(
                f"{name.replace('_', ' ')} {_megabytes(size)}"
                for name, size in found.space.items()
                if size
            ),
        ),
        ("version", found.version),
        ("edits", f"{found.edits} active"),
        ("operations", str(found.operations)),
        ("model", found.model or "none remembered"),
        ("fingerprint", found.fingerprint or ""),
        ("learned", ", ".join(learned)),
        ("tags", ", ".join(f"{name} = {version}" for name, version in found.tags.items())),
        ("schema", str(found.schema_version)),
        ("server", found.server or ""),
    )
