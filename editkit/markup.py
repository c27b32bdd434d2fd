"""Pages of HTML that need nothing else: no network, no script; what all of them have in common.

Whatever a record says is text on such a page, never markup: everything passes ``text``.
"""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from editkit_store.database.outputs import write_output
from editkit_store.errors import StoreUnwritable

__all__ = ["STYLE", "cell", "document", "row", "save", "short", "table", "text"]

STYLE = """
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


def document(title: str, parts: Iterable[str], *, style: str = STYLE) -> str:
    """Returns a whole page.

    Args:
        title: Its title, any text.
        parts: The lines of its body, HTML.
        style: Its style sheet; no text from a record.
    """
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{text(title)}</title>",
            f"<style>\n{style}\n</style>",
            "</head>",
            "<body>",
            *parts,
            "</body>",
            "</html>",
            "",
        ]
    )


def save(page: str, path: str | os.PathLike[str]) -> None:
    """Writes a page to a file; one that is there is replaced.

    Args:
        page: The page.
        path: The file.

    Raises:
        StoreUnwritable: The file cannot be written.
        UnsafeTarget: It is a store, or belongs to one.
    """
    target = Path(path)
    try:
        # What is no Unicode text (a lone surrogate) must not cost the whole page.
        write_output(target, page.encode("utf-8", "xmlcharrefreplace"))
    except OSError as error:
        raise StoreUnwritable(
            f"the page '{target}' cannot be written: {error.strerror}",
            path=target,
            hint="name a file in a folder that is there and can be written to",
        ) from error


def table(heads: Sequence[str], rows: Iterable[str]) -> list[str]:
    """Returns the lines of a table.

    Args:
        heads: Text of the cells of its head.
        rows: Its rows, HTML.
    """
    head = "".join(f"<th>{text(one)}</th>" for one in heads)
    return [
        '<div class="wide"><table>',
        f"<thead><tr>{head}</tr></thead>",
        "<tbody>",
        *rows,
        "</tbody>",
        "</table></div>",
    ]


def row(cells: Iterable[str], style: str = "") -> str:
    """Returns a row of cells, which are HTML; ``style`` is its class."""
    return f'<tr class="{style}">{"".join(cells)}</tr>' if style else f"<tr>{''.join(cells)}</tr>"


def cell(said: str, style: str = "") -> str:
    """Returns a cell that shows a text; ``style`` is its class."""
    return f'<td class="{style}">{text(said)}</td>' if style else f"<td>{text(said)}</td>"


def text(said: str) -> str:
    """Returns any text as HTML that shows it; control characters have no place in a page."""
    kept = "".join(c if c >= " " and c != "\x7f" or c in "\n\t" else "\ufffd" for c in said)
    return html.escape(kept)


def short(digest: str) -> str:
    """Returns the beginning of a digest, enough to tell it from others."""
    return digest.rpartition(":")[2][:12]
