"""Words that settings of several parts share."""

from __future__ import annotations

from typing import Literal

from editkit_store.records import ScopeName

__all__ = ["JudgeName", "Position", "PresetName", "Replacement", "ScopeName"]

JudgeName = Literal["encoder", "none"]
"""What decides whether a prompt asks for an edit: the trained judge over a small encoder, or each
method's own keys."""

PresetName = Literal["default", "paper"]
"""What measures best here, or the constants that a method was published with."""

Position = Literal["last", "first"]
"""Token of a prompt whose state is its query."""

Replacement = Literal["last", "prompt", "all"]
"""Positions whose output a value replaces: the query's, the prompt's, or also all decoded ones."""
