"""Schemas that HTTP, MCP and the command line share. Imports no web framework."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, model_validator

from editkit_store.records import LogEntry, Record

if TYPE_CHECKING:
    from editkit_store import Store

__all__ = ["Body", "LogPage", "ServedModel", "SessionToken"]


class Body(Record):
    """Base of all request bodies, and of the arguments of all MCP tools."""

    # Built at once: FastAPI suppresses a warning of pydantic's only while it sets up a route.
    model_config = ConfigDict(defer_build=False)

    @model_validator(mode="before")
    @classmethod
    def _is_unicode(cls, data: Any) -> Any:
        """Rejects lone surrogates, which JSON can spell but text cannot hold."""
        try:
            json.dumps(data, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("it holds a lone surrogate, which is no Unicode") from error
        return data


class ServedModel(Record):
    """Response of `/v1/owner`: the model that runs on the server."""

    name: str = Field(description="Name of the model, as clients of OpenAI's API call it")
    model: str = Field(description="Name of the model, for people")
    source: str = Field(description="Name by which the model can be loaded, or its full path")
    version: str
    has_template: bool = Field(description="Whether the model has a chat template")
    judge: str = Field(description="What decides which edit a prompt asks for")


class LogPage(Record):
    """Response of `/v1/owner/log`: what the table of the log shows, read at one moment."""

    entries: tuple[LogEntry, ...]
    version: str = Field(description="The current version")
    first_tags: tuple[str, ...] = Field(description="Tags of v0, which has no entry")

    @classmethod
    def of(cls, store: Store, *, limit: int | None, at: str | None) -> LogPage:
        """Reads the newest entries of a store's log, or of the log as it was at a version."""
        tags = [name for name, number in store.history.tags().items() if number == 0]
        return cls(
            entries=tuple(store.log(limit=limit, at=at)),
            version=store.version(),
            first_tags=tuple(tags),
        )


class SessionToken(Record):
    """Response of `/v1/session` and `/v1/owner/session`: a bearer token of the owner."""

    token: str = Field(repr=False, description="Valid until it has not been used for a while")
