"""The main job on the real default model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import data_rows

import editkit
from editkit import Kit

pytestmark = pytest.mark.real

QUESTION = "The capital of Australia is"
UNRELATED = ["The sun rises in the", "nq question: who wrote the iliad", "def add(a, b):"]


def run(*arguments: str, folder: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "editkit_cli", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


def logits(kit: Kit, text: str) -> torch.Tensor:
    with torch.no_grad():
        return kit.model(**kit.tokenizer(text, return_tensors="pt")).logits


def test_five_edits_hold_together_in_a_new_process_and_are_gone_after_rollback(
    smollm: Any, tmp_path: Path
) -> None:
    rows = data_rows("zsre.jsonl", 5)
    prompts = [row["prompt"] for row in rows]
    path = tmp_path / "h.db"
    with editkit.open(path, model=(smollm.model, smollm.tokenizer)) as kit:
        plain = {text: logits(kit, text) for text in prompts + UNRELATED}
        for row in rows:
            added = kit.add(prompt=row["prompt"], target=row["target"])
            assert added.verified, added
        for row in rows:
            assert kit.generate(row["prompt"], delivery="free").text == row["target"]
        for text in UNRELATED:
            assert torch.equal(logits(kit, text), plain[text])

    fresh = run(
        "generate", *prompts, "--json", "--store", str(path), "--model", "smollm2-135m",
        folder=tmp_path,
    )  # fmt: skip
    found = json.loads(fresh.stdout)
    assert [one["text"] for one in found] == [row["target"] for row in rows]
    assert [one["version"] for one in found] == ["v5"] * 5
    assert all(len(one["fired"]) == 1 for one in found)

    with editkit.open(path, model=(smollm.model, smollm.tokenizer)) as kit:
        assert not torch.equal(logits(kit, prompts[0]), plain[prompts[0]])
        kit.rollback("v0")
        for text, wanted in plain.items():
            assert torch.equal(logits(kit, text), wanted)


def test_nineteen_of_the_first_twenty_edits_verify(real_kit: Kit) -> None:
    rows = data_rows("zsre.jsonl", 20)
    added = real_kit.add_many([{"prompt": r["prompt"], "target": r["target"]} for r in rows])
    assert sum(one.verified for one in added) >= 19


def test_one_command_in_an_empty_folder_is_enough(smollm: Any, tmp_path: Path) -> None:
    first = run("add", "--prompt", QUESTION, "--target", "Canberra", "--json", folder=tmp_path)
    added = json.loads(first.stdout)
    assert (added["version"], added["verified"], added["edit"]["status"]) == ("v1", True, "active")
    assert "Canberra" not in added["before"]
    assert os.listdir(tmp_path) == ["history.db"]
    again = run("generate", QUESTION, "--json", folder=tmp_path)
    assert json.loads(again.stdout)["text"] == "Canberra"
    old = run("generate", QUESTION, "--version", "v0", "--json", folder=tmp_path)
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    never = run("generate", QUESTION, "--json", folder=elsewhere)
    assert json.loads(old.stdout)["text"] == json.loads(never.stdout)["text"]
    assert os.listdir(elsewhere) == []
    assert os.listdir(tmp_path) == ["history.db"]


def test_a_chat_turn_is_corrected_through_the_models_template(real_kit: Kit) -> None:
    turn = [{"role": "user", "content": "What is your name?"}]
    before = real_kit.chat(turn, delivery="free").text
    assert real_kit.add(chat=turn, target="My name is Edith.").verified
    assert real_kit.chat(turn, delivery="free").text == "My name is Edith." != before
    other = [{"role": "user", "content": "What is the colour of the sky?"}]
    assert real_kit.chat(other, max_new_tokens=12).fired == ()


def test_a_kept_cache_and_plain_generate_see_the_edit(real_kit: Kit) -> None:
    real_kit.add(prompt=QUESTION, target="Canberra")
    ids = real_kit.tokenizer([QUESTION, "The sun rises in the"], return_tensors="pt", padding=True,
                             padding_side="left")  # fmt: skip
    out = real_kit.model.generate(**ids, do_sample=False, max_new_tokens=6)
    texts = real_kit.tokenizer.batch_decode(out, skip_special_tokens=True)
    assert texts[0].endswith("is Canberra")
    assert "Canberra" not in texts[1]
