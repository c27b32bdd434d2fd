"""What happened, and moving about in it. No model is loaded, but for ``diff --behavior``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import click

from editkit_cli.group import command
from editkit_cli.local import Local
from editkit_cli.options import Settings, provenance_options, text
from editkit_cli.output import Output
from editkit_cli.session import check_store, open_history, open_model
from editkit_cli.tables import Column, short_digest
from editkit_store.errors import InvalidRequest
from editkit_store.records import Edit, LogEntry, Provenance, Shown, ViewChanged
from editkit_store.records.comparisons import BehaviorChange, CodesDiff, Diff

__all__ = [
    "diff",
    "draw_diff",
    "draw_log",
    "log",
    "redo",
    "revert",
    "rollback",
    "show",
    "tag",
    "undo",
]

LOG_COLUMNS = (
    Column("version", style="bold"),
    Column("operation"),
    Column("edit", style="cyan"),
    Column("what", flexible=True),
    Column("status"),
    Column("by"),
    Column("time", style="dim"),
    Column("tags", style="green"),
)


@command(
    "log",
    example="editkit log -n 5\neditkit log --json",
    shared=("store", "json", "nl", "quiet"),
)
@click.option("-n", "--limit", type=click.IntRange(min=1), metavar="N", help="At most so many")
@click.option("--at", metavar="V", help="The log as it stood at this version: v3, @-, a tag")
def log(settings: Settings, limit: int | None, at: str | None) -> None:
    """List the operations, newest first.

    In the table, @ marks the current version.
    """
    with open_history(settings) as history:
        found = history.logged(limit=limit, at=at)
    entries = found.entries
    origin = limit is None or len(entries) < limit  # the list goes back to the beginning
    tags = found.first_tags if origin else None
    out = settings.out
    out.result(entries, lambda: draw_log(out, entries, found.version, tags))


def draw_log(
    out: Output, entries: Sequence[LogEntry], current: str, tags: Sequence[str] | None
) -> None:
    """Prints operations; with ``tags`` (those of ``v0``) also where the history began."""
    rows: list[tuple[str, ...]] = [
        (
            _marked(entry.version, entry.changed and entry.version == current),
            entry.operation,
            short_digest(entry.edit_id or ""),
            _what(entry),
            "" if entry.status in (None, "active") else str(entry.status),
            entry.author or "",
            f"{entry.time.astimezone():%Y-%m-%d %H:%M}",
            ", ".join(entry.tags),
        )
        for entry in entries
    ]
    if tags is not None:
        first = (_marked("v0", current == "v0"), "", "", "the model as it came")
        rows.append((*first, "", "", "", ", ".join(tags)))
    out.table(LOG_COLUMNS, rows)


def _marked(version: str, is_current: bool) -> str:
    return f"{'@' if is_current else ' '} {version}"


def _what(entry: LogEntry) -> str:
    said = f"{entry.prompt} → {entry.target}" if entry.prompt is not None else ""
    if entry.operation == "add":
        return said
    return said if entry.operation == "revert" else entry.detail


@command("show", example="editkit show v3\neditkit show @-\neditkit show 1f3a0c7e91b2")
@click.argument("version", metavar="V")
def show(settings: Settings, version: str) -> None:
    """Show one version in full.

    V is a version (v3, @, @-), a tag, or the id of an edit, which shows the version that added it.
    """
    with open_history(settings) as history:
        shown = history.show(version)
    out = settings.out
    out.result(shown, lambda: _draw_shown(out, shown))


def _draw_shown(out: Output, shown: Shown) -> None:
    rows = [("version", shown.version), ("tags", ", ".join(shown.tags))]
    if shown.operation is not None:
        did = f"{shown.operation.operation} {shown.operation.detail}"
        rows += [("operation", did), ("time", f"{shown.operation.time.astimezone():%c %Z}")]
    if shown.provenance is not None:
        who = shown.provenance
        rows += [("by", who.author or ""), ("reason", who.reason or "")]
        rows += [("command", who.command or ""), ("tool", who.tool or "")]
    if shown.edit is not None:
        rows += [("edit", f"{short_digest(shown.edit.id)} ({shown.edit.status} now)")]
        rows += [("method", f"{shown.edit.method}, {shown.edit.kind}")]
        rows += [("prompt", shown.edit.prompt), ("target", shown.edit.target)]
        rows += [("rephrase", rephrase) for rephrase in shown.edit.rephrases]
    for artifact in shown.artifacts:
        verified = "verified" if artifact.verified else "not verified"
        rows.append(
            ("learned by", f"{artifact.model} [{short_digest(artifact.fingerprint)}], {verified}")
        )
    rows.append(("view", _count(shown.view)))
    out.fields(*rows)
    if shown.edits:
        out.text("")
        _draw_edits(out, [("", edit) for edit in shown.edits])


def _draw_edits(out: Output, edits: list[tuple[str, Edit]]) -> None:
    out.table(
        (Column(""), Column("edit", style="cyan"), Column("prompt", flexible=True),
         Column("target", flexible=True), Column("method")),
        [
            (mark, short_digest(edit.id), edit.prompt, edit.target, edit.method)
            for mark, edit in edits
        ],
    )  # fmt: skip


def _count(edits: int) -> str:
    return f"{edits} active edit{'' if edits == 1 else 's'}"


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
        with open_model(settings, read_only=True) as kit:
            found = kit.diff(
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


def draw_diff(out: Output, found: Diff, *, asked: bool) -> None:
    """Prints a comparison; with the answers at both versions where the model was ``asked``."""
    out.text(f"from {found.from_} to {found.to}")
    edits = [("+", edit) for edit in found.added] + [("-", edit) for edit in found.removed]
    if edits:
        _draw_edits(out, edits)
    else:
        out.text("the same edits are active")
    book = found.codebook
    out.text(
        f"codebook: {book.added} added, {book.removed} removed, "
        f"{book.radius_changed} with another radius"
    )
    if book.changed_rows:
        out.table(
            (Column("edit", style="cyan"), Column("radius before", right=True),
             Column("after", right=True)),
            [
                (short_digest(row.edit_id), f"{row.before:.4g}", f"{row.after:.4g}")
                for row in book.changed_rows
            ],
        )  # fmt: skip
    if book.missing:
        out.status(
            f"not learned by this model: {', '.join(short_digest(one) for one in book.missing)}"
        )
    if found.adaptors:
        out.table(
            (Column("adaptor"), Column("weight change (L2)", right=True),
             Column("of experts", flexible=True), Column("router drift", right=True)),
            [
                (
                    one.layer,
                    f"{one.delta_norm:.4g}",
                    ", ".join(f"{each.expert}: {each.delta_norm:.3g}" for each in one.experts),
                    f"{one.router_drift:.3g}",
                )
                for one in found.adaptors
            ],
        )  # fmt: skip
    codes = found.codes
    if codes != CodesDiff():
        out.text(
            f"codes: {len(codes.added)} added, {len(codes.removed)} removed, "
            f"{len(codes.changed)} changed"
        )
    if asked:
        _draw_behavior(out, found)


def _draw_behavior(out: Output, found: Diff) -> None:
    changed = sum(one.changed for one in found.behavior)
    out.text(f"answers: {len(found.behavior)} asked at both versions, {changed} changed")
    if found.behavior:
        out.table(
            (Column("", style="bold yellow"), Column("asked"), Column("prompt", flexible=True),
             Column(f"at {found.from_}", flexible=True), Column(f"at {found.to}", flexible=True),
             Column("fired at", style="cyan")),
            [
                (
                    "*" if one.changed else "",
                    one.kind,
                    one.prompt,
                    one.before or "(nothing)",
                    one.after or "(nothing)",
                    _fired(one, found),
                )
                for one in found.behavior
            ],
        )  # fmt: skip
    for one in found.unasked:
        out.warning(f"'{one.prompt}' ({one.kind}) cannot be asked: {one.reason}")


def _fired(one: BehaviorChange, found: Diff) -> str:
    sides = ((found.from_, one.fired_before), (found.to, one.fired_after))
    return ", ".join(dict.fromkeys(version for version, fired in sides if fired))


@command("rollback", example="editkit rollback v2\neditkit rollback prod --reason 'bad batch'")
@click.argument("version", metavar="V")
@provenance_options
def rollback(settings: Settings, version: str, reason: str | None, author: str | None) -> None:
    """Make the edits of an older version the active ones again.

    This makes a new version, so it can itself be taken back: nothing is lost.
    """
    how = settings.provenance(author=author, reason=reason)
    _change(settings, how, lambda history: history.rollback(version))


@command(
    "revert",
    example="""
        editkit revert 1f3a0c7e91b2 --reason 'the source was wrong'
        editkit revert 1f3a0c7e91b2 --defer-only
    """,
    shared=("store", "model", "json", "quiet"),
)
@click.argument("edit_id", metavar="EDIT_ID")
@click.option(
    "--defer-only",
    is_flag=True,
    help="Of an edit of ELDER: at once and without a model; no prompt reaches it any more, but "
    "what it did to the weights stays",
)
@provenance_options
def revert(
    settings: Settings, edit_id: str, defer_only: bool, reason: str | None, author: str | None
) -> None:
    """Take back one edit; later ones stay.

    EDIT_ID may be shortened as long as it stays unique.

    An edit of ELDER shares its weights with others. The model is loaded, the weights from before
    the edit come back, and the edits that came later are learned again.
    """
    how = settings.provenance(author=author, reason=reason)
    bar = settings.out.progress()
    _change(settings, how, lambda past: past.revert(edit_id, defer_only=defer_only, progress=bar))


@command("undo", example="editkit undo")
@provenance_options
def undo(settings: Settings, reason: str | None, author: str | None) -> None:
    """Take back the last change; once more goes one further back."""
    how = settings.provenance(author=author, reason=reason)
    _change(settings, how, lambda history: history.undo())


@command("redo", example="editkit undo\neditkit redo")
@provenance_options
def redo(settings: Settings, reason: str | None, author: str | None) -> None:
    """Take back the last undo."""
    how = settings.provenance(author=author, reason=reason)
    _change(settings, how, lambda history: history.redo())


def _change(settings: Settings, how: Provenance, act: Callable[[Local], ViewChanged]) -> None:
    with open_history(settings, provenance=how) as history:
        changed = act(history)
    out = settings.out
    out.status(f"{changed.operation}: {changed.detail}; now at {changed.version}")
    out.result(changed, lambda: out.text(f"{changed.version}, {_count(changed.view)}"))
    if changed.lost:
        names = ", ".join(short_digest(one) for one in changed.lost)
        out.warning(f"these edits do not give their target any more: {names}")


@command("tag", example="editkit tag v3 prod\neditkit tag @ before-import")
@click.argument("version", metavar="V")
@click.argument("name", metavar="NAME")
@provenance_options
def tag(
    settings: Settings, version: str, name: str, reason: str | None, author: str | None
) -> None:
    """Name a version; a name in use moves there."""
    how = settings.provenance(author=author, reason=reason)
    with open_history(settings, provenance=how) as history:
        tagged = history.tag(version, name)
    out = settings.out
    out.result(tagged, lambda: out.text(f"{tagged.version} is '{tagged.tag}'"))
