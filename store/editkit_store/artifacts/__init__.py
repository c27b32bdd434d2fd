"""What models learned for edits: artifacts with tensors, and snapshots of shared weights."""

from editkit_store.artifacts.artifacts import Artifacts, Row, record_digest

__all__ = ["Artifacts", "Row", "record_digest"]
