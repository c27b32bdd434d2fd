"""The examples, run as a reader would run them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str, folder: Path, said: str = "") -> str:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name), *arguments],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False, input=said,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_first_edit(smollm: Any, tmp_path: Path) -> None:
    out = run("first_edit.py", folder=tmp_path)
    lines = {line.split(":")[0]: line.split(":", 1)[1].strip() for line in out.splitlines()
             if ":" in line}  # fmt: skip
    assert lines["corrected"] == "v1 verified"
    assert lines["after"] == lines["reopened"] == "Canberra"
    assert lines["before"] == lines["at v0"] == lines["rolled back"]
    assert "Canberra" not in lines["before"]
    assert "v2  rollback" in out
    assert list(tmp_path.iterdir()) == []


def test_correction_loop(smollm: Any, tmp_path: Path) -> None:
    talk = "What is your name?\n/fix Edith.\nWhat is your name?\n/why\n/log\n/quit\n"
    out = run("correction_loop.py", folder=tmp_path, said=talk)
    assert "learned in" in out
    assert out.count("model: Edith.") == 1
    assert "fires: the prompt is" in out
    assert "v1  add  What is your name? -> Edith." in out
    # The next conversation, in a new process, knows it; and /undo takes it back.
    out = run("correction_loop.py", folder=tmp_path, said="What is your name?\n/undo\n"
              "What is your name?\n/fix  \n/nonsense\n")  # fmt: skip
    assert out.count("model: Edith.") == 1
    assert "took back v1 (add)" in out
    assert "sorry: the target is empty" in out
    assert "commands: /fix TEXT" in out


def test_edit_llama(smollm: Any, tmp_path: Path) -> None:
    out = run("edit_llama.py", folder=tmp_path)
    assert "editing LlamaForCausalLM at model.layers.20.mlp.down_proj" in out
    assert "NOT verified" not in out
    assert "v1 edited      The capital of Australia is -> 'Canberra'" in out
    assert "v2 as it came  The sun rises in the" in out


def test_edit_bert(tmp_path: Path) -> None:
    out = run("edit_bert.py", folder=tmp_path)
    assert "editing BertForSequenceClassification at bert.encoder.layer.4.output.dense" in out
    lines = out.splitlines()
    before, after = lines[1].split()[-1], lines[3].split()[-2]
    assert {before, after} == {"negative", "positive"}
    assert lines[2] == "edited:  v1, verified"
    assert lines[3].endswith("(edited)")
    assert [line.endswith("(as it came)") for line in lines[4:6]] == [True, True]
    assert lines[6].endswith(before)


def test_edit_t5(tmp_path: Path) -> None:
    out = run("edit_t5.py", folder=tmp_path)
    assert out.splitlines() == [
        "editing T5ForConditionalGeneration at encoder.block.2.layer.1.DenseReluDense.wo",
        "before:  Sydney",
        "edited:  v1 verified",
        "after:   Canberra",
        "another: Vienna (as it came)",
        "undone:  Sydney",
    ]


def test_edit_elder(smollm: Any, tmp_path: Path) -> None:
    out = run("edit_elder.py", folder=tmp_path)
    assert "NOT verified" not in out
    assert "edited      Australia's capital city is -> 'Canberra'" in out
    assert "edited      The inventor of the telephone was -> 'Antonio Meucci'" in out
    assert "as it came  The sun rises in the" in out
    assert "adaptors: 6 layers changed; codes of 3 edits came" in out
    assert "learned 2 again; 0 lost" in out
    assert "as it came  The capital of Australia is" in out
    assert "edited      The capital of Canada is -> 'Ottawa'" in out
