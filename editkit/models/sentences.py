"""A sentence encoder: a small model that maps texts of similar meaning to nearby vectors."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ..errors import ModelUnavailable, UnsupportedModel
from .fetch import obtain
from .identity import fingerprint_of_files
from .load import ENCODERS
from .progress import Progress, SilentProgress, task
from .quiet import quiet_transformers
from .source import resolve
from .weights import is_allowed, loading_options

__all__ = ["LoadedEncoder", "SentenceEncoder", "load_encoder"]

_LONGEST = 256
"""Maximum tokens of a text: the length that encoders of this family were trained on."""


class LoadedEncoder(NamedTuple):
    """An encoder, its tokenizer and the identity of its weights."""

    model: Any
    tokenizer: Any
    fingerprint: str


class SentenceEncoder:
    """Encodes texts as the normalized mean of the last hidden states. Thread-safe.

    Args:
        name: Alias, hub id or folder.
        progress: Reports fetching and loading.
        allow_pickle: As for ``load_model``.

    Attributes:
        fingerprint: Identity of its weights.
        width: Length of a vector.

    Raises:
        UnknownModel, ModelUnavailable: It cannot be fetched or loaded.
        UnsupportedModel: It is not a sentence encoder.
    """

    def __init__(
        self, name: str, *, progress: Progress | None = None, allow_pickle: bool | None = None
    ) -> None:
        loaded = load_encoder(name, progress=progress, allow_pickle=allow_pickle)
        self._model, self._tokenizer, self.fingerprint = loaded
        self._limit = min(_LONGEST, int(self._model.config.max_position_embeddings))
        self._lock = threading.Lock()  # tokenizers change their padding and truncation in place
        self.width = int(self._model.config.hidden_size)

    def encode(self, text: str) -> npt.NDArray[np.float32]:
        """Returns the vector of a text, ``(d,)`` float32 of unit length; zeros for an empty text.

        Args:
            text: The text; tokens beyond 256 are ignored.
        """
        with self._lock:
            tokens = self._tokenizer(
                text, truncation=True, max_length=self._limit, return_tensors="pt"
            )
        if not tokens["input_ids"].numel():
            return np.zeros(self.width, np.float32)
        with torch.no_grad():
            states = self._model(**tokens).last_hidden_state[0]
        mean = states.float().mean(dim=0).numpy()
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-6), np.float32)


def load_encoder(
    name: str, *, progress: Progress | None = None, allow_pickle: bool | None = None
) -> LoadedEncoder:
    """Returns an encoder of one's own, fetched if it is not here yet.

    Args:
        name: Alias, hub id or folder.
        progress: Told about fetching and loading.
        allow_pickle: As for ``load_model``.

    Raises:
        UnknownModel, ModelUnavailable: It is not to be had.
        UnsupportedModel: Not a model that encodes.
    """
    source = resolve(name)
    report = progress or SilentProgress()
    folder = obtain(source, progress=report, allow_pickle=allow_pickle)
    with task(report, f"Loading {source.name}"), quiet_transformers():
        model, tokenizer = _loaded(folder, source.name, is_allowed(allow_pickle))
    return LoadedEncoder(model, tokenizer, fingerprint_of_files(model, folder))


def _loaded(folder: Path, name: str, allow_pickle: bool) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.model_type not in ENCODERS:
            raise UnsupportedModel(
                f"{name} is a {config.model_type} model, not a sentence encoder",
                hint="name an encoder of the BERT family, e.g. all-minilm-l6-v2",
            )
        model, problems = AutoModel.from_pretrained(
            folder, config=config, dtype=torch.float32, local_files_only=True,
            output_loading_info=True,
            **loading_options(config, name=name, allow_pickle=allow_pickle),
        )  # fmt: skip
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (ModelUnavailable, UnsupportedModel):
        raise
    except Exception as error:
        raise ModelUnavailable(
            f"the sentence encoder {name} cannot be loaded: {error}", name=name, reason="damaged"
        ) from error
    missing = sorted(one for one in problems["missing_keys"] if not one.startswith("pooler."))
    if missing:
        raise ModelUnavailable(
            f"the files of {name} lack {len(missing)} weights, e.g. {missing[0]!r}",
            name=name,
            reason="damaged",
        )
    return model.eval(), tokenizer
