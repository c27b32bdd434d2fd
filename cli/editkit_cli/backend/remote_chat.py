"""Streaming the answers of a server's model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

from editkit_cli.service.client.connection import ServerConnection
from editkit_cli.service.schemas import ServedModel
from editkit_cli.terminal.interrupts import Cancellation
from editkit_store.records import Delivered, Delivery, Explanation, Generation

__all__ = ["RemoteChat"]


class RemoteChat:
    """Lets a server's model answer; implements ``backend.chat.ChatBackend``.

    Args:
        connection: To the server. Each answer is streamed over a connection of its own, which ends
            the answer when it is closed.
    """

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection
        running = ServedModel.model_validate(connection.get("/v1/owner"))
        self._name = running.name
        self.has_template = running.has_template

    def answer(
        self,
        turns: Sequence[Mapping[str, str]],
        cancellation: Cancellation,
        *,
        version: str | None,
        limit: int,
        delivery: Delivery,
        on_text: Callable[[str], None] | None,
    ) -> Generation:
        """Returns the answer to a conversation, or to its last turn."""
        body: dict[str, Any] = {
            "model": self._name if version is None else f"{self._name}@{version}",
            "max_tokens": limit,
            "delivery": delivery,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.has_template:
            path, body["messages"] = "/v1/chat/completions", list(turns)
        else:
            path, body["prompt"] = "/v1/completions", turns[-1]["content"]
        received = _StreamedAnswer()
        own = ServerConnection(self._connection.owner)
        with closing(own), closing(own.stream(path, body)) as events:
            for event in events:
                text = received.take(event)
                if text and on_text is not None:
                    on_text(text)
                if cancellation.is_requested:
                    break
        if not received.has_ended:
            received.fired = self._fired(turns, received.version)
        return received.generation(turns[-1]["content"])

    def _fired(self, turns: Sequence[Mapping[str, str]], version: str) -> tuple[str, ...]:
        """Returns which edit fired for an answer that was cancelled before the event that tells."""
        body: dict[str, Any] = {"version": version, "k": 1}
        if self.has_template:
            body["chat"] = list(turns)
        else:
            body["prompt"] = turns[-1]["content"]
        found = Explanation.model_validate(self._connection.post("/v1/explain", body))
        return () if found.fired is None else (found.fired,)


class _StreamedAnswer:
    """The part of an answer that has arrived."""

    def __init__(self) -> None:
        self.text = ""
        self.version = ""
        self.fired: tuple[str, ...] = ()
        self.delivered: Delivered | None = None  # told at the end: unknown of a cancelled answer
        self.has_ended = False
        self._tokens = 0
        self._reason: Any = "stop"

    def take(self, event: Mapping[str, Any]) -> str:
        """Adds an event of the stream; returns the text in it."""
        self.version = event["version"]
        if event.get("usage"):
            self._tokens = event["usage"]["completion_tokens"]
        text = ""
        for choice in event["choices"]:
            delta = choice.get("delta", choice)
            text += delta.get("content") or delta.get("text") or ""
            if choice.get("finish_reason"):
                self.has_ended, self._reason = True, choice["finish_reason"]
                self.fired = tuple(choice.get("fired") or ())
                self.delivered = choice.get("delivered")
        self.text += text
        return text

    def generation(self, prompt: str) -> Generation:
        """Returns the answer as a record."""
        return Generation(
            text=self.text, version=self.version, fired=self.fired, delivered=self.delivered,
            prompt=prompt, tokens=self._tokens, finish_reason=self._reason,
        )  # fmt: skip
