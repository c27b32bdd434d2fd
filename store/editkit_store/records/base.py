"""The base of all records.

Every record is a frozen pydantic model that refuses unknown keys. ``model_dump(mode="json")`` is
exactly what ``--json`` prints. Records hold plain data only, and import no framework.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Record"]


class Record(BaseModel):
    """Base of all records: frozen, unknown keys refused, aliases used on output."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        serialize_by_alias=True,
        validate_by_name=True,
        # A command uses a few of these records; building all their validators would cost it more
        # than everything else it imports from here.
        defer_build=True,
    )
