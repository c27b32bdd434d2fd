"""Selection of an index backend."""

from __future__ import annotations

import importlib.util

from editkit.scope.index.candidates import IndexBackend
from editkit.scope.index.library import gpus

__all__ = ["open_backend"]


def open_backend(name: str | None, device: str | None = None) -> IndexBackend:
    """Returns an empty backend.

    Args:
        name: ``faiss`` (CPU), ``faiss-gpu``, ``torch``, or None for the best one available: FAISS
            if it is installed, on the GPU if ``device`` is one and FAISS supports it; else torch.
        device: Torch name of a device, such as ``cuda:1``; None for the CPU.

    Raises:
        ImportError: The requested library is missing; the message gives the install command.
        RuntimeError: ``faiss-gpu`` was requested, but there is no GPU.
        ValueError: There is no such backend.
    """
    on_gpu = (device or "cpu").startswith("cuda")
    if name is None:
        if importlib.util.find_spec("faiss") is None:
            name = "torch"
        else:
            name = "faiss-gpu" if on_gpu and gpus() else "faiss"
    if name == "torch":
        from editkit.scope.index.torch_scan import TorchScan

        return TorchScan(device or "cpu")
    if name == "faiss":
        from editkit.scope.index.faiss_scan import FaissScan

        return FaissScan()
    if name == "faiss-gpu":
        from editkit.scope.index.faiss_top import FaissTop, gpu_index

        ordinal = int(device.partition(":")[2] or 0) if device and on_gpu else 0
        return FaissTop(gpu_index(ordinal), name="faiss-gpu")
    raise ValueError(f"no key index named {name!r}; there are 'faiss', 'faiss-gpu' and 'torch'")
