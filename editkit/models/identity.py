"""Model fingerprints: a digest of architecture and weights, independent of location.

Artifacts of edits (keys, values, adaptors) only fit the weights they were learned on, so they are
stored under this fingerprint. It is ``sha256:`` and 64 hexadecimal digits over canonical JSON of
the architecture (class name and the settings below) and of one row per parameter and persistent
buffer: name, dtype, shape and SHA-256 of the bytes. It does not depend on the model's name, paths,
library versions, hooks, ``requires_grad``, train or eval mode, or the device. It does depend on the
dtype: hidden states computed in half precision differ from those in float32, and so do the keys.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import UnsupportedModel
from . import cache

__all__ = ["ARCHITECTURE_KEYS", "fingerprint", "fingerprint_of_files"]

_SCHEME = "editkit-fingerprint-1"
_MAX_THREADS = 8

# An allowlist: transformers adds keys with every release, and a new key for a model that computes
# the same as before must not orphan that model's artifacts.
ARCHITECTURE_KEYS = frozenset(
    """
    model_type is_encoder_decoder is_decoder add_cross_attention num_labels problem_type
    hidden_size n_embd d_model dim num_hidden_layers n_layer num_layers num_decoder_layers
    num_attention_heads n_head num_heads num_key_value_heads head_dim d_kv intermediate_size
    n_inner d_ff ffn_dim vocab_size type_vocab_size word_embed_proj_dim encoder_layers
    decoder_layers encoder_attention_heads decoder_attention_heads
    hidden_act hidden_activation activation_function feed_forward_proj dense_act_fn
    is_gated_act attention_bias attention_out_bias mlp_bias qkv_bias use_bias bias
    rms_norm_eps layer_norm_eps layer_norm_epsilon norm_eps
    do_layer_norm_before use_qk_norm qk_layernorm use_parallel_residual parallel_attn
    multi_query new_decoder_architecture query_pre_attn_scalar attn_logit_softcapping
    final_logit_softcapping scale_attn_weights scale_attn_by_inverse_layer_idx
    scale_embedding embedding_multiplier residual_multiplier attention_multiplier
    logits_scaling logit_scale tie_word_embeddings use_bidirectional_attention
    max_position_embeddings n_positions rope_parameters rope_theta rope_scaling
    rope_local_base_freq partial_rotary_factor rotary_dim rotary_pct alibi
    position_embedding_type relative_attention_num_buckets relative_attention_max_distance
    layer_types sliding_window use_sliding_window max_window_layers sliding_window_pattern
    attention_layers no_rope_layers
    num_experts num_local_experts num_experts_per_tok moe_intermediate_size norm_topk_prob
    shared_expert_intermediate_size decoder_sparse_step mlp_only_layers n_routed_experts
    n_shared_experts routed_scaling_factor first_k_dense_replace
    """.split()
)


def fingerprint(model: nn.Module) -> str:
    """Returns the model's fingerprint: ``sha256:`` and 64 hexadecimal digits.

    The weights are hashed in place, one tensor at a time per thread.

    Args:
        model: A transformers model, or any module; without ``config`` only its class name counts.

    Raises:
        UnsupportedModel: The bytes of a weight cannot be read.
    """
    tensors = dict(_weights(model))
    # hashlib releases the GIL, so two cores take half the time.
    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as pool:
        # Largest first, so that the embedding is not hashed last by one thread alone.
        here = [name for name, tensor in tensors.items() if not tensor.is_meta]
        order = sorted(here, key=lambda name: -tensors[name].nbytes)
        rows = list(pool.map(lambda name: _row(name, tensors[name]), order))
    rows += [_offloaded_row(model, name) for name, tensor in tensors.items() if tensor.is_meta]
    document = {
        "scheme": _SCHEME,
        "class": type(model).__name__,
        "config": _architecture(getattr(model, "config", None)),
        "weights": sorted(rows),
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def fingerprint_of_files(model: nn.Module, folder: Path) -> str:
    """Returns the fingerprint of a model just loaded from a folder, cached for later starts.

    The cache key is path, size and modification time of the files, and dtype, class and library
    versions. Only for a model that was not changed since it was loaded.
    """
    kinds = {".safetensors", ".bin", ".json", ".py"}
    files = [path for path in folder.iterdir() if path.is_file() and path.suffix in kinds]
    dtypes = sorted({str(parameter.dtype) for parameter in model.parameters()})
    versions = [f"{package}={version(package)}" for package in ("torch", "transformers")]
    key = cache.file_key(files, _SCHEME, type(model).__name__, *dtypes, *versions)
    if known := cache.recall(key):
        return known
    found = fingerprint(model)
    cache.remember(key, found)
    return found


def _weights(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields every parameter and persistent buffer by name; a tied parameter by its first name.

    ``state_dict`` would give the same list, but it runs state-dict hooks, which other tools use
    to rename or add entries.
    """
    yield from model.named_parameters(remove_duplicate=True)
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        # Non-persistent buffers (masks, rotary tables) are computed from the config. This set is
        # private in torch, but there is no other way to tell without state_dict.
        for name, buffer in module._buffers.items():
            if buffer is None or name in module._non_persistent_buffers_set or id(buffer) in seen:
                continue
            seen.add(id(buffer))
            yield f"{prefix}.{name}" if prefix else name, buffer


def _row(name: str, tensor: torch.Tensor) -> list[Any]:
    return [name, str(tensor.dtype), list(tensor.shape), _digest(name, tensor)]


def _offloaded_row(model: nn.Module, name: str) -> list[Any]:
    """Returns the row of a weight that ``device_map`` offloaded to disk or main memory."""
    path, _, leaf = name.rpartition(".")
    owner = model.get_submodule(path)
    if not hasattr(owner, "_hf_hook"):  # its bytes cannot be located: raises by name
        return _row(name, getattr(owner, leaf))
    from accelerate.utils import align_module_device

    with align_module_device(owner, "cpu"):
        return _row(name, getattr(owner, leaf))


def _digest(name: str, tensor: torch.Tensor) -> str:
    if hasattr(tensor, "__tensor_flatten__"):
        # A quantised weight made of several tensors (torch's protocol for such classes).
        parts, _ = tensor.__tensor_flatten__()
        inner = [f"{part}={_digest(name, getattr(tensor, part))}" for part in parts]
        return hashlib.sha256(" ".join(inner).encode()).hexdigest()
    try:
        # Viewed as bytes because numpy has no bfloat16. None of these steps copies a contiguous
        # tensor on the CPU.
        flat = tensor.detach().contiguous().cpu().reshape(-1).view(torch.uint8)
        return hashlib.sha256(flat.numpy().data).hexdigest()
    except (NotImplementedError, RuntimeError, TypeError) as error:
        raise UnsupportedModel(
            f"the weight {name!r} cannot be read, so the model has no fingerprint: {error}",
            hint="load the model with its weights, in another precision or quantisation",
        ) from error


def _architecture(config: Any) -> dict[str, Any]:
    if config is None:
        return {}
    values = config.to_dict() if hasattr(config, "to_dict") else dict(vars(config))
    return _semantic(values)


def _semantic(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings that affect the model's computation, including nested configs."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key in ARCHITECTURE_KEYS and value is not None:
            found[key] = _plain(value)
        elif key.endswith("_config") and isinstance(value, Mapping):
            nested = _semantic(value)
            if nested:
                found[key] = nested
    return found


def _plain(value: Any) -> Any:
    """Normalizes a value for JSON: 10000.0 becomes 10000, tuples become lists."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items() if v is not None}
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, bool | int | float | str) else str(value)
