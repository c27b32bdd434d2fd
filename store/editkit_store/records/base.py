"""The base of all records.

Every record is a frozen pydantic model that rejects unknown keys. ``model_dump(mode="json")`` is
exactly what ``--json`` prints. Records hold only plain data, and import no framework.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Record"]


class Record(BaseModel):
    """Base of all records: frozen, rejects unknown keys, uses aliases on output."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        serialize_by_alias=True,
        validate_by_name=True,
        # A command uses only a few records; building all validators would take longer than all
        # its other imports from this package.
        defer_build=True,
    )
