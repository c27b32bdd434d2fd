"""Replacing an attribute of an instance temporarily."""

from __future__ import annotations

import contextlib
from typing import Any

__all__ = ["replace"]


def replace(stack: contextlib.ExitStack, owner: Any, name: str, new: Any) -> None:
    """Sets an attribute on the instance, and restores the old one when ``stack`` closes."""
    had, old = name in owner.__dict__, owner.__dict__.get(name)
    owner.__dict__[name] = new

    def restore() -> None:
        if had:
            owner.__dict__[name] = old
        else:
            owner.__dict__.pop(name, None)

    stack.callback(restore)
