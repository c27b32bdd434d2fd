"""Edits of a method that is not installed, and a method that fails while it learns."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from strangers import PARROT, Strangers
from tiny import tiny_gpt2, tiny_tokenizer

import editkit
from editkit.errors import UnsupportedMethod
from editkit.history.status import status
from editkit_store import open_store

PROMPT = "The capital of Australia is"


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Strangers]:
    found = Strangers(tmp_path / "site", monkeypatch)
    yield found
    found.close()


def opened(path: Path, *, seed: int = 0, **options: Any) -> Any:
    return editkit.open(path, model=(tiny_gpt2(seed), tiny_tokenizer()), **options)


@pytest.fixture
def path(strangers: Strangers, tmp_path: Path) -> Path:
    """A history with two edits of a method that was installed then, and one of GRACE."""
    where = tmp_path / "history.db"
    strangers.install("editkit-parrot")
    with opened(where) as kit:
        assert kit.add(PROMPT, "Canberra").verified
        assert kit.add("red cat", "blue", method="parrot").verified
        assert kit.add("tall tree", "green", method="parrot").verified
    strangers.uninstall("editkit-parrot")
    return where


def test_it_opens_says_which_package_to_install_and_answers_without_them(path: Path) -> None:
    with pytest.warns(UserWarning, match="install 'editkit-parrot'") as told:
        kit = opened(path)
    with kit:
        (warning,) = [str(one.message) for one in told if "parrot" in str(one.message)]
        assert warning.startswith("2 active edits were made with the method 'parrot'")
        assert kit.version == "v3"
        assert kit.generate(PROMPT, max_new_tokens=4).text.strip() == "Canberra"
        assert kit.generate("red cat", max_new_tokens=4).fired == ()
        assert kit.explain("red cat").fired is None
        with pytest.raises(UnsupportedMethod, match="there is no method 'parrot'") as caught:
            kit.add("see Oslo", "blue", method="parrot")
        assert caught.value.hint == "install 'editkit-parrot', the package that the history records"
        assert kit.version == "v3"


def test_it_lists_compares_and_verifies_them_without_a_model(path: Path) -> None:
    with open_store(path) as store:
        assert [entry.method for entry in store.log()] == ["parrot", "parrot", "grace"]
        (artifact,) = store.show("v2").artifacts
        assert (artifact.method, artifact.metrics["package"]) == ("parrot", "editkit-parrot")
        assert [edit.target for edit in store.show("@").edits] == ["Canberra", "blue", "green"]
        assert store.verify().problems == ()
        from editkit.history.diff import diff

        assert [edit.method for edit in diff(store, "v1", "@").added] == ["parrot", "parrot"]
        (warning,) = status(store).warnings
        assert "install 'editkit-parrot'" in warning


@pytest.mark.filterwarnings("ignore:.*method 'parrot'")
def test_the_history_goes_on_around_them(path: Path, strangers: Strangers) -> None:
    with opened(path) as kit:
        first = kit.show("v2").edit
        assert kit.add("see Oslo", "red").verified
        kit.revert(first.id)
        kit.undo()
        kit.rollback("v1")
        kit.undo()
        assert [e.target for e in kit.show("@").edits] == ["Canberra", "blue", "green", "red"]
        assert kit.store.verify().problems == ()
        assert [one.kind for one in kit.diff("v0", "@", behavior=True).behavior] == ["edit"] * 4
    # Installed again, it knows what it had learned.
    strangers.install("editkit-parrot")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with opened(path) as kit:
            assert first.id in kit.methods.get("parrot")
            assert kit.status().warnings == ()


@pytest.mark.filterwarnings("ignore:.*method 'parrot'")
def test_a_replay_learns_the_others_and_leaves_them_to_a_later_one(
    path: Path, strangers: Strangers
) -> None:
    with opened(path, seed=3, missing="skip") as kit:
        done = kit.replay()
        assert (done.learned, done.failed) == (1, 2)
        assert all("no method 'parrot'" in one.reason for one in done.failures)
        assert kit.generate(PROMPT, max_new_tokens=4).text.strip() == "Canberra"
        assert kit.store.verify().problems == ()
    strangers.install("editkit-parrot")
    with opened(path, seed=3, missing="skip") as kit:
        done = kit.replay()
        assert (done.restored, done.learned, done.failed) == (1, 2, 0)


@pytest.mark.filterwarnings("ignore:.*method 'parrot'")
def test_a_bundle_brings_them_to_another_history(path: Path, tmp_path: Path) -> None:
    with open_store(path) as store:
        store.export(tmp_path / "bundle")
    with opened(tmp_path / "new.db") as kit:
        assert len(kit.import_bundle(tmp_path / "bundle").active) == 3
        assert kit.generate(PROMPT, max_new_tokens=4).text.strip() == "Canberra"
        assert kit.store.verify().problems == ()
        assert kit.store.artifacts.package_of("parrot") == "editkit-parrot"


def test_what_cannot_be_the_name_of_a_package_is_not_repeated(
    strangers: Strangers, tmp_path: Path
) -> None:
    code = PARROT.replace(
        "    def to_bytes", "    package = 'evil; rm -rf ~'\n\n    def to_bytes"
    ).replace(
        "    def reload(self):", "    def reload(self):\n        self.package = 'evil; rm -rf ~'"
    )
    strangers.install("editkit-parrot", code)
    with opened(tmp_path / "h.db") as kit:
        assert kit.add("red cat", "blue", method="parrot").verified
    strangers.uninstall("editkit-parrot")
    with pytest.warns(UserWarning, match="install the package that provides it"):
        opened(tmp_path / "h.db").close()


def test_a_method_that_raises_while_it_learns_leaves_nothing_behind(
    strangers: Strangers, tmp_path: Path
) -> None:
    strangers.install("editkit-parrot")
    with opened(tmp_path / "h.db") as kit:
        kit.add(PROMPT, "Canberra")
        before = kit.store.log()
        for requests in (
            [{"prompt": "red cat", "target": "raise", "method": "parrot"}],
            [
                {"prompt": "tall tree", "target": "blue", "method": "parrot"},
                {"prompt": "red cat", "target": "raise", "method": "parrot"},
            ],
        ):
            with pytest.raises(RuntimeError, match="the parrot is dead"):
                kit.add_many(requests)
        assert kit.store.log() == before
        assert kit.store.artifacts.attempted(kit.fingerprint) == {before[0].edit_id}
        assert kit.version == "v1"
        assert kit.store.verify().problems == ()
        # And the next edit goes on from there.
        assert kit.add("red cat", "blue", method="parrot").verified
        assert kit.generate(PROMPT, max_new_tokens=4).text.strip() == "Canberra"


def test_a_replay_of_a_method_that_raises_keeps_what_was_learned_before(
    strangers: Strangers, tmp_path: Path
) -> None:
    strangers.install("editkit-parrot", PARROT.replace('== "raise"', '== "never"'))
    with opened(tmp_path / "h.db") as kit:
        kit.add(PROMPT, "Canberra")
        kit.add("red cat", "raise", method="parrot")
    strangers.uninstall("editkit-parrot")
    strangers.install("editkit-parrot")
    with opened(tmp_path / "h.db", seed=3, missing="skip") as kit:
        with pytest.raises(RuntimeError, match="the parrot is dead"):
            kit.replay()
        attempted = kit.store.artifacts.attempted(kit.fingerprint)
        assert attempted == {kit.store.show("v1").edit.id}
        assert kit.store.verify().problems == ()
