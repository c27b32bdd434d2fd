"""What finds candidates: the contract of a backend, and the choice among them.

A backend never decides. It proposes rows that *may* lie within a reach of the query, and the table
measures those with ``distances()`` on the host's float32 copy. So a backend may store keys in fewer
dimensions or bits and compute as it likes, as long as no row within the reach is left out; which
edit fires is then the same with every backend.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from editkit.retrieval.distance import Ints, Vectors

__all__ = ["ALL", "NONE", "Backend", "Candidates", "gpus", "load_faiss", "open_backend"]


@dataclass(frozen=True)
class Candidates:
    """Rows that may lie within the reach of one query.

    Attributes:
        positions: ``(m,)`` int64, positions in the backend, in no order.
        lower: ``(m,)`` float64, not above ``distances()`` of any listed row within the reach.
        rest: No unlisted row has a smaller distance; infinity when none is within the reach.
    """

    positions: Ints
    lower: npt.NDArray[np.float64]
    rest: float = np.inf


NONE = Candidates(np.empty(0, np.int64), np.empty(0))
"""No row is within the reach."""

ALL = Candidates(np.empty(0, np.int64), np.empty(0), rest=0.0)
"""Nothing is known: every row has to be looked at."""


class Backend(Protocol):
    """Positions 0, 1, 2, ... of keys, as given to ``build`` and then to ``add``.

    Not safe for threads: the table serialises all calls (GPU indexes are not even for reads).
    """

    @property
    def name(self) -> str:
        """Name under which it is asked for."""

    @property
    def is_stale(self) -> bool:
        """Whether it must be built anew from all keys before it is asked again."""

    @property
    def nbytes(self) -> int:
        """Bytes it holds, wherever it holds them."""

    def build(self, keys: Vectors) -> None:
        """Forgets everything and takes ``keys``, ``(n, d)`` float32, at least one."""

    def add(self, keys: Vectors) -> None:
        """Appends ``keys``."""

    def propose(self, queries: Vectors, reach: float) -> list[Candidates]:
        """Returns the candidates of each query.

        Args:
            queries: ``(b, d)`` float32, finite.
            reach: Largest distance of interest, L2; finite, not negative.
        """


def open_backend(name: str | None, device: str | None = None) -> Backend:
    """Returns an empty backend.

    Args:
        name: ``faiss`` (CPU), ``faiss-gpu``, ``torch``, or None for the best one at hand: FAISS if
            it is installed, on the GPU if ``device`` is one and this FAISS can use it; else torch.
        device: Torch's name of a device, such as ``cuda:1``; None is the CPU.

    Raises:
        ImportError: The library asked for is missing; the message names the install command.
        RuntimeError: ``faiss-gpu`` where there is no GPU.
        ValueError: No backend of that name.
    """
    on_gpu = (device or "cpu").startswith("cuda")
    if name is None:
        if importlib.util.find_spec("faiss") is None:
            name = "torch"
        else:
            name = "faiss-gpu" if on_gpu and gpus() else "faiss"
    if name == "torch":
        from editkit.retrieval.torch_scan import TorchScan

        return TorchScan(device or "cpu")
    if name == "faiss":
        from editkit.retrieval.faiss_scan import FaissScan

        return FaissScan()
    if name == "faiss-gpu":
        from editkit.retrieval.faiss_top import FaissTop, gpu_index

        ordinal = int(device.partition(":")[2] or 0) if device and on_gpu else 0
        return FaissTop(gpu_index(ordinal), name="faiss-gpu")
    raise ValueError(f"no key index named {name!r}; there are 'faiss', 'faiss-gpu' and 'torch'")


def gpus() -> int:
    """Returns the number of GPUs that the installed FAISS can use."""
    return int(getattr(load_faiss(), "get_num_gpus", int)())


def load_faiss() -> Any:
    """Returns the module ``faiss``.

    Raises:
        ImportError: It is missing; the message names the install command.
    """
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise ImportError(
            "the key index 'faiss' needs the package faiss: pip install 'editkit[cpu]'"
            " (or 'editkit[gpu]'), or choose 'torch'"
        ) from error
