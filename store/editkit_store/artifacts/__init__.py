"""What edits became on models: artifacts with their tensors, and snapshots of adaptors."""

from editkit_store.artifacts.artifacts import Artifacts, Row, record_digest

__all__ = ["Artifacts", "Row", "record_digest"]
