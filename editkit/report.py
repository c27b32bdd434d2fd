"""A comparison of two versions as one page of HTML that needs nothing else: no network, no script.

Loads no model and no framework; what is shown is a ``Diff`` record.
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from editkit_store.comparisons import BehaviorChange, CodebookDiff, Diff
from editkit_store.errors import StoreUnwritable
from editkit_store.records import Edit

__all__ = ["page", "write_page"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --quiet: #60646c; --line: #d9dce1;
        --back: #ffffff; --head: #f4f5f7; --came: #1a7f4b; --went: #b3372f; --mark: #fff4d6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --quiet: #9ba1a8; --line: #363b42; --back: #16181b; --head: #1f2328;
          --came: #4cc38a; --went: #ff8b82; --mark: #3a3014; } }
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: var(--ink);
       background: var(--back); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p { color: var(--quiet); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .7rem;
         border-bottom: 1px solid var(--line); white-space: pre-wrap; overflow-wrap: anywhere;
         unicode-bidi: isolate; }
th { background: var(--head); font-weight: 600; overflow-wrap: normal; }
td.id, td.number { font-family: ui-monospace, monospace; white-space: nowrap; }
.came td:first-child { color: var(--came); } .went td:first-child { color: var(--went); }
.changed { background: var(--mark); }
""".strip()

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
    target = Path(path)
    try:
        # What is no Unicode text (a lone surrogate) must not cost the whole page.
        target.write_bytes(page(found).encode("utf-8", "xmlcharrefreplace"))
    except OSError as error:
        raise StoreUnwritable(
            f"the page '{target}' cannot be written: {error.strerror}",
            path=target,
            hint="name a file in a folder that is there and can be written to",
        ) from error


def page(found: Diff) -> str:
    """Returns a comparison as one self-contained HTML page.

    Args:
        found: The comparison; its answers are on the page if it has any.
    """
    title = f"editkit: from {found.from_} to {found.to}"
    parts = [
        f"<h1>From {_text(found.from_)} to {_text(found.to)}</h1>",
        *_edits(found.added, found.removed),
        *_codebook(found.codebook),
        *_adaptors(found),
        *_behavior(found),
    ]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_text(title)}</title>",
            f"<style>\n{_STYLE}\n</style>",
            "</head>",
            "<body>",
            *parts,
            "</body>",
            "</html>",
            "",
        ]
    )


def _edits(added: Sequence[Edit], removed: Sequence[Edit]) -> list[str]:
    if not added and not removed:
        return ["<h2>Edits</h2>", "<p>The same edits are active.</p>"]
    rows = [_edit(edit, "added", "came") for edit in added]
    rows += [_edit(edit, "removed", "went") for edit in removed]
    heads = ("", "edit", "prompt", "target", "method", "by", "why")
    counts = f"<p>{len(added)} added, {len(removed)} removed.</p>"
    return ["<h2>Edits</h2>", counts, *_table(heads, rows)]


def _edit(edit: Edit, word: str, style: str) -> str:
    # In a conversation the turns before are part of what was asked.
    turns = [f"{turn.role}: {turn.content}" for turn in edit.chat or ()]
    prompt = "\n".join(turns) or edit.prompt
    return _row(
        [
            _cell(word),
            _cell(_short(edit.id), "id"),
            _cell(prompt),
            _cell(edit.target),
            _cell(f"{edit.method}, {edit.kind}"),
            _cell(edit.author or ""),
            _cell(edit.reason or ""),
        ],
        style,
    )


def _codebook(book: CodebookDiff) -> list[str]:
    if book.fingerprint is None:
        return []
    counts = (
        f"<p>Model {_text(_short(book.fingerprint))}: {book.added} added, {book.removed} removed, "
        f"{book.radius_changed} with another radius.</p>"
    )
    rows = [_radius("added", r.edit_id, None, r.radius, "came") for r in book.added_rows]
    rows += [_radius("removed", r.edit_id, r.radius, None, "went") for r in book.removed_rows]
    rows += [_radius("radius", r.edit_id, r.before, r.after, "") for r in book.changed_rows]
    heads = ("", "edit", "radius before", "radius after")
    table = _table(heads, rows) if rows else []
    missing = ", ".join(_short(one) for one in book.missing)
    said = [f"<p>Not learned by this model: {_text(missing)}.</p>"] if missing else []
    return ["<h2>Codebook</h2>", counts, *table, *said]


def _radius(word: str, edit_id: str, before: float | None, after: float | None, style: str) -> str:
    numbers = ["" if number is None else f"{number:.4g}" for number in (before, after)]
    cells = [_cell(word), _cell(_short(edit_id), "id"), *(_cell(n, "number") for n in numbers)]
    return _row(cells, style)


def _adaptors(found: Diff) -> list[str]:
    if not found.adaptors:
        return []
    rows = [
        _row([_cell(one.layer, "id"), _cell(f"{one.delta_norm:.4g}", "number")])
        for one in found.adaptors
    ]
    return ["<h2>Adaptors</h2>", *_table(("adaptor", "weight change (L2)"), rows)]


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
            parts += [f"<h3>{_text(heading)}</h3>", *_table(heads, rows)]
    if found.unasked:
        rows = [
            _row([_cell(one.kind), _cell(_short(one.edit_id), "id"), _cell(one.prompt),
                  _cell(one.reason)])
            for one in found.unasked
        ]  # fmt: skip
        parts += ["<h3>Not asked</h3>", *_table(("", "edit", "prompt", "reason"), rows)]
    return parts


def _answers(one: BehaviorChange, found: Diff) -> str:
    fired = [
        f"{_short(edit_id)} at {version}"
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
    return _row([_cell(text) for text in cells], "changed" if one.changed else "")


def _table(heads: Sequence[str], rows: Iterable[str]) -> list[str]:
    head = "".join(f"<th>{_text(one)}</th>" for one in heads)
    return [
        '<div class="wide"><table>',
        f"<thead><tr>{head}</tr></thead>",
        "<tbody>",
        *rows,
        "</tbody>",
        "</table></div>",
    ]


def _row(cells: Iterable[str], style: str = "") -> str:
    return f'<tr class="{style}">{"".join(cells)}</tr>' if style else f"<tr>{''.join(cells)}</tr>"


def _cell(text: str, style: str = "") -> str:
    return f'<td class="{style}">{_text(text)}</td>' if style else f"<td>{_text(text)}</td>"


def _text(text: str) -> str:
    """Returns any text as HTML that shows it; control characters have no place in a page."""
    kept = "".join(c if c >= " " and c != "\x7f" or c in "\n\t" else "\ufffd" for c in text)
    return html.escape(kept)


def _short(digest: str) -> str:
    return digest.rpartition(":")[2][:12]
