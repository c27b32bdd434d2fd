"""export and import: on stores that no model is needed for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from editkit_store import digest_bytes, open_store
from editkit_store.records import Artifact, EditRequest

FINGERPRINT = "sha256:" + "ab" * 32


def payload(number: int) -> bytes:
    import numpy as np

    from editkit.methods.grace.codebook import Entry
    from editkit.methods.grace.payload import GracePayload

    entry = Entry("", np.full(4, number, np.float32), (number,), 0.5)
    return GracePayload(entry, np.zeros(3, np.float32), "here").to_bytes()


def learn(path: str, edits: list[tuple[str, str]]) -> list[str]:
    """Adds edits as a model would; returns their ids."""
    ids = []
    with open_store(path, write=True, create=True) as store:
        for number, (prompt, target) in enumerate(edits):
            data = payload(number)
            edit = store.prepare(EditRequest(prompt=prompt, target=target))
            artifact = Artifact(
                edit_id=edit.id, fingerprint=FINGERPRINT, model="some-model", method="grace",
                verified=True, usable=True, digest=digest_bytes(data),
            )  # fmt: skip
            store.add(edit, artifact=artifact, payload=data, activate=True)
            ids.append(edit.id)
    return ids


@pytest.fixture
def edits(folder: Path) -> list[str]:
    return learn("history.db", [("The sky is", "blue"), ("2 + 2 =", "4"), ("2 + 2 =", "four")])


def test_export_prints_the_head_and_what_it_wrote(sh, edits):
    ran = sh("export", "out", "--json")
    assert (ran.code, ran.stderr) == (0, "")
    assert ran.json["head"] == sh("log", "--json").json[0]["digest"]
    assert ran.json | {"bundle": "out", "version": "v3", "edits": 3, "tensors": 3} == ran.json
    text = sh("export", "again").stdout
    assert ran.json["head"] in text
    assert json.loads(Path("out/manifest.json").read_text())["tool"].startswith("editkit ")


def test_the_selection_is_by_version_expressions(sh, edits):
    sh("tag", "v2", "prod")
    assert sh("export", "a", "--from", "prod", "--json").json["edits"] == 1
    assert sh("export", "b", "--only", "prod", "--json").json["edits"] == 1
    assert sh("export", "c", "--to", "prod", "--json").json["version"] == "v2"
    ran = sh("export", "d", "--to", "v0")
    assert ran.code == 0
    assert ran.stderr.startswith("warning: the bundle holds no edits")
    assert sh("export", "e", "--to", "nothing").code == 1
    assert not Path("e").exists()


def test_export_never_writes_into_a_folder_in_use(sh, edits):
    Path("out").mkdir()
    Path("out/mine").write_text("x")
    ran = sh("export", "out")
    assert (ran.code, ran.stdout) == (1, "")
    assert ran.stderr.startswith("error: 'out' exists already")
    assert [path.name for path in Path("out").iterdir()] == ["mine"]


def test_import_makes_the_store_and_says_what_came(sh, edits):
    sh("export", "out")
    ran = sh("import", "out", "--store", "new.db", "--reason", "from a friend")
    assert ran.code == 0
    assert ran.stderr == "import: brought 3 edits, 2 active; now at v1\n"
    assert ran.stdout.startswith("version    v1, 2 active edits")
    (entry,) = sh("log", "--store", "new.db", "--json").json
    assert (entry["operation"], entry["reason"], entry["author"]) == (
        "import", "from a friend", "ada",
    )  # fmt: skip
    assert "brought 3 edits from a bundle, 2 active" in sh("log", "--store", "new.db").stdout
    assert "brought 3 edits" in sh("show", "v1", "--store", "new.db").stdout
    assert edits[0][:12] in sh("show", edits[0], "--store", "new.db").stdout
    assert sh("status", "--store", "new.db", "--json").json["edits"] == 2
    with open_store("new.db") as store:
        assert store.verify().ok
    ran = sh("import", "out", "--store", "new.db", "--json")
    assert (ran.code, ran.json["edits"], ran.json["known"]) == (0, [], edits)
    assert ran.stderr.startswith("nothing new")
    assert len(sh("log", "--store", "new.db", "--json").json) == 1
    assert sh("undo", "--store", "new.db", "--json").json["view"] == 0
    assert sh("redo", "--store", "new.db", "--json").json["view"] == 2


def test_import_keeps_ours_unless_told_otherwise(sh, edits):
    sh("export", "out")
    (ours,) = learn("new.db", [("2 + 2 =", "five")])
    ran = sh("import", "out", "--store", "new.db", "--on-conflict", "error")
    assert (ran.code, ran.stdout) == (1, "")
    assert ours in ran.stderr
    assert edits[2] in ran.stderr
    ran = sh("import", "out", "--store", "new.db", "--dry-run", "--json")
    assert ran.json["dry_run"] is True
    assert ran.stderr == "import: would bring 3 edits, 1 active; then at v2\n"
    assert [(one["edit_id"], one["ours"]) for one in ran.json["kept"]] == [(edits[2], ours)]
    assert sh("status", "--store", "new.db", "--json").json["version"] == "v1"
    ran = sh("import", "out", "--store", "new.db")
    assert "kept ours" in ran.stdout
    assert "five" in ran.stdout
    assert sh("import", "out", "--on-conflict", "mine").code == 2


def test_supersede_lets_theirs_win(sh, edits):
    sh("export", "out")
    (ours,) = learn("new.db", [("2 + 2 =", "five")])
    ran = sh("import", "out", "--store", "new.db", "--on-conflict", "supersede", "--json")
    assert [one["ours"] for one in ran.json["superseded"]] == [ours]
    assert (ran.json["view"], ran.json["active"]) == (2, [edits[0], edits[2]])


def test_edits_that_the_model_of_the_store_has_not_learned_are_mentioned(sh, edits):
    sh("export", "out")
    with open_store("new.db", write=True, create=True) as store:
        store.remember(model="other", fingerprint="sha256:other")
    ran = sh("import", "out", "--store", "new.db")
    assert "has not learned 2 of the edits" in ran.stderr
    assert "editkit replay" in ran.stderr


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_a_refused_bundle_makes_no_store(sh, edits, dry_run):
    sh("export", "out")
    Path("out/edits.jsonl").write_text("{}\n")
    ran = sh("import", "out", "--store", "new.db", *dry_run)
    assert (ran.code, ran.stdout) == (1, "")
    assert "edits.jsonl" in ran.stderr
    assert not Path("new.db").exists()
    assert sh("import", "nowhere", "--store", "new.db", *dry_run).code == 1
    assert not Path("new.db").exists()


def test_a_dry_run_makes_no_store(sh, edits):
    sh("export", "out")
    ran = sh("import", "out", "--store", "new.db", "--dry-run", "--json")
    assert (ran.code, ran.json["version"], len(ran.json["edits"])) == (0, "v1", 3)
    assert not Path("new.db").exists()


def test_tensors_that_no_model_could_read_are_refused(sh, edits):
    with open_store("history.db", write=True) as store:
        artifact = Artifact(
            edit_id=edits[0], fingerprint="sha256:other", model="x", method="grace",
            verified=True, usable=True, digest=digest_bytes(b"noise"),
        )  # fmt: skip
        store.put_artifacts([(artifact, b"noise")])
    sh("export", "out")
    learn("new.db", [("mine", "x")])
    ran = sh("import", "out", "--store", "new.db")
    assert (ran.code, ran.stdout) == (1, "")
    assert "is not a GRACE payload" in ran.stderr
    assert sh("status", "--store", "new.db", "--json").json["version"] == "v1"


def test_a_killed_export_leaves_no_bundle_under_the_name(process, edits):
    import os
    import subprocess
    import sys

    code = (
        "import os; from editkit_store.bundle import folder\n"
        "folder._sync = lambda folder: os.kill(os.getpid(), 9)\n"
        "from editkit_cli.main import main; main(['export', 'out'])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, timeout=60, check=False)
    assert done.returncode == -9
    assert not Path("out").exists()
    assert process("export", "out").code == 0


def test_a_killed_import_leaves_the_history_as_it_was(process, edits):
    import os
    import subprocess
    import sys

    process("export", "out")
    learn("new.db", [("mine", "x")])
    code = (
        "import os; from editkit.methods import conflicts\n"
        "conflicts.find_conflicts = lambda *_: os.kill(os.getpid(), 9)\n"
        "from editkit_cli.main import main; main(['import', 'out', '--store', 'new.db'])"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ, timeout=60, check=False)
    assert done.returncode == -9
    with open_store("new.db") as store:
        assert (store.version(), store.verify().problems) == ("v1", ())
    assert process("import", "out", "--store", "new.db", "--json").json["version"] == "v2"


def test_neither_imports_torch(process, edits):
    import subprocess
    import sys

    code = (
        "import sys; from editkit_cli.main import main\n"
        "for line in (['export', 'out'], ['import', 'out', '--store', 'new.db']):\n"
        "    try: main(line)\n"
        "    except SystemExit as left: assert left.code == 0\n"
        "assert not {'torch', 'transformers', 'faiss', 'rich'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, capture_output=True)
