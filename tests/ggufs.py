"""GGUF files: a tiny model that converts, and headers of any numbers."""

from __future__ import annotations

import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

VOCABULARY = ["<unk>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz", "ab", "abc"]
WIDTH, INNER, HEADS, BLOCKS = 32, 64, 4, 2


def write_tiny(path: Path, *, without: Collection[str] = (), **changes: int) -> Path:
    """A llama of two layers, as llama.cpp writes it; settings may be changed, tensors left out."""
    from gguf import GGUFWriter

    settings = {
        "block_count": BLOCKS, "context_length": 64, "embedding_length": WIDTH,
        "feed_forward_length": INNER, "attention.head_count": HEADS,
        "attention.head_count_kv": HEADS, "vocab_size": len(VOCABULARY),
    }  # fmt: skip
    writer = GGUFWriter(path, "llama")
    writer.add_name("tiny")
    for key, value in (settings | changes).items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(VOCABULARY)
    writer.add_token_merges(["a b", "ab c"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    square, wide, tall = (WIDTH, WIDTH), (INNER, WIDTH), (WIDTH, INNER)
    shapes: dict[str, Any] = {"token_embd": (len(VOCABULARY), WIDTH), "output_norm": (WIDTH,)}
    for block in range(BLOCKS):
        block_shapes = {
            "attn_norm": (WIDTH,), "ffn_norm": (WIDTH,), "attn_q": square, "attn_k": square,
            "attn_v": square, "attn_output": square, "ffn_gate": wide, "ffn_up": wide,
            "ffn_down": tall,
        }  # fmt: skip
        shapes |= {f"blk.{block}.{key}": shape for key, shape in block_shapes.items()}
    numbers = np.random.default_rng(0)
    for name, shape in shapes.items():
        if name not in without:
            writer.add_tensor(f"{name}.weight", numbers.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def text(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if length is None else length) + value


def setting(key: str, kind: int, value: bytes) -> bytes:
    return text(key.encode()) + struct.pack("<I", kind) + value


def array(kind: int, count: int, entries: bytes = b"") -> bytes:
    return struct.pack("<IQ", kind, count) + entries


def tensor(name: str, shape: list[int], *, kind: int = 0, offset: int = 0) -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name.encode()) + dimensions + struct.pack("<IQ", kind, offset)


def header(
    *parts: bytes, tensors: int = 0, settings: int | None = None, version: int = 3, data: int = 0
) -> bytes:
    """Settings and tensors behind their counts, and so many bytes of data behind them."""
    counted = len(parts) - tensors if settings is None else settings
    start = b"GGUF" + struct.pack("<IQQ", version, tensors, counted) + b"".join(parts)
    return start + bytes(-len(start) % 32 + data)
