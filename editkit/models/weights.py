"""Which weight files may be read: safetensors are only data, but a pickle can run code.

``use_safetensors=True`` only decides which file transformers looks for first. An index may refer to
a pickle, or out of the folder, and so may the configuration (``transformers_weights``), so this
module checks both.
"""

from __future__ import annotations

import fnmatch
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import ModelUnavailable

__all__ = ["PICKLED", "check_weights", "is_allowed", "loading_options", "only_pickled", "way_out"]

PICKLED = "pytorch_model*.bin"
"""The pickles that transformers reads."""

# Pickles, and formats that transformers no longer reads.
_NO_SAFETENSORS = (PICKLED, "*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt", "*.h5", "*.msgpack")
_INDEX = ".index.json"
_LAYERS = ("num_hidden_layers", "num_decoder_layers", "encoder_layers", "decoder_layers")
_MOST_LAYERS = 1000


def is_allowed(asked: bool | None) -> bool:
    """Returns whether pickles may be read: the argument, else ``EDITKIT_ALLOW_PICKLE``."""
    if asked is not None:
        return asked
    return os.environ.get("EDITKIT_ALLOW_PICKLE", "").strip().lower() in {"1", "true", "yes", "on"}


def only_pickled(names: Iterable[str]) -> str | None:
    """Returns one of the weight files if none of them is safetensors."""
    found = sorted(names)
    safe = fnmatch.filter(found, "*.safetensors")
    # Adapters are not models, and no library used here reads Mistral's consolidated files.
    if any(not name.startswith(("adapter_", "consolidated")) for name in safe):
        return None
    return next((fit[0] for p in _NO_SAFETENSORS if (fit := fnmatch.filter(found, p))), None)


def way_out(file: str) -> str:
    """Returns the hint for a model with such a file."""
    if not fnmatch.fnmatch(file, PICKLED):
        return "convert it to safetensors with what wrote it; only safetensors and GGUF are loaded"
    return (
        "a pickle can run code as it is read: convert it to safetensors, or, if you trust where it "
        "comes from, pass --allow-pickle (allow_pickle=True in Python; EDITKIT_ALLOW_PICKLE=1)"
    )


def check_weights(folder: Path, *, name: str, allow_pickle: bool) -> None:
    """Raises for a folder whose weights are only pickled, or outside the folder.

    Raises:
        ModelUnavailable: `pickle`, or `damaged` if an index leads out of the folder.
    """
    names = [path.name for path in folder.iterdir()]
    if not allow_pickle and (file := only_pickled(names)):
        raise _refusal(name, f"has no safetensors, only {file!r}", file)
    adapter = {"adapter_config.json", "adapter_model.bin"} <= set(names)
    if not allow_pickle and adapter and "adapter_model.safetensors" not in names:
        raise _refusal(name, "has an adapter in 'adapter_model.bin'", "pytorch_model.bin")
    for index in fnmatch.filter(names, f"*{_INDEX}"):
        for shard in sorted(_shards(folder / index)):
            if Path(shard).name != shard or "\\" in shard:
                raise ModelUnavailable(
                    f"{index!r} of {name} leads out of its folder, to {shard!r}",
                    name=name,
                    reason="damaged",
                    hint=f"check the files in {str(folder)!r}",
                )
            if index.endswith(f".safetensors{_INDEX}") and not allow_pickle:
                _require_safetensors(shard, f"names {shard!r} in {index!r}", name)


def loading_options(config: Any, *, name: str, allow_pickle: bool) -> dict[str, Any]:
    """Checks a loaded configuration; returns more arguments for ``from_pretrained``.

    Raises:
        ModelUnavailable: `pickle` if the configuration names a file that is not safetensors,
            `damaged` if it has more layers than any real model: they would be built before the
            missing weights are noticed.
    """
    layers = [getattr(config, key, None) for key in _LAYERS]
    most = max((count for count in layers if isinstance(count, int)), default=0)
    if most > _MOST_LAYERS:
        raise ModelUnavailable(
            f"the configuration of {name} says that it has {most} layers",
            name=name,
            reason="damaged",
            hint="check its config.json",
        )
    named = getattr(config, "transformers_weights", None)
    if named is not None and not allow_pickle:
        shown = f"names {str(named)!r} in its configuration"
        _require_safetensors(str(named).removesuffix(_INDEX), shown, name)
    return {"use_safetensors": None if allow_pickle else True}


def _shards(index: Path) -> set[str]:
    """Returns the files in an index; none if it cannot be read, which loading will report."""
    try:
        return {str(file) for file in json.loads(index.read_bytes())["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()


def _require_safetensors(file: str, what: str, name: str) -> None:
    if not file.endswith(".safetensors"):
        raise _refusal(name, f"{what}, which is no safetensors file", "pytorch_model.bin")


def _refusal(name: str, what: str, file: str) -> ModelUnavailable:
    return ModelUnavailable(
        f"{name} {what}; it was not read", name=name, reason="pickle", hint=way_out(file)
    )
