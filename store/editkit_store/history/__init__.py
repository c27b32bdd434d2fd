"""The log: operations and the versions they make, appended and read."""

from editkit_store.history.log import History, Operation, prompt_digest

__all__ = ["History", "Operation", "prompt_digest"]
