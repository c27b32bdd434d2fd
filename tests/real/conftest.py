"""Tests on real models: `smollm2-135m`, fetched once into the cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from editkit_store import EditkitError


@pytest.fixture(scope="session")
def smollm() -> Any:
    """The real model, loaded once."""
    from editkit.models import load_model

    try:
        loaded = load_model("smollm2-135m")
    except EditkitError as error:
        pytest.skip(f"smollm2-135m cannot be fetched here: {error}")
    return loaded


@pytest.fixture
def real_kit(smollm: Any, tmp_path: Path) -> Iterator[Any]:
    import editkit

    with editkit.open(tmp_path / "h.db", model=(smollm.model, smollm.tokenizer)) as kit:
        yield kit
