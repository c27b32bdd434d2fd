"""The log: appending and reading operations and versions."""

from editkit_store.history.log import History, Operation, prompt_digest

__all__ = ["History", "Operation", "prompt_digest"]
