"""Converting a GGUF file once to a folder that loads fast, like any other model.

transformers reads GGUF, but it dequantises at every start (14 s for the default model, and 5 s more
for its tokenizer, on a modest machine), and such a model does not support ``save_pretrained``. So
this module writes the weights as safetensors. They are float32, so that dequantising is exact;
rounding to a narrower type would give a model that is neither the file's nor the hub's.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ModelUnavailable, UnsupportedModel
from . import cache
from .gguf_header import read_header
from .progress import Progress, task

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["convert", "convert_cached"]

_SPARE = 1 << 30
"""Bytes by which a model may be larger than its file implies."""


def convert_cached(gguf: Path, *, progress: Progress, anew: bool = False) -> Path:
    """Returns the converted folder of a user's GGUF file, converting it on first use.

    The folder is named after the file's SHA-256, so a moved file is not converted again, but a
    changed one is.

    Args:
        gguf: The file.
        progress: Reports bytes and tensors.
        anew: Whether to convert again if the converted folder was changed.

    Raises:
        ModelUnavailable: `damaged` for a file that cannot be read as GGUF, `checksum` for a
            converted folder that was changed.
        UnsupportedModel: transformers cannot convert this architecture.
    """
    read_header(gguf, name=gguf.name)
    digest = cache.file_sha256(gguf, progress=progress)
    folder_name = f"gguf-{digest[:24]}"

    def converted() -> Path | None:
        return cache.checked(folder_name, name=str(gguf), progress=progress, replaced=anew)

    if folder := converted():
        return folder
    with cache.locked(folder_name, progress):
        if folder := converted():
            return folder
        with cache.staging(folder_name) as staging:
            convert(gguf, staging, name=gguf.name, progress=progress)
            receipt = cache.Receipt(
                name=gguf.name, source="gguf", sha256=digest, made_by=converter_versions()
            )
            return cache.publish(staging, folder_name, receipt, progress=progress)


def converter_versions() -> dict[str, str]:
    """Returns the versions of the packages used for the conversion, for the receipt."""
    return {package: version(package) for package in ("editkit", "gguf", "torch", "transformers")}


def convert(gguf: Path, into: Path, *, name: str, progress: Progress) -> None:
    """Writes a GGUF file's model and tokenizer to a folder for ``from_pretrained``.

    Args:
        gguf: The file.
        into: Existing folder; gets ``model.safetensors``, ``config.json`` and the tokenizer.
        name: The user's name of the model, for messages.
        progress: Reports tensors.

    Raises:
        ModelUnavailable: `damaged` for a file that cannot be read.
        UnsupportedModel: transformers cannot convert this architecture.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from .quiet import quiet_transformers

    elements = read_header(gguf, name=name).elements
    local: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    loader: Any = AutoModelForCausalLM
    with quiet_transformers():
        try:
            with _reported_tensors(name, progress):
                config = AutoConfig.from_pretrained(gguf.parent, **local)
                _check_size(config, elements, name)
                model, problems = loader.from_pretrained(
                    gguf.parent,
                    config=config,
                    dtype=torch.float32,
                    output_loading_info=True,
                    **local,
                )
                _check_whole(problems["missing_keys"], name)
            with task(progress, f"Converting the tokenizer of {name}"):
                tokenizer: Any = AutoTokenizer.from_pretrained(gguf.parent, **local)
        except ModelUnavailable:
            raise
        except Exception as error:
            # For invalid files the GGUF reader and the tokenizer builder may raise anything.
            raise _conversion_failed(name, error) from error
        with task(progress, f"Writing {name}"):
            write_model(model, into)
            tokenizer.save_pretrained(into)


def write_model(model: PreTrainedModel, into: Path) -> None:
    """Writes weights and configuration as ``save_pretrained`` would if it supported GGUF."""
    from safetensors.torch import save_file

    weights = into / "model.safetensors"
    save_file(_saved_tensors(model), weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors creates it private; a shared cache must be readable
    config = model.config.to_dict()
    for key in ("quantization_config", "_model_name_or_path", "_name_or_path"):
        config.pop(key, None)
    config["architectures"] = [type(model).__name__]
    _write_json(into / "config.json", config)
    if model.generation_config is not None:
        _write_json(into / "generation_config.json", model.generation_config.to_diff_dict())


def _saved_tensors(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Returns the state dict with tied weights once, since safetensors rejects shared memory."""
    seen: set[int] = set()
    tensors = {}
    for key, tensor in model.state_dict().items():
        if tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            tensors[key] = tensor.contiguous()
    return tensors


def _write_json(path: Path, values: dict[str, Any]) -> None:
    # Only dtypes in these dictionaries are not JSON; "torch.float32" is written as transformers
    # does.
    text = json.dumps(values, indent=2, sort_keys=True, default=lambda v: str(v).split(".")[-1])
    path.write_text(text + "\n", encoding="utf-8")


@contextmanager
def _reported_tensors(name: str, progress: Progress) -> Iterator[None]:
    """Reports the tensors that transformers dequantises to `progress` instead of its own bar.

    transformers uses tqdm directly for this bar, so none of its settings disable it; the name in
    its module is replaced during the conversion. If a release renames it, the stages are reported
    without amounts.
    """
    from transformers import modeling_gguf_pytorch_utils as reader

    def counted(tensors: Iterable[Any], **_: object) -> Iterator[Any]:
        items = list(tensors)
        progress.done()  # of reading the header, which takes as long as the tensors
        progress.start(f"Converting {name}", len(items), "tensors")
        for item in items:
            yield item
            progress.advance(1)
        progress.done()
        progress.start(f"Building {name}", None, "steps")

    original = vars(reader).get("tqdm")
    if original is not None:
        vars(reader)["tqdm"] = counted
    progress.start(f"Reading {name}", None, "steps")
    try:
        yield
    finally:
        progress.done()
        if original is not None:
            vars(reader)["tqdm"] = original


def _check_size(config: Any, elements: int, name: str) -> None:
    """Raises for a model that is larger than the file's tensors, before it is allocated."""
    import torch
    from transformers import AutoModelForCausalLM

    loader: Any = AutoModelForCausalLM
    with torch.device("meta"):
        model = loader.from_config(config)
    size = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    # Twice the tensors in float32 leaves room for what files do not contain: masks, tables, biases.
    if size > 8 * elements + _SPARE:
        raise ModelUnavailable(
            f"the GGUF file of {name} describes a model of {size} bytes, for which it has "
            f"{elements} numbers",
            name=name,
            reason="damaged",
            hint="fetch the file again, or from somewhere else",
        )


def _check_whole(missing: Iterable[str], name: str) -> None:
    """Raises for a file that lacks weights, which transformers would initialize randomly."""
    lacking = sorted(missing)
    if lacking:
        raise ModelUnavailable(
            f"the GGUF file of {name} lacks {len(lacking)} weights, e.g. {lacking[0]!r}",
            name=name,
            reason="damaged",
            hint="fetch the file again, or from somewhere else",
        )


def _conversion_failed(name: str, error: Exception) -> Exception:
    text = str(error)
    if "not supported" in text or "Unrecognized configuration class" in text:
        return UnsupportedModel(
            f"the GGUF file of {name} cannot be converted: {text}",
            hint="pass a folder with config.json and safetensors of the same model instead",
        )
    return ModelUnavailable(
        f"the GGUF file of {name} cannot be converted: {type(error).__name__}: {text}",
        name=name,
        reason="damaged",
        hint="the file may be cut short; fetch it again",
    )
