"""One connection to a server: the server proves its identity, then each request is signed.

The proof comes first and over the same connection, because a request must reach nobody else: a
stranger could take over the port in between. A new connection needs a new proof.
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

__all__ = ["ServerConnection"]

_IDLE = 2.0
"""Seconds after which the server may have closed the connection, so that a new one is made."""

_PATIENCE = 60.0
"""Seconds to retry while the server is too busy to accept a request."""


class ServerConnection:
    """Sends requests to one server.

    Args:
        owner: Content of the server's owner file.
    """

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self._connection: http.client.HTTPConnection | None = None
        self._used = 0.0

    def is_alive(self) -> bool:
        """Returns whether the server responds and is the one of the owner file."""
        try:
            self._connected(fresh=True)
        except ServerGone:
            return False
        return True

    def close(self) -> None:
        """Closes the connection; the next request opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def get(self, path: str, **query: Any) -> Any:
        """Returns the response to GET; query parameters that are ``None`` are left out."""
        given = {name: value for name, value in query.items() if value is not None}
        target = f"{path}?{urlencode(given, doseq=True)}" if given else path
        return self._request("GET", target, None, is_change=False)[1]

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Returns the response to a POST that changes nothing, so it may be sent again."""
        return self._request("POST", path, body, is_change=False)[1]

    def submit(self, path: str, body: Mapping[str, Any]) -> tuple[bool, Any]:
        """Sends a change, once.

        Returns:
            Whether it is done, and its result; if not, the operation to follow.
        """
        status, answer = self._request("POST", path, body, is_change=True)
        return status != 202, answer

    def stream(self, path: str, body: Mapping[str, Any]) -> Generator[Any, None, None]:
        """Yields the events of a streamed response. To stop early, close the connection."""
        connection = self._connected(fresh=True)
        response = None
        try:
            response = self._send(connection, "POST", path, body)
            if response.status >= 400:
                raise error_of(self._read(response)["error"])
            while line := response.readline():
                data = line.removeprefix(b"data: ").strip()
                if data == b"[DONE]":
                    return
                if data:
                    event = json.loads(data)
                    if "error" in event:
                        raise error_of(event["error"])
                    yield event
            raise ServerGone(self.owner.url, was_sent=False)
        except (OSError, http.client.HTTPException) as error:
            raise ServerGone(self.owner.url, was_sent=False) from error
        finally:
            if response is not None:
                response.close()
            self.close()

    def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, is_change: bool
    ) -> tuple[int, Any]:
        end = time.monotonic() + _PATIENCE
        while True:
            response, answer = self._attempt(method, path, body, is_change=is_change)
            if response.status < 400:
                return response.status, answer
            wait = float(response.headers.get("Retry-After") or 1)
            is_final = answer["error"].get("code") != "busy"
            if is_final or time.monotonic() + wait > end:
                raise error_of(answer["error"])
            time.sleep(wait)

    def _attempt(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, is_change: bool
    ) -> tuple[http.client.HTTPResponse, Any]:
        # A change is sent over a connection that was proved just now, so if that one breaks, the
        # change has reached the server.
        connection = self._connected(fresh=is_change)
        try:
            try:
                response = self._send(connection, method, path, body)
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if is_change:
                    raise ServerGone(self.owner.url, was_sent=True) from error
                response = self._send(self._connected(fresh=True), method, path, body)
            answer = self._read(response)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise ServerGone(self.owner.url, was_sent=is_change) from error
        except BaseException:  # Ctrl-C: a response that arrives now would go to the next request
            self.close()
            raise
        self._used = time.monotonic()
        return response, answer

    def _send(
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

    def _read(self, response: http.client.HTTPResponse) -> Any:
        with response:  # or its socket stays open for as long as an error refers to it
            data = response.read()
        try:
            answer = json.loads(data)
            if response.status >= 400:
                answer["error"]["message"]
        except (ValueError, KeyError, TypeError) as error:
            raise RemoteError(
                f"the server at {self.owner.url} answers with status {response.status} and no "
                "record",
                hint="stop it, and start it again with this editkit",
            ) from error
        return answer

    def _connected(self, *, fresh: bool) -> http.client.HTTPConnection:
        """Returns a connection to the server, which has proved its identity.

        Raises:
            ServerGone: Nobody responds, or somebody else does.
            ServerBusy: Somebody responds who is too busy to prove their identity.
        """
        known = self._connection
        is_old = time.monotonic() - self._used > _IDLE
        if known is not None and known.sock is not None and not (is_old or fresh):
            return known
        self.close()
        made = proved(self.owner)
        if made is None:
            raise ServerGone(self.owner.url, was_sent=False)
        made.sock.settimeout(None)  # the server enforces the time limits
        self._connection, self._used = made, time.monotonic()
        return made
