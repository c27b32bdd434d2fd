"""Verification in DuckDB: finds the additions to a history that are intact.

An addition is *whole* if its operation follows the one before it and matches its digest, and if its
edit and its artifact exist and match theirs. SQL builds the digested texts as
``digest.canonical_json`` does. If the two differ (an exponent, a control character), the digests
differ too, the addition does not count as whole, and ``verify`` checks it in Python, like all other
operations and any damage. Whatever counts as whole here has the right digest, however the text was
built.
"""

from __future__ import annotations

from editkit_store.artifacts.artifacts import ROW
from editkit_store.records import COLUMNS

__all__ = ["DOUBTFUL_ARTIFACTS", "DOUBTFUL_EDITS", "DOUBTFUL_OPERATIONS", "OPERATION"]

OPERATION = (
    "seq", "kind", "version", "changed", "edit_id", "target_version", "undo_version",
    "redo_version", "active_count", "time", "fingerprint", "provenance", "detail",
    "parent_digest", "digest",
)  # fmt: skip
"""Columns of an operation, in the order in which they are verified and exported."""


def _joined(*parts: str) -> str:
    # Not `||`, which copies the text for every part. concat() skips NULL: nullable columns are
    # converted to text first, and if another column is NULL, the digest does not match.
    return f"concat({', '.join(parts)})"


def _listed(*parts: str) -> str:
    return ", ',', ".join(parts)


def _text(column: str) -> str:
    return f"coalesce(CAST(to_json({column}) AS VARCHAR), 'null')"


def _number(column: str) -> str:
    return f"coalesce(CAST({column} AS VARCHAR), 'null')"


def _flag(column: str) -> str:
    return f"CASE WHEN {column} THEN 'true' ELSE 'false' END"


def _time(column: str) -> str:
    fraction = (
        f"CASE WHEN microsecond({column}) % 1000000 = 0 THEN '' ELSE strftime({column}, '.%f') END"
    )
    return _joined("'\"'", f"strftime({column}, '%Y-%m-%dT%H:%M:%S')", fraction, "'\"'")


def _object(values: dict[str, str]) -> str:
    """Returns SQL for a JSON object of texts that are JSON already; keys are sorted."""
    fields = _listed(*(f"'\"{key}\":', {values[key]}" for key in sorted(values)))
    return _joined("'{'", fields, "'}'")


def _digest(text: str) -> str:
    return f"('sha256:' || sha256({text}))"


_OPERATION_TEXT = _object(
    {
        "active_count": "o.active_count",
        "changed": _flag("o.changed"),
        "detail": "o.detail",
        "edit_id": _text("o.edit_id"),
        "fingerprint": _text("o.fingerprint"),
        "kind": _text("o.kind"),
        "membership": "'[', m.entries, ']'",
        "parent_digest": _text("o.parent_digest"),
        "provenance": "o.provenance",
        "redo_version": _number("o.redo_version"),
        "seq": "o.seq",
        "target_version": _number("o.target_version"),
        "time": _time("o.time"),
        "undo_version": _number("o.undo_version"),
        "version": "o.version",
    }
)

# In the order of artifacts.ROW.
_ARTIFACT_TEXT = _joined(
    "'['",
    _listed(
        *map(_text, ("a.edit_id", "a.fingerprint", "a.model", "a.method")),
        *map(_flag, ("a.verified", "a.usable")),
        *map(_text, ("a.digest", "a.metrics", "a.conflicts")),
        _number("a.radius"),
        _time("a.learned_at"),
    ),
    "']'",
)

_MEMBER_TEXT = _joined("'['", _listed("version", _text("edit_id"), _flag("member")), "']'")

_FOLLOWS = """
    o.seq = b.seq_before + 1 AND o.version = b.version_before + CAST(o.changed AS INTEGER)
    AND o.parent_digest IS NOT DISTINCT FROM b.digest_before
"""

# Anything else in an operation about edits and models is checked in Python.
_SAYS = """
    TRY(json_extract_string(o.detail, ['$.request', '$.record', '$.requests', '$.records',
        '$.snapshots'])) = [e.request_digest, a.record_digest, NULL, NULL, NULL]
"""

# The prompt digest of a conversation is computed in Python.
_FIELDS = ", ".join(f"'$.{name}'" for name in (*COLUMNS, "chat"))
_VALUES = ", ".join((*(f"e.{name}" for name in COLUMNS), "NULL"))

_EDIT = f"""
    e.added_at = o.time AND e.request_digest = {_digest("e.request")}
    AND TRY(json_extract_string(e.request, [{_FIELDS}])) = [{_VALUES}]
    AND e.prompt_digest = {_digest(_text("e.prompt"))}
"""

_ARTIFACT = f"""
    a.record_digest = {_digest(_ARTIFACT_TEXT)}
    AND (a.digest IS NOT NULL OR NOT a.usable)
"""

DOUBTFUL_OPERATIONS = f"""
    WITH before AS (
        SELECT seq, lag(seq, 1, 0) OVER log AS seq_before,
               lag(version, 1, 0) OVER log AS version_before, lag(digest) OVER log AS digest_before
        FROM operations WINDOW log AS (ORDER BY seq)
    ), entries AS (
        SELECT version, {_MEMBER_TEXT} AS entry
        FROM membership
    ), members AS (
        -- An addition adds one edit and supersedes at most one. Python checks operations that do
        -- more: sorting lists of one element costs more than making them.
        SELECT version, CASE count(*) WHEN 1 THEN min(entry)
            WHEN 2 THEN concat(min(entry), ',', max(entry)) ELSE 'more' END AS entries
        FROM entries GROUP BY version
    )
    SELECT {", ".join(f"o.{column}" for column in OPERATION)},
           b.seq_before, b.version_before, b.digest_before
    FROM operations o
    JOIN before b USING (seq)
    LEFT JOIN members m ON o.changed AND m.version = o.version
    LEFT JOIN edits e ON e.seq = o.seq AND e.edit_id = o.edit_id
    LEFT JOIN artifacts a ON a.edit_id = o.edit_id AND a.fingerprint = o.fingerprint
    WHERE NOT coalesce(
        o.kind = 'add' AND {_FOLLOWS} AND {_SAYS} AND {_EDIT} AND {_ARTIFACT}
        AND o.digest = {_digest(_OPERATION_TEXT)}, false)
    AND o.seq BETWEEN $1 AND $2
    ORDER BY o.seq
"""
"""Operations from $1 to $2 that are not whole additions, each with the one before it."""

DOUBTFUL_EDITS = f"""
    SELECT edit_id, e.seq, request, request_digest, prompt_digest, added_at,
           {", ".join(f"e.{name}" for name in COLUMNS)}
    FROM edits e LEFT JOIN operations o USING (seq, edit_id)
    WHERE o.kind IS DISTINCT FROM 'add' OR e.seq IN (SELECT unnest(CAST($1 AS BIGINT[])))
    ORDER BY ordinal
"""
"""Edits without a whole addition; $1: the operations that are not whole additions."""

DOUBTFUL_ARTIFACTS = f"""
    SELECT {", ".join(f"a.{column}" for column in ROW.split(", "))}, a.record_digest,
           o.seq IS NOT NULL AS is_whole
    FROM artifacts a LEFT JOIN (
        SELECT seq, edit_id, fingerprint FROM operations
        WHERE kind = 'add' AND seq NOT IN (SELECT unnest(CAST($1 AS BIGINT[])))
    ) o ON o.edit_id = a.edit_id AND o.fingerprint = a.fingerprint
    WHERE o.seq IS NULL OR a.edit_id IN (SELECT unnest(CAST($2 AS VARCHAR[])))
"""
"""Artifacts without a whole addition, and those of the edits $2, which other operations refer to;
each with whether it belongs to a whole addition."""
