"""Names of the methods and the scores of an evaluation, for a command line without a framework."""

from __future__ import annotations

__all__ = ["METHODS", "SCORES"]

METHODS = (
    "grace", "grace:strict", "grace:broad", "grace:sentence", "grace:paper", "elder",
    "elder:paper", "fine-tuning", "lora", "prompt-memory", "base",
)  # fmt: skip

SCORES = ("edit_success", "reliability", "generalization", "locality", "neighbours")
"""Shares that can be required to reach a bar."""
