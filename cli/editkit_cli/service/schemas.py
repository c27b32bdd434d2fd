"""What the server tells its owner only: records of the owner's routes. No framework."""

from __future__ import annotations

from pydantic import Field

from editkit_store.records import LogEntry, Record

__all__ = ["Logged", "Running", "Session"]


class Running(Record):
    """Answer of `/v1/owner`: what runs here."""

    name: str = Field(description="Name of the model, as clients of OpenAI's API call it")
    model: str = Field(description="What the model calls itself, for people")
    source: str = Field(description="Name by which the model can be loaded, or its full path")
    version: str
    has_template: bool = Field(description="Whether the model knows conversations")


class Logged(Record):
    """Answer of `/v1/owner/log`: what the log's table shows, of one moment."""

    entries: tuple[LogEntry, ...]
    version: str = Field(description="The current one")
    first_tags: tuple[str, ...] = Field(description="Tags of v0, which no entry made")


class Session(Record):
    """Answer of `/v1/session` and `/v1/owner/session`: a token to go on with."""

    token: str = Field(repr=False, description="The owner's, until it is not used for a while")
