"""Loading a model by name, or wrapping one that the caller has loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from ..errors import ModelUnavailable, UnsupportedModel
from .fetch import obtain
from .identity import fingerprint, fingerprint_of_files
from .progress import Progress, SilentProgress, task
from .quiet import quiet_transformers
from .source import Source, resolve
from .weights import is_allowed, loading_options

__all__ = ["ENCODERS", "LoadedModel", "ModelSpec", "load_model"]

ModelSpec: TypeAlias = str | Path | tuple[Any, Any]
"""A model name, a folder, or a loaded ``(model, tokenizer)`` pair."""

_HALF = (torch.float16, torch.bfloat16)
_HEADS = ("ForMaskedLM", "ForQuestionAnswering", "ForTokenClassification")

ENCODERS = ("bert", "distilbert", "mpnet", "roberta", "xlm-roberta")
"""Model types of transformers that encode sentences when loaded without a head."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model ready to run.

    Attributes:
        model: The transformers model.
        tokenizer: Its tokenizer.
        name: Alias, hub id or folder name; for people, not for identity.
        fingerprint: ``sha256:`` and 64 hexadecimal digits; the model's identity.
        path: Folder that it was loaded from, or ``None`` for a pair.
    """

    model: Any
    tokenizer: Any
    name: str
    fingerprint: str
    path: Path | None = None


def load_model(
    spec: ModelSpec,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool | None = None,
    progress: Progress | None = None,
) -> LoadedModel:
    """Loads a model by name, fetching it if needed, in eval mode; or wraps a given pair.

    Args:
        spec: Alias, hub id, folder, GGUF file, or a loaded ``(model, tokenizer)``. A pair is used
            as it is: neither moved, cast, nor switched to eval mode.
        dtype: Precision to run in, e.g. ``"float32"``. By default the checkpoint's own, except
            that half precision becomes float32 on the CPU: processors compute it slowly and with
            rounding that differs between them, while widening is exact. The fingerprint includes
            the dtype, so the same checkpoint in another dtype is another model.
        device: Device of the model; by default the first CUDA device, else the CPU.
        trust_remote_code: Run Python code that ships with the model.
        allow_pickle: Read pickled weights if there are no safetensors; a pickle can run code too.
            By default according to ``EDITKIT_ALLOW_PICKLE``, else not.
        progress: Reports fetching and loading.

    Raises:
        UnknownModel: There is no such model.
        ModelUnavailable: It cannot be fetched or loaded; ``reason`` gives the kind of problem.
        UnsupportedModel: editkit does not support this kind of model.
        TypeError: `spec` is neither a name nor a pair.
        ValueError: There is no such dtype or device.
    """
    if isinstance(spec, tuple | list):
        return _wrap_pair(tuple(spec))
    if not isinstance(spec, str | Path):
        raise TypeError(
            "model must be a name, a path or a (model, tokenizer) pair, "
            f"not {type(spec).__name__}; a model without its tokenizer is not enough"
        )
    place = _device(device)
    wanted = _dtype(dtype)
    source = resolve(str(spec))
    report = progress or SilentProgress()
    folder = obtain(source, progress=report, allow_pickle=allow_pickle)
    with task(report, f"Loading {source.name}"), _load_errors(source, folder), quiet_transformers():
        model, tokenizer = _load(
            folder, source, place, wanted, trust_remote_code, is_allowed(allow_pickle)
        )
    with task(report, f"Identifying {source.name}"):
        identity = fingerprint_of_files(model, folder)
    return LoadedModel(model, tokenizer, source.name, identity, folder)


def _wrap_pair(pair: tuple[Any, ...]) -> LoadedModel:
    if len(pair) != 2 or not isinstance(pair[0], nn.Module) or isinstance(pair[1], nn.Module):
        kinds = ", ".join(type(part).__name__ for part in pair)
        raise TypeError(f"a loaded model is given as (model, tokenizer), not as ({kinds})")
    model, tokenizer = pair
    origin = str(getattr(model, "name_or_path", "") or "").rstrip("/")
    # A folder is named by its last part; a hub id has one slash and is used as it is.
    name = Path(origin).name if Path(origin).is_absolute() or origin.count("/") > 1 else origin
    return LoadedModel(model, tokenizer, name or type(model).__name__, fingerprint(model), None)


def _device(device: torch.device | str | None) -> torch.device:
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"no device is called {str(device)!r}: {error}") from error
    try:
        torch.empty(0, device=place)
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"the device {str(device)!r} is not there: {error}") from error
    return place


def _dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    found = getattr(torch, dtype.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(
            f"no dtype for weights is called {dtype!r}; float32, bfloat16, float16 are"
        )
    return found


def _load(
    folder: Path,
    source: Source,
    device: torch.device,
    dtype: torch.dtype | None,
    trust: bool,
    allow_pickle: bool,
) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoTokenizer

    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust}
    config = AutoConfig.from_pretrained(folder, **local)
    formats = loading_options(config, name=source.name, allow_pickle=allow_pickle)
    if dtype is None and device.type == "cpu":
        # Chosen before loading: casting afterwards would keep buffers rounded to half precision.
        stored = _stored_dtype(folder, config)
        dtype = torch.float32 if stored is None or stored in _HALF else stored
    model, problems = _auto_class(config).from_pretrained(
        folder,
        config=config,
        dtype=dtype or "auto",
        output_loading_info=True,
        **formats,
        **local,
    )
    missing = sorted(problems["missing_keys"])
    if missing:
        # transformers would initialize them randomly.
        raise ModelUnavailable(
            f"the files of {source.name} lack {len(missing)} weights, e.g. {missing[0]!r}",
            name=source.name,
            reason="damaged",
            hint=_refetch_hint(source, folder),
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, **local)
    return model.to(device).eval(), tokenizer


def _auto_class(config: Any) -> Any:
    """Returns the auto class for the architecture in the checkpoint's config."""
    import transformers

    architecture = next(iter(config.architectures or ()), "")
    if architecture.endswith("ForSequenceClassification"):
        return transformers.AutoModelForSequenceClassification
    if config.is_encoder_decoder:
        return transformers.AutoModelForSeq2SeqLM
    bare = architecture.endswith("Model") and config.model_type in ENCODERS
    if bare or architecture.endswith(_HEADS):
        raise UnsupportedModel(
            f"the checkpoint is a {architecture}; editkit edits models that generate text and "
            "sequence classifiers"
        )
    return transformers.AutoModelForCausalLM


def _stored_dtype(folder: Path, config: Any) -> torch.dtype | None:
    """Returns the dtype of the checkpoint's weights, from its config or a safetensors header."""
    if isinstance(config.dtype, torch.dtype):
        return config.dtype
    names = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16}
    names["BF16"] = torch.bfloat16
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as opened:
            length = int.from_bytes(opened.read(8), "little")
            # A damaged length would allocate all memory; the loader reports the damage properly.
            header = json.loads(opened.read(min(length, 100_000_000)))
        for key, entry in header.items():
            if key != "__metadata__" and entry["dtype"] in names:
                return names[entry["dtype"]]
    return None


def _refetch_hint(source: Source, folder: Path) -> str:
    if source.kind in {"alias", "hub"}:
        # The copy is as fetched, so a plain pull would keep it.
        return f"delete the folder {str(folder)!r} and run `editkit models pull {source.name}`"
    return f"check the files in {str(folder)!r}"


@contextmanager
def _load_errors(source: Source, folder: Path) -> Iterator[None]:
    """Translates exceptions of transformers and its helpers to editkit's errors."""
    try:
        yield
    except (ModelUnavailable, UnsupportedModel):
        raise
    except ImportError as error:
        raise ModelUnavailable(
            f"{source.name} needs a package that is not installed: {error}",
            name=source.name,
            reason="packages",
        ) from error
    except Exception as error:
        # tokenizers and safetensors raise bare Exception subclasses, torch RuntimeError, pickle its
        # own; the original stays chained, so a bug of editkit still shows in a traceback.
        raise _translate_error(source, folder, error) from error


def _translate_error(source: Source, folder: Path, error: Exception) -> Exception:
    text = str(error).strip()
    said = f"{type(error).__name__}: {text}" if text else type(error).__name__
    if isinstance(error, torch.OutOfMemoryError):
        return ModelUnavailable(
            f"{source.name} does not fit into the device's memory: {text}",
            name=source.name,
            reason="memory",
            hint="pass a smaller dtype or another device",
        )
    if "trust_remote_code" in text:
        return ModelUnavailable(
            f"{source.name} brings its own Python code, which is not run unless you ask for it",
            name=source.name,
            reason="trust_remote_code",
            hint=f"read the code in {str(folder)!r}, then pass trust_remote_code=True",
        )
    if "does not recognize this architecture" in text or "Unrecognized configuration" in text:
        return UnsupportedModel(
            f"{source.name} cannot be run: {text.splitlines()[0]}",
            hint="a newer transformers may know this architecture",
        )
    return ModelUnavailable(
        f"{source.name} cannot be loaded from {str(folder)!r}: {said}",
        name=source.name,
        reason="damaged",
        hint=_refetch_hint(source, folder),
    )
