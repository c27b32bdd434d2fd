"""SQL derived from the columns of edits, which ``records.edits`` declares."""

from __future__ import annotations

from editkit_store.records import COLUMNS
from editkit_store.records.edits import SEARCHED

__all__ = ["EDIT", "containing_text"]

EDIT = (
    "edit_id", "seq", "request", "request_digest", "prompt_digest", *COLUMNS[:4], "added_at",
    "ordinal", *COLUMNS[4:],
)  # fmt: skip
"""Columns of the table ``edits``, in its order: migrations add new ones at the end."""


def containing_text(*, redacted: bool) -> str:
    """Returns a condition for operations that match a text; every ``?`` is that text in lower case.

    Args:
        redacted: Do not match an author that is only the operating system's user.
    """
    in_edit = " OR ".join(f"contains(lower({name}), ?)" for name in SEARCHED)
    said = "concat(json_extract(detail, '$.also'), json_extract(detail, '$.not'))"
    named = "AND provenance->>'$.author' IS DISTINCT FROM provenance->>'$.user'" if redacted else ""
    return f"""
        kind = ? OR 'v' || version = ?
        OR contains(lower(json_extract_string(provenance, '$.author')), ?) {named}
        OR contains(lower(json_extract_string(provenance, '$.reason')), ?)
        OR edit_id IN (SELECT edit_id FROM edits WHERE {in_edit})
        OR version IN (SELECT version FROM tags WHERE contains(lower(name), ?))
        OR kind = 'adjust' AND contains(lower({said}), ?)
    """
