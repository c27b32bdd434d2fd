"""Tables of the history: the log, edits, and what differs between two versions."""

from __future__ import annotations

from collections.abc import Sequence

from editkit_cli.terminal.output import Output
from editkit_cli.terminal.tables import Column, short_digest
from editkit_store.records import Edit, LogEntry
from editkit_store.records.comparisons import BehaviorChange, CodesDiff, Diff

__all__ = ["count_edits", "draw_diff", "draw_edits", "draw_log"]

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
        first = (_marked("v0", current == "v0"), "", "", "the model without edits")
        rows.append((*first, "", "", "", ", ".join(tags)))
    out.table(LOG_COLUMNS, rows)


def _marked(version: str, is_current: bool) -> str:
    return f"{'@' if is_current else ' '} {version}"


def _what(entry: LogEntry) -> str:
    said = f"{entry.prompt} → {entry.target}" if entry.prompt is not None else ""
    if entry.operation == "add":
        return said
    if entry.operation == "adjust":
        return f"{said}: {entry.detail}"
    return said if entry.operation == "revert" else entry.detail


def draw_edits(out: Output, edits: list[tuple[str, Edit]]) -> None:
    """Prints edits; each has a mark in front of it."""
    out.table(
        (Column(""), Column("edit", style="cyan"), Column("prompt", flexible=True),
         Column("target", flexible=True), Column("method")),
        [
            (mark, short_digest(edit.id), edit.prompt, edit.target, edit.method)
            for mark, edit in edits
        ],
    )  # fmt: skip


def count_edits(edits: int) -> str:
    """Returns the number of active edits, in words."""
    return f"{edits} active edit{'' if edits == 1 else 's'}"


def draw_diff(out: Output, found: Diff, *, asked: bool) -> None:
    """Prints a comparison; with the answers at both versions where the model was ``asked``."""
    out.text(f"from {found.from_} to {found.to}")
    edits = [("+", edit) for edit in found.added] + [("-", edit) for edit in found.removed]
    if edits:
        draw_edits(out, edits)
    else:
        out.text("the same edits are active")
    if found.adjusted:
        out.table(
            (Column("edit", style="cyan"), Column("adjusted prompt", flexible=True),
             Column(f"at {found.from_}"), Column(f"at {found.to}")),
            [
                (short_digest(one.edit_id), one.prompt, one.before or "", one.after or "")
                for one in found.adjusted
            ],
        )  # fmt: skip
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
