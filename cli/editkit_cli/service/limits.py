"""How much a server accepts, in one request and in total."""

from __future__ import annotations

from pydantic import Field

from editkit_store.records import Record

__all__ = ["Limits"]


class Limits(Record):
    """Limits of a server."""

    body_bytes: int = Field(default=1 << 20, gt=0, description="Bytes of a request's body")
    prompt_chars: int = Field(default=100_000, gt=0, description="Characters of all prompts")
    rows: int = Field(default=16, gt=0, le=16, description="Prompts times `n` of one request")
    edits: int = Field(default=256, gt=0, description="Edits of one request")
    tokens: int = Field(default=4096, gt=0, description="Largest `max_tokens`")
    default_tokens: int = Field(default=256, gt=0, description="`max_tokens` where none is given")
    waiting_rows: int = Field(default=64, gt=0, description="Continuations in the queue")
    waiting_writes: int = Field(default=64, gt=0, description="Changes in the queue")
    seconds: float = Field(default=120.0, gt=0, description="Seconds of one request")
    grace: float = Field(
        default=30.0, ge=0, description="Seconds to finish running work when the server stops"
    )
    readers: int = Field(default=2, gt=0, description="Threads that generate")
    connections: int = Field(default=512, gt=0, description="Requests under way at once")
    head_seconds: float = Field(
        default=10.0, gt=0,
        description="Seconds for the head of a request, since the connection or the last response",
    )  # fmt: skip
    body_seconds: float = Field(
        default=30.0, gt=0, description="Seconds for its body; 1 MiB in 30 s is 35 kB/s"
    )
    stall_seconds: float = Field(
        default=30.0, gt=0, description="Seconds in which a client reads nothing of a response"
    )
    listeners: int = Field(default=64, gt=0, description="Listeners to events at once")
    sessions: int = Field(default=256, gt=0, description="Sessions of agents at once")
    session_seconds: float = Field(
        default=300.0, gt=0, description="Seconds that a session of an agent may be idle"
    )
