"""methods list: what is installed, what cannot be used and why; and names of no method."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version

import pytest

from editkit.methods.registry import registered

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path, monkeypatch) -> Iterator[Install]:
    """Installs a package that registers methods, for this process."""
    place = tmp_path / "site"
    place.mkdir()
    monkeypatch.syspath_prepend(str(place))
    registered.cache_clear()

    def add(package: str, number: str, *methods: str, **modules: str) -> None:
        info = place / f"{package.replace('-', '_')}-{number}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {package}\nVersion: {number}\n"
        )
        (info / "entry_points.txt").write_text("\n".join(["[editkit.methods]", *methods, ""]))
        for name, code in modules.items():
            (place / f"{name}.py").write_text(code)

    yield add
    registered.cache_clear()


def by_name(found: list[dict]) -> dict[str, dict]:
    return {one["name"]: one for one in found}


def test_the_methods_that_come_with_editkit_are_listed(sh, folder):
    ran = sh("methods", "list", "--json")
    assert (ran.code, ran.stderr) == (0, "")
    for name in ("grace", "elder"):
        found = by_name(ran.json)[name]
        assert (found["packages"], found["version"]) == (["editkit"], version("editkit"))
        assert (found["usable"], found["fault"]) == (True, None)
        assert found["about"]
    assert sh("methods", "list", "--nl").lines == ran.json


def test_the_table_names_packages_and_versions(sh, folder):
    ran = sh("methods", "list")
    assert (ran.code, ran.stderr) == (0, "")
    head, *rows = ran.stdout.splitlines()
    assert head.split() == ["name", "package", "version", "usable", "about"]
    assert rows[0].split()[:4] == ["grace", "editkit", version("editkit"), "yes"]


def test_a_method_that_does_not_import_is_named_with_the_reason(sh, folder, install):
    install("broken-one", "0.3", "wrong = wrong_module:SPEC", wrong_module="import nothing_there")
    ran = sh("methods", "list", "--json")
    assert ran.code == 0
    found = by_name(ran.json)
    assert found["grace"]["usable"], "the others work"
    wrong = found["wrong"]
    assert (wrong["packages"], wrong["version"], wrong["usable"]) == (["broken-one"], "0.3", False)
    assert "No module named 'nothing_there'" in wrong["fault"]
    assert f"warning: the method 'wrong' cannot be used: {wrong['fault']}" in ran.stderr


def test_a_method_whose_own_module_fails_later_is_no_better(sh, folder, install):
    code = (
        "from editkit.methods.spec import MethodSpec\n"
        "SPEC = MethodSpec(name='late', about='fails late', method='late_module:Missing')\n"
    )
    install("late-one", "1.0", "late = late_module:SPEC", late_module=code)
    ran = sh("methods", "list", "--json")
    late = by_name(ran.json)["late"]
    assert (late["usable"], late["about"]) == (False, "fails late")
    assert "'late-one' fails to load: AttributeError" in late["fault"]


def test_two_methods_of_one_name_are_both_named(sh, folder, install):
    install("another-grace", "2.0", "grace = somewhere:SPEC")
    ran = sh("methods", "list", "--json")
    grace = by_name(ran.json)["grace"]
    assert sorted(grace["packages"]) == ["another-grace", "editkit"]
    assert (grace["usable"], grace["version"]) == (False, None)
    assert "two methods are called 'grace'" in grace["fault"]


@pytest.mark.parametrize(
    "line",
    [
        ["add", "--prompt", "p", "--target", "t"],
        ["replay"],
        ["eval", "--data", "none.jsonl"],
    ],
    ids=lambda line: line[0],
)
def test_an_unknown_method_is_refused_with_those_that_are_installed(sh, folder, line):
    ran = sh(*line, "--method", "rome")
    assert (ran.code, ran.stdout) == (2, "")
    assert "there is no method 'rome'; methods: grace, elder" in ran.stderr
    assert list(folder.iterdir()) == []


def test_a_method_that_cannot_be_used_is_refused_with_the_reason(sh, folder, install):
    install("broken-one", "0.3", "wrong = wrong_module:SPEC", wrong_module="import nothing_there")
    ran = sh("add", "--prompt", "p", "--target", "t", "--method", "wrong")
    assert ran.code == 2
    assert "the method 'wrong' cannot be used" in ran.stderr
    assert "nothing_there" in ran.stderr


def test_a_variant_that_there_is_not_is_refused_with_the_names_there_are(sh, folder):
    ran = sh("eval", "--data", "none.jsonl", "--method", "grace:nothing")
    assert ran.code == 2
    assert "there is no 'grace:nothing'" in ran.stderr
    assert "grace:paper" in ran.stderr
    assert "fine-tuning" in ran.stderr


def test_the_help_names_a_method_of_another_package_without_importing_it(sh, folder, install):
    install("broken-one", "0.3", "wrong = wrong_module:SPEC", wrong_module="raise SystemExit(9)")
    ran = sh("add", "--help")
    assert ran.code == 0
    assert "[elder|grace|wrong]" in ran.stdout
