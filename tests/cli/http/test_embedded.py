"""The example of a service of one's own, with a tiny model in it."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from editkit_store import open_store

EXAMPLE = Path(__file__).parents[3] / "examples" / "embedded_fastapi.py"
TURNS = [{"role": "user", "content": "Which bird?"}]


@pytest.fixture
def service(
    tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestClient]:
    """The service, as long as the test runs."""
    monkeypatch.setenv("EDITKIT_MODEL", tiny_model)
    monkeypatch.setenv("EDITKIT_STORE", str(tmp_path / "history.db"))
    spec = importlib.util.spec_from_file_location("embedded_fastapi", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # FastAPI looks the annotations up in the module of the routes.
    monkeypatch.setitem(sys.modules, "embedded_fastapi", module)
    spec.loader.exec_module(module)
    with TestClient(module.app) as client:
        yield client


def test_a_correction_shows_in_the_next_answer_of_the_service_and_is_written_down(
    service: TestClient, tmp_path: Path
) -> None:
    before = service.post("/chat", json={"turns": TURNS}).json()
    said: list[Any] = []
    beside = threading.Thread(
        target=lambda: said.append(service.post("/chat", json={"turns": TURNS}))
    )
    beside.start()
    added = service.post("/corrections", json={"turns": TURNS, "target": "gold"}).json()
    beside.join()
    assert (added["verified"], added["version"]) == (True, "v1")
    assert said[0].json()["text"] in (before["text"], "gold")
    after = service.post("/chat", json={"turns": TURNS}).json()
    assert (after["text"], after["version"], after["fired"]) == (
        "gold",
        "v1",
        [added["edit"]["id"]],
    )
    refused = service.post("/corrections", json={"turns": TURNS, "target": " "})
    assert (refused.status_code, refused.json()) == (400, {"detail": "the target is empty"})
    service.__exit__(None, None, None)
    with open_store(tmp_path / "history.db") as store:
        assert store.show("v1").edit.target == "gold"
