"""One connection to a server: it proves who it is, then each request does, JSON both ways.

What is asked is nobody else's business, so the proof comes first and over the same connection: a
stranger could take the port in between. A connection that breaks is proved anew.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Generator, Mapping
from typing import Any
from urllib.parse import urlencode

from editkit_cli.service.client.errors import RemoteError, ServerGone, error_of
from editkit_cli.service.owner import Owner, proved, sign

__all__ = ["Wire"]

_IDLE = 2.0
"""Seconds after which a connection may have been closed by the server, and is made anew."""

_PATIENCE = 60.0
"""Seconds to try again while the server is too busy to take a request."""


class Wire:
    """Asks one server.

    Args:
        owner: What the owner's file says.
    """

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self._connection: http.client.HTTPConnection | None = None
        self._used = 0.0

    def is_there(self) -> bool:
        """Returns whether the server answers, and is the one of the owner's file."""
        try:
            self._ready(fresh=True)
        except ServerGone:
            return False
        return True

    def close(self) -> None:
        """Closes the connection; the next request makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def get(self, path: str, **query: Any) -> Any:
        """Returns what a path answers; parameters that are ``None`` are left out."""
        given = {name: value for name, value in query.items() if value is not None}
        where = f"{path}?{urlencode(given, doseq=True)}" if given else path
        return self._answered("GET", where, None, is_change=False)[1]

    def ask(self, path: str, body: Mapping[str, Any]) -> Any:
        """Returns what a question with a body is answered; it changes nothing."""
        return self._answered("POST", path, body, is_change=False)[1]

    def change(self, path: str, body: Mapping[str, Any]) -> tuple[bool, Any]:
        """Sends a change, once.

        Returns:
            Whether it is done, and what came of it; or else the operation to follow.
        """
        status, said = self._answered("POST", path, body, is_change=True)
        return status != 202, said

    def stream(self, path: str, body: Mapping[str, Any]) -> Generator[Any, None, None]:
        """Yields the events of a streamed answer. Whoever stops early closes the wire."""
        connection = self._ready(fresh=True)
        try:
            answer = self._sent(connection, "POST", path, body)
            if answer.status >= 400:
                raise error_of(self._read(answer)["error"])
            while line := answer.readline():
                said = line.removeprefix(b"data: ").strip()
                if said == b"[DONE]":
                    return
                if said:
                    event = json.loads(said)
                    if "error" in event:
                        raise error_of(event["error"])
                    yield event
            raise ServerGone(self.owner.url, was_sent=False)
        except (OSError, http.client.HTTPException) as error:
            raise ServerGone(self.owner.url, was_sent=False) from error
        finally:
            self.close()

    def _answered(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, is_change: bool
    ) -> tuple[int, Any]:
        end = time.monotonic() + _PATIENCE
        while True:
            answer, said = self._once(method, path, body, is_change=is_change)
            if answer.status < 400:
                return answer.status, said
            wait = float(answer.headers.get("Retry-After") or 1)
            is_taken = said["error"].get("code") != "busy"
            if is_taken or time.monotonic() + wait > end:
                raise error_of(said["error"])
            time.sleep(wait)

    def _once(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, is_change: bool
    ) -> tuple[http.client.HTTPResponse, Any]:
        # A change goes over a connection that was proved just now: if that one breaks, it was sent.
        connection = self._ready(fresh=is_change)
        try:
            try:
                answer = self._sent(connection, method, path, body)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if is_change:
                    raise ServerGone(self.owner.url, was_sent=True) from error
                answer = self._sent(self._ready(fresh=True), method, path, body)
            said = self._read(answer)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise ServerGone(self.owner.url, was_sent=is_change) from error
        except BaseException:  # Ctrl-C: what comes back now belongs to nobody
            self.close()
            raise
        self._used = time.monotonic()
        return answer, said

    def _sent(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
    ) -> http.client.HTTPResponse:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": sign(self.owner.token, connection, method, path, data)}
        if data is not None:
            headers["Content-Type"] = "application/json"
        connection.request(method, path, data, headers)
        return connection.getresponse()

    def _read(self, answer: http.client.HTTPResponse) -> Any:
        data = answer.read()
        try:
            said = json.loads(data)
            if answer.status >= 400:
                said["error"]["message"]
        except (ValueError, KeyError, TypeError) as error:
            raise RemoteError(
                f"the server at {self.owner.url} answers with status {answer.status} and no record",
                hint="stop it, and start it again with this editkit",
            ) from error
        return said

    def _ready(self, *, fresh: bool) -> http.client.HTTPConnection:
        """Returns a connection to the proved server.

        Raises:
            ServerGone: Nobody is there, or somebody else.
            ServerBusy: Somebody is, and is too busy to prove who it is.
        """
        known = self._connection
        is_old = time.monotonic() - self._used > _IDLE
        if known is not None and known.sock is not None and not (is_old or fresh):
            return known
        self.close()
        made = proved(self.owner)
        if made is None:
            raise ServerGone(self.owner.url, was_sent=False)
        made.sock.settimeout(None)  # the server has the time limits
        self._connection, self._used = made, time.monotonic()
        return made
