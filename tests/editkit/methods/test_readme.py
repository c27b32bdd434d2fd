"""The page "Adding a method": what it shows works, and what it names is there."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mixed import logits, same
from tiny import tiny_bert, tiny_llama, tiny_tokenizer

import editkit
from editkit.errors import UnsupportedModel
from editkit.methods import base, registry

PAGE = Path(editkit.__file__).parent / "methods" / "README.md"
PROMPT, TARGET = "tall tree", "two"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The package of the page, as if it was installed; the method's name."""
    spec, *rest = blocks("python")
    package = tmp_path / "my_method"
    package.mkdir()
    (package / "__init__.py").write_text(spec, encoding="utf-8")
    (package / "method.py").write_text("\n".join(rest), encoding="utf-8")
    (project,) = (tomllib.loads(text)["project"] for text in blocks("toml"))
    about = tmp_path / f"my_method-{project['version']}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    points = project["entry-points"][registry.GROUP]
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    (about / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{lines}")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.registered.cache_clear()
    importlib.invalidate_caches()
    (name,) = points
    yield name
    registry.registered.cache_clear()
    for module in ("my_method", "my_method.method"):
        sys.modules.pop(module, None)


def open_kit(path: Path, model: Any = None, **how: Any) -> Any:
    return editkit.open(path, model=(model or tiny_llama(), tiny_tokenizer()), **how)


def test_the_method_of_the_page_learns_is_stored_and_taken_back(
    installed: str, tmp_path: Path
) -> None:
    path = tmp_path / "h.db"
    with open_kit(path) as kit:
        plain = logits(kit, PROMPT, "gold is")
        added = kit.add(PROMPT, TARGET, method=installed)
        assert (added.verified, added.edit.method) == (True, "shift")
        kit.add("see Oslo", "yes")
        said = kit.generate([PROMPT, PROMPT, "see Oslo"], version=["@", "v0", "@"], delivery="free")
        assert [str(said[0]), said[0].fired, said[1].fired] == [TARGET, (added.edit.id,), ()]
        assert str(said[2]) == "yes"
        assert kit.explain(PROMPT).candidates[0].method == "shift"
        found = logits(kit, PROMPT, "gold is")
    with open_kit(path) as kit:
        assert same(logits(kit, PROMPT, "gold is"), found)
        kit.revert(added.edit.id)
        assert same(logits(kit, PROMPT, "gold is"), plain)
        kit.undo()
        assert kit.store.verify().problems == ()
    with (
        open_kit(tmp_path / "other.db", tiny_bert()) as kit,
        pytest.raises(UnsupportedModel, match="shift is for models that continue a prompt"),
    ):
        kit.add(PROMPT, "positive", method=installed)


def test_without_its_package_the_history_opens_and_says_what_to_install(
    installed: str, tmp_path: Path
) -> None:
    path = tmp_path / "h.db"
    with open_kit(path) as kit:
        edit = kit.add(PROMPT, TARGET, method=installed).edit
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [one for one in sys.path if one != str(tmp_path)])
        registry.registered.cache_clear()
        with pytest.warns(UserWarning, match="install 'my-method'"):
            kit = open_kit(path)
        with kit:
            assert kit.generate(PROMPT).fired == ()
            assert [one.id for one in kit.diff("v0", "v1").added] == [edit.id]
    registry.registered.cache_clear()


def test_what_the_page_names_is_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = [row for row in text.splitlines() if row.startswith("| `EditMethod.")]
    named = [name for row in rows for name in re.findall(r"`([\w.]+)`", row.split("|")[1])]
    assert named
    for name in (one.removeprefix("EditMethod.") for one in named):
        assert hasattr(base.EditMethod, name) or name in base.EditMethod.__annotations__, name
    for path in re.findall(r"`(tests/[\w./-]+)`", text):
        assert (PAGE.parents[2] / path).exists(), path
