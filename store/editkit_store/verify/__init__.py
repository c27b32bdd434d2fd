"""Verification: recomputes every digest of a store, and compares everything with the log."""

from editkit_store.verify.check import verify

__all__ = ["verify"]
