"""A tiny random model and a character tokenizer, built in code: tests need no network."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers import PreTrainedTokenizerFast

CONTEXT = 256
TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<e>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character; `<e>` ends a text, `<p>` pads."""
    marks = ["<p>", "<e>", "<u>", "<|system|>", "<|user|>", "<|assistant|>"]
    characters = marks + list(string.printable[:95]) + ["é", "ü", "\n"]
    tokenizer = Tokenizer(
        models.WordLevel({c: i for i, c in enumerate(dict.fromkeys(characters))}, unk_token="<u>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<e>",
        pad_token="<p>",
        unk_token="<u>",
        additional_special_tokens=marks[3:],
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE
    return fast


def tiny_llama(seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """A random Llama: 4 layers, width 64."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = LlamaConfig(
            **{
                "vocab_size": 110,
                "hidden_size": 64,
                "intermediate_size": 128,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "num_key_value_heads": 2,
                "max_position_embeddings": CONTEXT,
                "initializer_range": 0.2,
                "eos_token_id": 1,
                "pad_token_id": 0,
                "bos_token_id": None,
                "tie_word_embeddings": False,
                **changes,
            }
        )
        return LlamaForCausalLM(config).eval()


def tiny_gpt2(seed: int = 0) -> GPT2LMHeadModel:
    """A random GPT-2: 4 layers, width 64."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = GPT2Config(
            vocab_size=110,
            n_embd=64,
            n_layer=4,
            n_head=4,
            n_positions=CONTEXT,
            initializer_range=0.2,
            eos_token_id=1,
            pad_token_id=0,
            bos_token_id=None,
        )
        return GPT2LMHeadModel(config).eval()


def save_tiny(folder: Path, *, seed: int = 0) -> Path:
    """Writes the tiny Llama and its tokenizer as a local model folder."""
    tiny_llama(seed).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
