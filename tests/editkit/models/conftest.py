"""Tiny models built in code, and a cache folder of each test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def home(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path | None:
    """An empty cache folder; tests of the real model share the user's, to fetch only once."""
    if request.node.get_closest_marker("real"):
        return None
    folder = tmp_path / "editkit-home"
    monkeypatch.setenv("EDITKIT_HOME", str(folder))
    return folder


class RecordedProgress:
    """Remembers its stages as (task, total, unit, amount)."""

    def __init__(self) -> None:
        self.stages: list[list[Any]] = []
        self.running = False

    def start(self, task: str, total: int | None, unit: str) -> None:
        assert not self.running, "stages do not nest"
        self.running = True
        self.stages.append([task, total, unit, 0])

    def advance(self, amount: int) -> None:
        assert self.running
        self.stages[-1][3] += amount

    def done(self) -> None:
        assert self.running
        self.running = False


@pytest.fixture
def progress() -> RecordedProgress:
    return RecordedProgress()


def build_llama(**changes: Any) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
        "pad_token_id": 0,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlamaForCausalLM(LlamaConfig(**(settings | changes))).eval()


def build_gpt2() -> Any:
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return GPT2LMHeadModel(
            GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64)
        ).eval()


def build_tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<pad>": 0, "</s>": 1, "<unk>": 2}
    vocabulary |= {chr(ord("a") + i): i + 3 for i in range(26)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture
def llama() -> Any:
    return build_llama()


@pytest.fixture
def model_folder(tmp_path: Path) -> Path:
    """A folder as ``save_pretrained`` leaves it."""
    folder = tmp_path / "tiny-llama"
    build_llama().save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def run_python(home: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a script in a fresh interpreter; some libraries read their settings at import."""

    def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        settings = {
            **os.environ,
            "HF_HOME": str(tmp_path / "hf-home"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
            **environment,
        }
        for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
            if name not in environment:
                settings.pop(name, None)
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", script, *arguments],
            capture_output=True,
            text=True,
            env=settings,
            cwd=tmp_path,
            timeout=60,
        )

    return run


@pytest.fixture
def make_llama() -> Callable[..., Any]:
    return build_llama


@pytest.fixture
def make_gpt2() -> Callable[[], Any]:
    return build_gpt2


@pytest.fixture
def make_tokenizer() -> Callable[[], Any]:
    return build_tokenizer
