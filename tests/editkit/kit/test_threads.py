"""Reading while somebody corrects: other threads ask the model while one of them learns."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_gpt2, tiny_llama, tiny_tokenizer

import editkit
from editkit.kit import Kit

# PEFT's own, of a name that transformers changed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

CAT, TREE, SEA = "The red cat is", "tall tree", "see Oslo"


def logits(kit: Kit, prompt: str) -> torch.Tensor:
    with torch.no_grad():
        return kit.model(torch.tensor([kit.encoder.prompt(prompt)])).logits[0]


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
@pytest.mark.parametrize("method", ["grace", "elder"])
def test_what_is_learned_in_one_thread_does_not_show_in_another(
    tmp_path: Path, make: Any, method: Any
) -> None:
    """Learning skips blocks, narrows the head and puts trial values in place: for itself alone."""
    with editkit.open(
        tmp_path / "h.db",
        model=(make(), tiny_tokenizer()),
        elder={"r": 4},
        train={"learning_rate": 2e-2, "steps": 80},
    ) as kit:
        first = kit.add(CAT, "blue", method=method).edit
        plain = {SEA: logits(kit, SEA), "gold": logits(kit, "gold")}
        learned = threading.Event()
        wrong: list[Any] = []
        asked = 0

        def ask() -> None:
            nonlocal asked
            while not learned.is_set() or asked < 4:
                said = kit.generate([CAT, CAT, SEA], version=["v1", "v0", "v1"], max_new_tokens=3)
                if (str(said[0]), said[0].fired, said[1].fired) != ("blue", (first.id,), ()):
                    wrong.append(said)
                wrong.extend(p for p, was in plain.items() if not torch.equal(logits(kit, p), was))
                asked += 1

        def watched() -> None:
            try:
                ask()
            except BaseException as error:
                wrong.append(error)

        readers = [threading.Thread(target=watched) for _ in range(2)]
        for reader in readers:
            reader.start()
        try:
            told = [
                kit.add(f"{TREE} {word}", "two", method=method) for word in ("one", "ten", "six")
            ]
        finally:
            learned.set()
            for reader in readers:
                reader.join()
        assert wrong == []
        assert all(one.verified for one in told)
