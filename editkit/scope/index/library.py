"""Loading the FAISS library."""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["gpus", "load_faiss"]


def gpus() -> int:
    """Returns the number of GPUs that the installed FAISS can use."""
    return int(getattr(load_faiss(), "get_num_gpus", int)())


def load_faiss() -> Any:
    """Returns the module ``faiss``.

    Raises:
        ImportError: It is missing; the message gives the install command.
    """
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise ImportError(
            "the key index 'faiss' needs the package faiss: pip install 'editkit[cpu]'"
            " (or 'editkit[gpu]'), or choose 'torch'"
        ) from error
