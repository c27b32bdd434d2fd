"""A new column of an edit is a change in four places: a field, a migration, an option, a form.

The packages are copied, the four changes made in the copy, and a process that runs the copy shows
that the column is stored, found, verified, exported, imported and replayed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import save_tiny

ROOT = Path(__file__).parents[1]
FIELD = """    ticket: Annotated[str | None, EditColumn()] = Field(
        default=None, description="Ticket in which it was asked for"
    )

"""


def replace(file: Path, before: str, after: str) -> None:
    """Makes one change to a file."""
    text = file.read_text(encoding="utf-8")
    assert text.count(before) == 1, (file, before, text.count(before))
    file.write_text(text.replace(before, after), encoding="utf-8")


def holding(folder: Path, pattern: str, beside: str = "") -> tuple[Path, str]:
    """Returns the one file of a package that holds a pattern, and what was found there.

    Args:
        folder: The package.
        pattern: What to look for.
        beside: What else the file has to hold.
    """
    texts = {file: file.read_text(encoding="utf-8") for file in sorted(folder.rglob("*.py"))}
    found = [
        (file, match.group())
        for file, text in texts.items()
        for match in re.finditer(pattern, text, re.MULTILINE)
        if re.search(beside, text)
    ]
    assert len(found) == 1, (pattern, found)
    return found[0]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages with a column more, and a tiny model."""
    folder = tmp_path_factory.mktemp("copy")
    for package in ("store/editkit_store", "editkit", "cli/editkit_cli"):
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__")
        )
    # 1. The field, in the list of columns.
    replace(
        folder / "store" / "editkit_store" / "records" / "edits.py",
        '    @model_serializer(mode="wrap")\n',
        f'{FIELD}    @model_serializer(mode="wrap")\n',
    )
    # 2. The migration.
    schema = folder / "store" / "editkit_store" / "database" / "schema.py"
    steps = re.findall(r"^    Migration\((\d+), .*\),$", schema.read_text(), re.MULTILINE)
    sql = "ALTER TABLE edits ADD COLUMN ticket VARCHAR"
    replace(
        schema,
        ")\nSCHEMA_VERSION = ",
        f'    Migration({int(steps[-1]) + 1}, "tickets", ("{sql}",)),\n)\nSCHEMA_VERSION = ',
    )
    # 3. The option.
    file, option = holding(folder / "cli", r'^ +\("--source", "S", .*\),\n')
    replace(file, option, f'{option}        ("--ticket", "T", "Ticket"),\n')
    # 4. The form.
    file, form = holding(
        folder / "cli", r"^    source: str \| None = Field\(", "class NewEdit|AddBody"
    )
    replace(file, form, f"    ticket: str | None = None\n{form}")
    save_tiny(folder / "model")
    return folder


def run(copy: Path, *command: str, cwd: Path) -> str:
    """Runs a command of the copy."""
    places = [str(copy), str(copy / "store"), str(copy / "cli"), str(ROOT / "tests")]
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_store_knows_it(copy: Path, tmp_path: Path) -> None:
    old = tmp_path / "old.db"
    made = run(ROOT, "-c", BEFORE, str(old), str(copy / "model"), cwd=tmp_path)
    run(copy, "-c", AFTER, str(old), str(copy / "model"), made.strip(), cwd=tmp_path)


BEFORE = """
import sys
import editkit
with editkit.open(sys.argv[1], model=sys.argv[2]) as kit:
    assert kit.add("The capital of Australia is", "Canberra", source="s").verified
    print(kit.store.verify().head)
"""

AFTER = """
import sys
from pathlib import Path
from tiny import save_tiny
import editkit, editkit_store
from editkit_store import open_store

assert Path(editkit.__file__).parents[1] == Path(sys.path[1]), (editkit.__file__, sys.path)
path, model, head = sys.argv[1:]
with editkit.open(path, model=model) as kit:
    # What was there before keeps its digests.
    verified = kit.store.verify(head=head)
    assert verified.ok and verified.head == head, verified
    old = kit.log()[0]
    assert kit.show(old.edit_id).edit.ticket is None
    # Stored, found, shown, verified.
    added = kit.add("The capital of Italy is", "Rome", ticket="OPS-4711")
    assert added.verified and added.edit.ticket == "OPS-4711"
    assert [one.edit_id for one in kit.log(containing="ops-47")] == [added.edit.id]
    assert kit.show(added.edit.id).edit.ticket == "OPS-4711"
    table = kit.store.sql("SELECT ticket FROM edits ORDER BY ordinal")
    assert table.rows == ((None,), ("OPS-4711",)), table
    assert kit.store.verify().ok
    kit.store.export("bundle")
# Exported and imported.
with open_store("new.db", write=True, create=True) as store:
    done = store.import_bundle("bundle")
    assert len(done.edits) == 2, done
    assert [edit.ticket for edit in store.history.active(1)] == [None, "OPS-4711"]
    assert store.verify().ok
# Replayed to another model.
save_tiny(Path("other"), seed=3)
with editkit.open("new.db", model="other", missing="skip") as kit:
    assert kit.replay().learned == 2
    assert kit.generate("The capital of Italy is").text.strip() == "Rome"
    assert kit.show("@").edits[1].ticket == "OPS-4711"
    assert kit.store.verify().ok
# Altered, and found out.
import duckdb
with duckdb.connect("new.db") as raw:
    raw.execute("UPDATE edits SET ticket = 'x' WHERE ticket IS NULL")
with open_store("new.db") as store:
    (problem,) = store.verify().problems
    assert "columns that differ" in problem.message, problem
"""


def test_the_command_line_takes_it(copy: Path, tmp_path: Path) -> None:
    store = ("--store", "history.db")
    run(
        copy, "-m", "editkit_cli", "add", *store, "--model", str(copy / "model"),
        "--prompt", "The capital of Italy is", "--target", "Rome", "--ticket", "OPS-12",
        cwd=tmp_path,
    )  # fmt: skip
    shown = run(copy, "-m", "editkit_cli", "show", "@", *store, "--json", cwd=tmp_path)
    assert '"ticket": "OPS-12"' in shown


def test_the_server_takes_it(copy: Path, tmp_path: Path) -> None:
    file, _ = holding(copy / "cli", "^class (AddBody|OneEdit)")
    module = ".".join(file.relative_to(copy / "cli").with_suffix("").parts)
    code = (
        f"import {module} as bodies\n"
        "body = getattr(bodies, 'AddBody', None) or bodies.OneEdit\n"
        "asked = body(prompt='p', target='t', ticket='OPS-1')\n"
        "assert asked.ticket == 'OPS-1'\n"
    )
    run(copy, "-c", code, cwd=tmp_path)
