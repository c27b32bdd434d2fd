"""The kit: one running model with its history.

``Kit`` is imported when it is first used, so that finding conflicts of a bundle loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from editkit.kit.kit import Kit

__all__ = ["Kit"]


def __getattr__(name: str) -> Any:
    if name != "Kit":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from editkit.kit.kit import Kit

    return Kit
