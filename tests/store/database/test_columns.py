"""The columns of edits are declared once, by the fields of a request."""

from __future__ import annotations

from editkit_store import Store, digest_json
from editkit_store.history.columns import EDIT
from editkit_store.records import COLUMNS, EditRequest


def test_the_table_has_the_columns_that_are_declared_in_their_order(store: Store) -> None:
    rows = store._db.query(
        "SELECT column_name FROM duckdb_columns() WHERE table_name = 'edits' ORDER BY column_index"
    )
    assert tuple(name for (name,) in rows) == EDIT
    assert set(COLUMNS) <= set(EditRequest.model_fields)


def test_a_field_that_came_later_leaves_older_requests_their_digests() -> None:
    request = EditRequest(prompt="p", target="t")
    assert digest_json(request.model_dump(mode="json")) == DIGEST
    assert digest_json(request.model_copy(update={"agent": "a"}).model_dump(mode="json")) != DIGEST


DIGEST = "sha256:342ce67bd656e84f518e0bb3a5f9e7e018757931374072ab8eac3417f1bfd383"
"""What the first editkit gave the request."""
