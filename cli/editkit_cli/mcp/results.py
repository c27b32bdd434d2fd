"""Results of the tools that read the history, where the store's records would be too long."""

from __future__ import annotations

from pydantic import Field

from editkit_cli.mcp.operations import OperationSummary
from editkit_cli.service.tokens import Role
from editkit_store.records import Edit, LogEntry, Record, Status

__all__ = ["EditList", "LogResult", "StatusResult"]


class EditList(Record):
    """Result of `list`."""

    version: str
    total: int = Field(description="How many there are, including those beyond `limit`")
    edits: tuple[Edit, ...] = Field(description="Newest first")


class LogResult(Record):
    """Result of `log`."""

    version: str = Field(description="Current version")
    entries: tuple[LogEntry, ...] = Field(description="Newest first")


class StatusResult(Record):
    """Result of `status`."""

    model: str = Field(description="Name of the running model")
    version: str = Field(description="Current version")
    role: Role = Field(description="What you may do: read; edit: also change; admin: also tag")
    store: Status = Field(description="State of the history")
    operations: tuple[OperationSummary, ...] = Field(
        description="Changes that wait, run, or recently ended, newest first"
    )
