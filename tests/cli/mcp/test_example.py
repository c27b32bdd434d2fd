"""The example of an agent, run as a reader would run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from editkit_store import open_store

EXAMPLE = Path(__file__).parents[3] / "examples" / "agent_mcp.py"


def test_the_agent_corrects_what_is_wrong_and_takes_its_mistake_back(
    tmp_path: Path, tiny_model: str
) -> None:
    store = tmp_path / "history.db"
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), str(store), tiny_model], cwd=tmp_path,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "tools: generate, explain, add" in done.stdout
    assert "Dry run, nothing was learned." in done.stdout
    assert "-> Canberra\n     (v1, edit" in done.stdout
    assert "contradicts_edit: " in done.stdout
    with open_store(store) as history:
        operations = [one.operation for one in history.log()]
        assert operations[:2] == ["undo", "add"]
        assert "Canberra" in {one.target for one in history.show("@").edits}
        assert "Sydney" not in {one.target for one in history.show("@").edits}
        provenance = history.show("v1").provenance
        assert provenance is not None
        assert provenance.agent == "scripted-agent 1"
