"""The walls of the house: which package may import which, and what costs nothing to import."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {
    "editkit_store": ROOT / "store" / "editkit_store",
    "editkit": ROOT / "editkit",
    "editkit_cli": ROOT / "cli" / "editkit_cli",
}
# Packages that each one must not import, and outside libraries that it must not.
FORBIDDEN = {
    "editkit_store": {
        "editkit", "editkit_cli", "torch", "numpy", "transformers", "click", "rich", "safetensors",
        "faiss", "peft",
    },
    "editkit": {"editkit_cli", "click", "rich", "duckdb"},
    "editkit_cli": {"duckdb"},
}  # fmt: skip


def imported(path: Path) -> set[str]:
    """Top-level names that a file imports anywhere, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", PACKAGES)
def test_no_import_points_the_wrong_way(package: str) -> None:
    files = sorted(PACKAGES[package].rglob("*.py"))
    assert files
    wrong = {
        str(file.relative_to(ROOT)): sorted(imported(file) & FORBIDDEN[package]) for file in files
    }
    assert {file: names for file, names in wrong.items() if names} == {}


def test_duckdb_is_imported_in_one_module_only() -> None:
    users = [
        file.name
        for folder in PACKAGES.values()
        for file in folder.rglob("*.py")
        if "duckdb" in imported(file)
    ]
    assert users == ["connection.py"]


def test_only_hooks_registers_hooks() -> None:
    users = [
        file.relative_to(PACKAGES["editkit"]).as_posix()
        for file in PACKAGES["editkit"].rglob("*.py")
        if any(word in file.read_text() for word in (".register_forward", "__dict__["))
    ]
    assert users
    assert all(user.startswith("engines/transformers/") for user in users)


METHODS = {path.parent.name for path in (PACKAGES["editkit"] / "methods").glob("*/method.py")}
DEFAULT = "store/editkit_store/records/edits.py"
"""The file that names the default method, as a default."""

STILL_NAMING_METHODS = {"editkit_cli"}
"""Packages that still name methods outside the one default. Nothing may join them."""


def named_methods(path: Path) -> set[str]:
    """Methods that a file names in strings or imports; docstrings are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    unread: set[ast.AST] = set()  # docstrings, and imports that only type checkers see
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            unread.add(node.value)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            unread.update(inner for one in node.body for inner in ast.walk(one))
    word = re.compile(rf"\b({'|'.join(METHODS)})\b")
    found: set[str] = set()
    for node in ast.walk(tree):
        if node in unread:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.update(word.findall(node.value))
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or "", *(f"{node.module}.{one.name}" for one in node.names)]
            found.update(name for name in METHODS if f"editkit.methods.{name}" in modules[0])
            found.update(name for name in METHODS if f"editkit.methods.{name}" in modules)
        elif isinstance(node, ast.Import):
            for one in node.names:
                found.update(name for name in METHODS if f"editkit.methods.{name}" in one.name)
    return found


def test_no_method_is_named_outside_its_folder() -> None:
    assert len(METHODS) >= 2
    folder = PACKAGES["editkit"] / "methods"
    naming = {}
    for package in PACKAGES.keys() - STILL_NAMING_METHODS:
        for file in PACKAGES[package].rglob("*.py"):
            own = {name for name in METHODS if (folder / name) in file.parents}
            if found := named_methods(file) - own:
                naming[str(file.relative_to(ROOT))] = sorted(found)
    assert naming.pop(DEFAULT) == ["grace"]
    assert naming == {}


def modules(code: str) -> set[str]:
    """Top-level modules that are loaded after running some code in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "package", ["editkit_store", "editkit", "editkit.requests", "editkit.editing.files"]
)
def test_importing_a_package_loads_no_framework(package: str) -> None:
    heavy = {"torch", "transformers", "numpy", "faiss", "peft", "rich", "safetensors"}
    assert modules(f"import {package}") & heavy == set()


def test_comparing_versions_loads_no_torch() -> None:
    assert modules("import editkit.history.diff") & {"torch", "transformers"} == set()


@pytest.mark.parametrize("name", ["editkit_store", "editkit", "editkit_cli", "editkit.models"])
def test_what_a_package_exports_is_sorted_and_really_there(name: str) -> None:
    package = importlib.import_module(name)
    exported = list(package.__all__)
    assert all(hasattr(package, one) for one in exported)
    assert len(set(exported)) == len(exported)
    # ruff's order: constants, classes, the rest
    kinds = {"constant": 0, "class": 1, "other": 2}

    def kind(one: str) -> str:
        return "constant" if one.isupper() else "class" if one[:1].isupper() else "other"

    assert exported == sorted(exported, key=lambda one: (kinds[kind(one)], one))


def test_every_package_is_typed() -> None:
    assert all((folder / "py.typed").exists() for folder in PACKAGES.values())


def test_no_module_passes_five_hundred_lines() -> None:
    long = {
        str(file.relative_to(ROOT)): count
        for folder in PACKAGES.values()
        for file in folder.rglob("*.py")
        if (count := len(file.read_text().splitlines())) > 500
    }
    assert long == {}
