"""The log a page at a time, and what is found in it."""

from __future__ import annotations

import pytest
from conftest import append

from editkit_store import Store
from editkit_store.records import LogEntry


def test_pages_of_the_log_join_up_to_all_of_it(store: Store) -> None:
    for number in range(5):
        append(store, f"prompt {number}", "target")
    store.tag("v2", "prod")  # an entry of its own
    everything = store.log()
    pages: list[LogEntry] = []
    before = None
    while page := store.log(limit=4, before=before):
        pages += page
        before = page[-1].seq
    assert pages == everything
    assert len(everything) == 6


@pytest.mark.parametrize(
    ("text", "versions"),
    [
        ("SKY", ["v1"]), ("blau", ["v1"]), ("Ada", ["v2"]), ("misspelt", ["v2"]),
        ("v3", ["v3", "v3"]), ("tag", ["v3"]), ("prod", ["v2"]), ("%", []), ("_", []), ("'", []),
        ("add", ["v3", "v2", "v1"]), ("", ["v3", "v3", "v2", "v1"]),
    ],
)  # fmt: skip
def test_the_log_finds_text_wherever_a_reader_sees_it(
    store: Store, text: str, versions: list[str]
) -> None:
    append(store, "The sky is", "Blau")
    append(store, "2 + 2 =", "4", author="ada", reason="It was misspelt")
    append(store, "grass", "green")
    store.tag("v2", "prod")
    assert [one.version for one in store.log(containing=text)] == versions
