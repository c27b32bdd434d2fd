"""Errors between a command and the server, and the server's own errors as their classes.

EditkitError
└── RemoteError                 the server refuses, with a code that has no class here
    ├── ServerGone              the server does not respond any more
    └── ServerDiffers           the server runs something else than the command asks for
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from editkit_store.errors import EditkitError, InvalidRequest

__all__ = ["RemoteError", "ServerDiffers", "ServerGone", "error_of"]


class RemoteError(EditkitError):
    """The server refuses; `code` is the server's."""

    code = "remote"


class ServerGone(RemoteError):
    """The server that held the store does not respond any more.

    Attributes:
        was_sent: Whether a change had been sent, so that its outcome is unknown.
    """

    code = "server_gone"

    def __init__(self, url: str, *, was_sent: bool) -> None:
        super().__init__(
            f"the server at {url} went away before it answered"
            + ("; it is not known whether the change was made" if was_sent else ""),
            hint="`editkit log` shows what was done; start the server again, or go on without",
        )
        self.was_sent = was_sent


class ServerDiffers(RemoteError):
    """The server that holds the store runs something else than the command asks for."""

    def __init__(self, message: str, *, code: str, hint: str) -> None:
        super().__init__(message, hint=hint)
        self.code = code


def error_of(failure: dict[str, Any]) -> EditkitError:
    """Returns an error that the server reported, as an instance of its class if there is one.

    Message, code and hint are the server's; other attributes are not sent.

    Args:
        failure: The error object: ``message``, ``code``, ``hint``, ``param``.
    """
    code = str(failure.get("code") or RemoteError.code)
    kind = _error_classes().get(code, RemoteError)
    error = kind.__new__(kind, str(failure["message"]))
    EditkitError.__init__(error, str(failure["message"]), hint=failure.get("hint"))
    error.code = code
    if isinstance(error, InvalidRequest):
        error.field = failure.get("param")
    return error


def _error_classes() -> dict[str, type[EditkitError]]:
    import editkit.errors  # noqa: F401  # defines the classes that are looked up

    return {kind.code: kind for kind in _subclasses(EditkitError)}


def _subclasses(kind: type[EditkitError]) -> Iterator[type[EditkitError]]:
    for one in kind.__subclasses__():
        if one.__module__ in ("editkit.errors", "editkit_store.errors"):
            yield one
        yield from _subclasses(one)
