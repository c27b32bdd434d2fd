"""Fixtures: a frozen clock, a store, a tiny kit, and where the shared data lies."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from editkit_store import Store, digest_bytes, open_store
from editkit_store.records import Artifact, Edit, EditRequest

# Most tests are about something else than which edit a prompt asks for, and the prompts of tiny
# models mean nothing: methods' own keys decide, as long as a test does not say `judge=`.
os.environ.setdefault("EDITKIT_JUDGE", "none")

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def settings() -> dict[str, str]:
    """What the environment says to editkit."""
    return {name: value for name, value in os.environ.items() if name.startswith("EDITKIT_")}


@pytest.fixture(scope="module", autouse=True)
def environment_as_found() -> Iterator[None]:
    """A file of tests that leaves settings behind fails itself, not the files after it."""
    before = settings()
    yield
    assert settings() == before


@pytest.fixture
def clock() -> Callable[[], datetime]:
    """Every look is one second later."""
    ticks = iter(range(10**9))
    return lambda: START + timedelta(seconds=next(ticks))


@pytest.fixture
def store(tmp_path: Path, clock: Callable[[], datetime]) -> Iterator[Store]:
    with open_store(tmp_path / "history.db", write=True, create=True, clock=clock) as opened:
        yield opened


def append(store: Store, prompt: str, target: str, *, activate: bool = True, **fields: Any) -> Edit:
    """Adds an edit with a made-up artifact, as a model would."""
    edit = store.prepare(EditRequest(prompt=prompt, target=target, **fields))
    payload = f"{prompt}->{target}".encode()
    artifact = Artifact(
        edit_id=edit.id,
        fingerprint="sha256:model",
        model="some-model",
        method="grace",
        verified=activate,
        usable=activate,
        digest=digest_bytes(payload) if activate else None,
    )
    _, edit = store.add(
        edit, artifact=artifact, payload=payload if activate else None, activate=activate
    )
    return edit


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Any]:
    """A tiny GPT-2 with an empty history."""
    from tiny import tiny_gpt2, tiny_tokenizer

    import editkit

    with editkit.open(tmp_path / "kit.db", model=(tiny_gpt2(), tiny_tokenizer())) as opened:
        yield opened


def data_file(name: str) -> Path:
    """A file of real edit data, or a skip that says where it is looked for."""
    folder = Path(os.environ.get("EDITKIT_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / name).exists():
        pytest.skip(f"the edit data '{name}' is not in '{folder}'; set EDITKIT_DATA to its folder")
    return folder / name


def data_rows(name: str, count: int) -> list[dict[str, Any]]:
    with data_file(name).open(encoding="utf-8") as lines:
        return [json.loads(line) for _, line in zip(range(count), lines, strict=False)]
