"""Fixtures of the tests of ELDER."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from elders import Make
from tiny import tiny_gpt2, tiny_llama

from editkit.methods.elder.part import ElderPart


@pytest.fixture(params=[tiny_llama, tiny_gpt2], ids=["llama", "gpt2"])
def make(request: pytest.FixtureRequest) -> Make:
    """Makes the same model again and again."""

    def made() -> Any:
        model = request.param()
        model.generation_config.eos_token_id = None
        return model

    return made


@pytest.fixture
def routings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each call of the routers decided on."""
    counts: list[int] = []
    route = ElderPart.select

    def counted(view: ElderPart, queries: torch.Tensor) -> Any:
        counts.append(len(queries))
        return route(view, queries)

    monkeypatch.setattr(ElderPart, "select", counted)
    return counts


@pytest.fixture
def no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EDITKIT_HOME", str(tmp_path / "home"))
