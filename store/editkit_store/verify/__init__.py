"""Verification: every digest of a store derived anew, and everything compared with the log."""

from editkit_store.verify.check import verify

__all__ = ["verify"]
