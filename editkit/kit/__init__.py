"""The kit: one running model with its history."""

from editkit.kit.kit import Kit

__all__ = ["Kit"]
