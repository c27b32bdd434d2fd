"""The walls of the house: which package may import which, and what costs nothing to import."""

from __future__ import annotations

import ast
import importlib
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
