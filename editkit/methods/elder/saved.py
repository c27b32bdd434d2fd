"""Serialization of ELDER's state as a snapshot in the store, and of each edit's payload.

A snapshot has these tensors, one per expert so that unchanged ones are shared:

    lora_A.<module>.<expert>  (r, in)     I16 numerators of multiples of 2^-resolution, or F32
    lora_B.<module>.<expert>  (out, r)    likewise
    router.<module>           (N, d)      F16 if that is exact, else F32
    codes                     (n, bytes)  U8, the packed codes of the edits
    edits                     (n, 8)      U8, their ids

Everything else is in its settings, including ``format`` = ``editkit.elder.1``. A payload is
safetensors bytes with one float32 tensor, ``queries`` of shape ``(w, d)``: the routers' inputs for
the edit's wordings, the prompt's first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from editkit.methods.elder import routing
from editkit.methods.elder.state import ElderState
from editkit.methods.elder.tensors import FORMAT, array, ids_of, tensor, weights
from editkit_store.artifacts.snapshots import Snapshot, Tensor
from editkit_store.errors import InvalidRecord

__all__ = ["QueryRows", "payload_of", "queries_of", "snapshot_of", "state_of"]

_SETTINGS = ("top_k", "scaling", "threshold", "weighting", "experts", "span", "radius")
_LARGEST = 2**15

QueryRows = npt.NDArray[np.float32]


def snapshot_of(state: ElderState, paths: Sequence[str], *, about: Mapping[str, Any]) -> Snapshot:
    """Returns a state as a snapshot; its queries are not in it.

    Args:
        state: The learned state.
        paths: Dotted paths of the adapted layers.
        about: More settings: ``query`` as in ``ElderConfig``, ``resolution`` as in ``TrainConfig``,
            the ``limit`` of the threshold, and the measured ``separation``; see ``LearnedState``.
    """
    resolution: int | None = about["resolution"]
    tensors: dict[str, Tensor] = {}
    for layer, path in enumerate(paths):
        for expert in range(state.num_experts):
            for name, experts in (("lora_A", state.lora_A), ("lora_B", state.lora_B)):
                weight = experts[layer][expert].detach().cpu().float().numpy()
                tensors[f"{name}.{path}.{expert}"] = _on_grid(weight, resolution)
        tensors[f"router.{path}"] = _half(state.routers[layer].detach().cpu().float().numpy())
    tensors["codes"] = tensor("U8", state.codes)
    ids = np.frombuffer(bytes.fromhex("".join(state.edit_ids)), np.uint8)
    tensors["edits"] = tensor("U8", ids.reshape(len(state.edit_ids), -1 if len(ids) else 8))
    settings = {
        "format": FORMAT,
        "paths": list(paths),
        "num_experts": state.num_experts,
        "r": int(state.lora_A[0].shape[1]),
        **about,
        **{name: getattr(state, name) for name in _SETTINGS},
    }
    return Snapshot(settings, tensors)


def state_of(
    snapshot: Snapshot, queries: Mapping[str, QueryRows], *, device: Any = None
) -> ElderState:
    """Returns the state of a snapshot, without the edits whose queries are not known.

    Args:
        snapshot: The snapshot; the digests of its tensors were checked.
        queries: Queries of the edits, by id; see the module.
        device: Device of the weights; by default the CPU.

    Raises:
        InvalidRecord: It was written by a newer editkit, or is incomplete.
    """
    about = snapshot.settings
    if about.get("format") != FORMAT:
        raise InvalidRecord(
            f"the adaptors have format '{about.get('format')}'; this editkit reads '{FORMAT}'",
            hint="upgrade editkit",
        )
    try:
        found = {name: array(one) for name, one in snapshot.tensors.items()}
        paths, count, fine = about["paths"], about["num_experts"], about["resolution"]

        def experts(name: str, path: str) -> torch.Tensor:
            parts = [found[f"{name}.{path}.{expert}"] for expert in range(count)]
            return torch.from_numpy(np.stack([weights(part, fine) for part in parts])).to(device)

        routers = np.stack([found[f"router.{path}"].astype(np.float32) for path in paths])
        ids = ids_of(found["edits"])
        codes = found["codes"]
        if len(codes) != len(ids) or codes.shape[1:] != (-(-len(paths) * count // 8),):
            raise ValueError(f"{len(ids)} edits with codes of shape {codes.shape}")
        routing.allocations_of(codes, len(paths), count)  # raises for invalid codes
        known = [index for index, edit_id in enumerate(ids) if edit_id in queries]
        mine = [queries[ids[index]] for index in known]
        empty = np.zeros((0, routers.shape[2]), np.float32)
        return ElderState(
            lora_A=tuple(experts("lora_A", path) for path in paths),
            lora_B=tuple(experts("lora_B", path) for path in paths),
            routers=torch.from_numpy(routers).to(device),
            codes=codes[known],
            edit_ids=tuple(ids[index] for index in known),
            queries=np.concatenate([empty, *mine]),
            owners=np.repeat(np.arange(len(mine)), [len(one) for one in mine]).astype(np.int64),
            **{name: about[name] for name in _SETTINGS},
        )
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise InvalidRecord(f"the adaptors of a snapshot are incomplete: {error}") from error


def payload_of(queries: QueryRows) -> bytes:
    """Returns an edit's payload as safetensors bytes; equal queries give equal bytes."""
    about = json.dumps({"format": FORMAT}, separators=(",", ":"))
    return save({"queries": np.ascontiguousarray(queries, np.float32)}, {"editkit": about})


def queries_of(data: bytes, *, edit_id: str) -> QueryRows:
    """Returns the queries of a payload, ``(w, d)``.

    Raises:
        InvalidRecord: It is not an ELDER payload, or has a newer format.
    """
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        named = json.loads(header["__metadata__"]["editkit"])["format"]
        if named != FORMAT:
            raise InvalidRecord(
                f"the artifact of edit '{edit_id}' has format '{named}'; this editkit reads "
                f"'{FORMAT}'",
                hint="upgrade editkit",
            )
        found: QueryRows = load(data)["queries"]
        if found.ndim != 2 or not len(found) or found.dtype != np.float32:
            raise ValueError(f"queries of shape {found.shape}")
    except (KeyError, ValueError, TypeError, SafetensorError) as error:
        raise InvalidRecord(
            f"the artifact of edit '{edit_id}' is not an ELDER payload: {error}"
        ) from error
    return found


def _on_grid(weight: npt.NDArray[np.float32], resolution: int | None) -> Tensor:
    if resolution is not None:
        fine = weight * np.float32(2**resolution)
        if np.abs(fine).max(initial=0) < _LARGEST and np.array_equal(fine, np.rint(fine)):
            return tensor("I16", fine)
    return tensor("F32", weight)


def _half(weight: npt.NDArray[np.float32]) -> Tensor:
    with np.errstate(over="ignore"):
        is_exact = np.array_equal(weight, weight.astype(np.float16).astype(np.float32))
    return tensor("F16" if is_exact else "F32", weight)
