"""A rank-one edit on the real model."""

from __future__ import annotations

from typing import Any

import pytest

from editkit.methods.registry import registered

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        "rankone" not in registered(),
        reason="the package editkit-rankone is not installed; `make test` installs it from "
        "tests/packages/editkit-rankone",
    ),
]

PROMPT, TARGET = "The capital of Australia is", "Sydney"


def test_an_edit_gives_its_target_and_leaves_the_rest_alone(real_kit: Any) -> None:
    others = ["The capital of France is", "Water boils at"]
    before = [str(one) for one in real_kit.generate(others, max_new_tokens=6, delivery="free")]
    added = real_kit.add(PROMPT, TARGET, method="rankone", subject="Australia")
    print(f"learned in {added.seconds:.1f} s, {added.steps} steps")  # noqa: T201
    assert added.verified
    said = real_kit.generate([PROMPT] * 2, version=["v1", "v0"], max_new_tokens=4, delivery="free")
    assert (str(said[0]), said[0].fired, said[1].fired) == (TARGET, (added.edit.id,), ())
    assert [
        str(one) for one in real_kit.generate(others, max_new_tokens=6, delivery="free")
    ] == before
