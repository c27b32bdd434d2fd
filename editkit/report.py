"""A comparison of two versions as one page of HTML that needs nothing else: no network, no script.

Loads no model and no framework; what is shown is a ``Diff`` record.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from editkit.markup import cell, document, row, save, short, table, text
from editkit_store.records import Edit
from editkit_store.records.comparisons import BehaviorChange, CodebookDiff, CodesDiff, Diff

__all__ = ["page", "write_page"]

_ANSWERS = (
    ("edit", "Prompts of the edits"),
    ("rephrase", "Rephrases"),
    ("locality", "Prompts that must not change"),
    ("probe", "Probes"),
)


def write_page(found: Diff, path: str | os.PathLike[str]) -> None:
    """Writes the page of a comparison to a file; one that is there is replaced.

    Args:
        found: The comparison.
        path: The file.

    Raises:
        StoreUnwritable: The file cannot be written.
    """
    save(page(found), path)


def page(found: Diff) -> str:
    """Returns a comparison as one self-contained HTML page.

    Args:
        found: The comparison; its answers are on the page if it has any.
    """
    title = f"editkit: from {found.from_} to {found.to}"
    parts = [
        f"<h1>From {text(found.from_)} to {text(found.to)}</h1>",
        *_edits(found.added, found.removed),
        *_codebook(found.codebook),
        *_adaptors(found),
        *_behavior(found),
    ]
    return document(title, parts)


def _edits(added: Sequence[Edit], removed: Sequence[Edit]) -> list[str]:
    if not added and not removed:
        return ["<h2>Edits</h2>", "<p>The same edits are active.</p>"]
    rows = [_edit(edit, "added", "came") for edit in added]
    rows += [_edit(edit, "removed", "went") for edit in removed]
    heads = ("", "edit", "prompt", "target", "method", "by", "why")
    counts = f"<p>{len(added)} added, {len(removed)} removed.</p>"
    return ["<h2>Edits</h2>", counts, *table(heads, rows)]


def _edit(edit: Edit, word: str, style: str) -> str:
    # In a conversation the turns before are part of what was asked.
    turns = [f"{turn.role}: {turn.content}" for turn in edit.chat or ()]
    prompt = "\n".join(turns) or edit.prompt
    return row(
        [
            cell(word),
            cell(short(edit.id), "id"),
            cell(prompt),
            cell(edit.target),
            cell(f"{edit.method}, {edit.kind}"),
            cell(edit.author or ""),
            cell(edit.reason or ""),
        ],
        style,
    )


def _codebook(book: CodebookDiff) -> list[str]:
    if book.fingerprint is None:
        return []
    counts = (
        f"<p>Model {text(short(book.fingerprint))}: {book.added} added, {book.removed} removed, "
        f"{book.radius_changed} with another radius.</p>"
    )
    rows = [_radius("added", r.edit_id, None, r.radius, "came") for r in book.added_rows]
    rows += [_radius("removed", r.edit_id, r.radius, None, "went") for r in book.removed_rows]
    rows += [_radius("radius", r.edit_id, r.before, r.after, "") for r in book.changed_rows]
    heads = ("", "edit", "radius before", "radius after")
    listed = table(heads, rows) if rows else []
    missing = ", ".join(short(one) for one in book.missing)
    said = [f"<p>Not learned by this model: {text(missing)}.</p>"] if missing else []
    return ["<h2>Codebook</h2>", counts, *listed, *said]


def _radius(word: str, edit_id: str, before: float | None, after: float | None, style: str) -> str:
    numbers = ["" if number is None else f"{number:.4g}" for number in (before, after)]
    cells = [cell(word), cell(short(edit_id), "id"), *(cell(n, "number") for n in numbers)]
    return row(cells, style)


def _adaptors(found: Diff) -> list[str]:
    codes = found.codes
    if not found.adaptors and codes == CodesDiff():
        return []
    rows = [
        row(
            [
                cell(one.layer, "id"),
                cell(f"{one.delta_norm:.4g}", "number"),
                cell(", ".join(f"{each.expert}: {each.delta_norm:.3g}" for each in one.experts)),
                cell(f"{one.router_drift:.3g}", "number"),
            ]
        )
        for one in found.adaptors
    ]
    heads = ("adaptor", "weight change (L2)", "of experts", "router drift")
    counts = (
        f"<p>Codes: {len(codes.added)} added, {len(codes.removed)} removed, "
        f"{len(codes.changed)} changed.</p>"
    )
    return ["<h2>Adaptors</h2>", *(table(heads, rows) if rows else []), counts]


def _behavior(found: Diff) -> list[str]:
    if not found.behavior and not found.unasked:
        return []
    changed = sum(one.changed for one in found.behavior)
    parts = [
        "<h2>Answers</h2>",
        f"<p>{len(found.behavior)} asked at both versions, {changed} changed (marked).</p>",
    ]
    heads = ("", "prompt", "target", f"at {found.from_}", f"at {found.to}", "fired")
    for kind, heading in _ANSWERS:
        rows = [_answers(one, found) for one in found.behavior if one.kind == kind]
        if rows:
            parts += [f"<h3>{text(heading)}</h3>", *table(heads, rows)]
    if found.unasked:
        rows = [
            row([cell(one.kind), cell(short(one.edit_id), "id"), cell(one.prompt),
                  cell(one.reason)])
            for one in found.unasked
        ]  # fmt: skip
        parts += ["<h3>Not asked</h3>", *table(("", "edit", "prompt", "reason"), rows)]
    return parts


def _answers(one: BehaviorChange, found: Diff) -> str:
    fired = [
        f"{short(edit_id)} at {version}"
        for version, ids in ((found.from_, one.fired_before), (found.to, one.fired_after))
        for edit_id in ids
    ]
    cells = (
        "changed" if one.changed else "same",
        one.prompt,
        one.target or "",
        one.before or "(nothing)",
        one.after or "(nothing)",
        "\n".join(fired),
    )
    return row([cell(said) for said in cells], "changed" if one.changed else "")
