"""Work that is cut off, and changes that this model cannot follow: nothing is lost or half done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_gpt2, tiny_tokenizer

import editkit
from editkit import Kit
from editkit.errors import ArtifactsMissing

FACTS = [("red cat", "blue"), ("tall tree", "two"), ("see Oslo", "fish"), ("gold", "Ada")]


def requests() -> list[dict[str, str]]:
    return [{"prompt": prompt, "target": target} for prompt, target in FACTS]


@pytest.mark.parametrize("reached", [1, 3])
def test_what_was_verified_before_an_interruption_is_kept_and_in_effect(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, reached: int
) -> None:
    plain, calls = kit.methods.of("grace").finalize, iter(range(10))

    def settle(*args: Any, **options: Any) -> Any:
        if next(calls) == reached:
            raise KeyboardInterrupt
        return plain(*args, **options)

    monkeypatch.setattr(kit.methods.of("grace"), "finalize", settle)
    with pytest.raises(KeyboardInterrupt):
        kit.add_many(requests())
    monkeypatch.undo()
    assert kit.version == f"v{reached}"
    assert [str(kit.generate(prompt, delivery="free")) == target for prompt, target in FACTS] == [
        number < reached for number in range(len(FACTS))
    ]
    assert kit.store.verify().ok
    assert kit.add_many(requests()[reached:])[-1].verified
    assert [str(kit.generate(prompt, delivery="free")) for prompt, _ in FACTS] == [
        target for _, target in FACTS
    ]


def test_a_caller_that_breaks_off_in_between_finds_all_that_was_committed(kit: Kit) -> None:
    def told(_: Any) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        kit.add_many(requests(), told=told)
    assert kit.version == f"v{len(FACTS)}"
    assert [str(kit.generate(prompt, delivery="free")) for prompt, _ in FACTS] == [
        target for _, target in FACTS
    ]


def test_undo_and_redo_refuse_what_this_model_has_not_learned(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    with editkit.open(path, model=(tiny_gpt2(), tiny_tokenizer())) as kit:
        edit = kit.add("red cat", "blue").edit
        kit.revert(edit.id)
    other = tiny_gpt2(seed=3), tiny_tokenizer()
    with editkit.open(path, model=other) as kit:
        with pytest.raises(ArtifactsMissing):
            kit.undo()
        assert (kit.version, kit.store.version()) == ("v2", "v2")
        kit.add("gold", "Ada")
        kit.undo()
        kit.redo()
        assert str(kit.generate("gold", delivery="free")) == "Ada"
    with editkit.open(path, model=(tiny_gpt2(), tiny_tokenizer()), missing="skip") as kit:
        kit.rollback("v1")
        kit.undo()
    with editkit.open(path, model=other) as kit:
        before = kit.store.version()
        with pytest.raises(ArtifactsMissing):
            kit.redo()
        assert kit.store.version() == before
    with editkit.open(path, model=other) as kit:
        assert kit.store.verify().ok
