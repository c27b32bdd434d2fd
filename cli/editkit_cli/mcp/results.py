"""What the tools that read the history give, where no record of it is as short as it has to be."""

from __future__ import annotations

from pydantic import Field

from editkit_cli.mcp.operations import OperationSummary
from editkit_cli.service.tokens import Role
from editkit_store.records import Edit, LogEntry, Record, Status

__all__ = ["EditList", "LogResult", "StatusResult"]


class EditList(Record):
    """Result of `list`."""

    version: str
    total: int = Field(description="How many there are, also beyond `limit`")
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
    store: Status = Field(description="Where the history stands")
    operations: tuple[OperationSummary, ...] = Field(
        description="Changes that wait, run, or have lately ended, newest first"
    )
