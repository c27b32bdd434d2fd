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
    for package in PACKAGES.values():
        for file in package.rglob("*.py"):
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
    "package", ["editkit_store", "editkit", "editkit.editing.requests", "editkit.editing.files"]
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


# Inside the command line ------------------------------------------------------------------------

CLI = PACKAGES["editkit_cli"]
ARROWS = {
    "": {"terminal"},
    "terminal": set(),
    "service": set(),
    "backend": {"service", "terminal"},
    "commands": {"backend", "http", "mcp", "service", "terminal"},
    "http": {"service"},
    "mcp": {"service"},
}
"""Rooms of the command line, and the rooms that each may import; "" is what lies at the top."""

ONLY_FOR_TYPES = {("terminal", "service")}
"""The settings hold the connection that a command found, and import it for its type only."""

STARTERS = {"mcp", "serve"}
"""The commands that start a server; the others reach a model through a backend."""


def cli_imports(path: Path, *, types: bool) -> set[str]:
    """Modules of the command line that a file imports; with ``types`` those for types only too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom) or not (node.module or "").startswith(
            "editkit_cli"
        ):
            continue
        if id(node) in hidden and not types:
            continue
        for alias in node.names:
            inner_name = f"{node.module}.{alias.name}"
            file = CLI.parent / (inner_name.replace(".", "/") + ".py")
            found.add(inner_name if file.exists() else str(node.module))
    return found


def room(module: str) -> str:
    """The folder of a module of the command line; "" for what lies at the top."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (CLI / parts[1]).is_dir() else ""


def cli_modules() -> dict[str, Path]:
    """Files of the command line by the names of their modules."""
    return {
        ".".join(file.relative_to(CLI.parent).with_suffix("").parts).removesuffix(".__init__"): file
        for file in sorted(CLI.rglob("*.py"))
    }


def test_rooms_of_the_command_line_import_one_way() -> None:
    wrong = []
    for name, file in cli_modules().items():
        own = room(name)
        for types in (False, True):
            for other in map(room, cli_imports(file, types=types)):
                is_allowed = other in {own, "", *ARROWS[own]}
                if not is_allowed and not (types and (own, other) in ONLY_FOR_TYPES):
                    wrong.append(f"{name} -> {other}")
    assert wrong == []


def test_only_the_commands_that_start_a_server_import_its_rooms() -> None:
    users = {
        file.stem
        for file in (CLI / "commands").rglob("*.py")
        if {"http", "mcp"} & set(map(room, cli_imports(file, types=True)))
    }
    assert users == STARTERS


def test_backends_reach_the_service_through_its_client_only() -> None:
    shared = {"client", "model_names", "owner", "schemas"}
    used = {
        module.split(".")[2]
        for file in (CLI / "backend").glob("*.py")
        for module in cli_imports(file, types=True)
        if room(module) == "service"
    }
    assert used <= shared


def test_no_modules_of_the_command_line_import_each_other_in_a_circle() -> None:
    graph = {name: cli_imports(file, types=True) for name, file in cli_modules().items()}
    done: set[str] = set()

    def circle(name: str, path: tuple[str, ...]) -> tuple[str, ...] | None:
        if name in path:
            return (*path[path.index(name) :], name)
        if name in done:
            return None
        for other in sorted(graph.get(name, ())):
            if found := circle(other, (*path, name)):
                return found
        done.add(name)
        return None

    assert [found for name in graph if (found := circle(name, ()))] == []


def test_no_class_of_the_command_line_has_the_name_of_another_class() -> None:
    places: dict[str, list[str]] = {}
    for folder in PACKAGES.values():
        for file in folder.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    places.setdefault(node.name, []).append(str(file.relative_to(ROOT)))
    twice = {
        name: files
        for name, files in places.items()
        if len(files) > 1 and any(file.startswith("cli/") for file in files)
    }
    assert twice == {}


def test_every_backend_has_every_verb_of_its_own() -> None:
    from editkit_cli.backend import base, local, remote

    verbs = {
        name
        for part in (base.HistoryVerbs, base.ModelVerbs)
        for name in vars(part)
        if not name.startswith("_")
    }
    assert {"add_many", "generate", "rollback", "status"} <= verbs
    for backend in (base.FailoverBackend, local.LocalBackend, remote.RemoteBackend):
        assert verbs - set(vars(backend)) == set(), backend


def test_nothing_in_the_command_line_is_cast() -> None:
    users = [str(file) for file in (CLI / "backend").glob("*.py") if "cast(" in file.read_text()]
    assert users == []


def test_the_command_line_lists_no_methods() -> None:
    lists = [
        str(file.relative_to(ROOT))
        for file in CLI.rglob("*.py")
        if any(word in file.read_text() for word in ('"elder"', "'elder'", '"grace"', "'grace'"))
    ]
    assert lists == []


def test_no_test_changes_the_clock_of_the_process() -> None:
    # Servers run in threads of the tests' process, and their loops would wait for the time that a
    # test made up: they would never stop.
    changes = re.compile(
        r"(setattr|patch)\([^)]*\btime[.\"', ]+(monotonic|time|sleep|perf_counter)\b"
    )
    files = [file for file in (ROOT / "tests").rglob("*.py") if changes.search(file.read_text())]
    assert files == []
