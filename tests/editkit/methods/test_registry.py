"""Which methods there are: packages register them, and no package is in another one's way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from strangers import Strangers
from tiny import tiny_gpt2, tiny_tokenizer

import editkit
from editkit.errors import UnsupportedMethod
from editkit.methods.registry import find_method, registered


@pytest.fixture
def strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Strangers]:
    found = Strangers(tmp_path / "site", monkeypatch)
    yield found
    found.close()


def test_the_built_in_methods_come_in_by_the_same_door() -> None:
    assert list(registered())[:2] == ["grace", "elder"]
    assert {one.packages for one in registered().values()} == {("editkit",)}
    assert all(one.spec is not None and one.fault is None for one in registered().values())


def test_a_package_registers_a_method(strangers: Strangers) -> None:
    strangers.install("editkit-parrot")
    found = registered()["parrot"]
    assert (found.packages, found.fault) == (("editkit-parrot",), None)
    assert find_method("parrot").load().name == "parrot"
    # What shares weights is asked last.
    assert list(registered()) == ["grace", "parrot", "elder"]
    strangers.uninstall("editkit-parrot")
    with pytest.raises(UnsupportedMethod, match="there is no method 'parrot'") as caught:
        find_method("parrot")
    assert caught.value.hint == "methods: grace, elder"


def test_two_methods_of_one_name_are_both_named_and_neither_is_used(
    strangers: Strangers, tmp_path: Path
) -> None:
    strangers.install("editkit-parrot")
    strangers.install("other-parrot")
    found = registered()["parrot"]
    assert found.spec is None
    assert set(found.packages) == {"editkit-parrot", "other-parrot"}
    with pytest.raises(UnsupportedMethod, match="two methods are called 'parrot'") as caught:
        find_method("parrot")
    assert all(package in str(caught.value) for package in found.packages)
    assert find_method("grace").name == "grace"
    with editkit.open(tmp_path / "h.db", model=(tiny_gpt2(), tiny_tokenizer())) as kit:
        with pytest.raises(UnsupportedMethod, match="two methods are called 'parrot'"):
            kit.add("red cat", "blue", method="parrot")
        assert kit.add("red cat", "blue").verified


def test_nobody_takes_the_name_of_a_built_in_method(strangers: Strangers, tmp_path: Path) -> None:
    code = "from editkit.methods.elder import SPEC\n"
    strangers.install("false-elder", code, name="elder")
    assert registered()["elder"].spec is None
    with editkit.open(tmp_path / "h.db", model=(tiny_gpt2(), tiny_tokenizer())) as kit:
        with pytest.raises(UnsupportedMethod, match=r"'editkit\.methods\.elder:SPEC' of editkit"):
            kit.add("red cat", "blue", method="elder")
        assert kit.add("red cat", "blue").verified


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("import no_such_module\n", "fails to load: ModuleNotFoundError: No module named"),
        ("raise RuntimeError('broken at import')\n", "fails to load: RuntimeError: broken at"),
        ("SPEC = 'parrot'\n", "is not a MethodSpec"),
        ("MISSING = 1\n", "fails to load: AttributeError"),
        ("syntax error\n", "fails to load: SyntaxError"),
        (
            "from editkit.methods.spec import MethodSpec\n"
            "SPEC = MethodSpec(name='crow', about='', method='x:Y')\n",
            "registers 'crow' under another name",
        ),
    ],
)
def test_a_package_that_cannot_be_loaded_is_named_and_the_others_work(
    strangers: Strangers, code: str, fault: str
) -> None:
    strangers.install("broken-parrot", code)
    found = registered()["parrot"]
    assert found.spec is None
    assert found.fault is not None
    assert fault in found.fault
    assert "broken-parrot" in found.fault
    with pytest.raises(UnsupportedMethod, match="broken-parrot"):
        find_method("parrot")
    assert [name for name, one in registered().items() if one.spec] == ["grace", "elder"]


def test_a_method_whose_class_cannot_be_imported_leaves_the_others_alone(
    strangers: Strangers, tmp_path: Path
) -> None:
    code = (
        "from editkit.methods.spec import MethodSpec\n"
        "SPEC = MethodSpec(name='parrot', about='', method='no_such_module:Parrot')\n"
    )
    strangers.install("broken-parrot", code)
    with editkit.open(tmp_path / "h.db", model=(tiny_gpt2(), tiny_tokenizer())) as kit:
        with pytest.raises(UnsupportedMethod, match="cannot be opened on this model: ModuleNot"):
            kit.add("red cat", "blue", method="parrot")
        assert kit.add("red cat", "blue").verified
