"""Applications that are served beside the HTTP routes, behind the same guard.

The HTTP application knows them only by this protocol. The command that starts a server chooses
them, so that HTTP and MCP need not know each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from starlette.routing import Route

    from editkit_cli.service.runner import Runner

__all__ = ["Mount"]


class Mount(Protocol):
    """An application at a path of its own."""

    @property
    def route(self) -> Route:
        """Where it is, and what handles its requests."""

    @property
    def headers(self) -> Sequence[str]:
        """Request headers that pages of other origins may send to it."""

    def running(self, runner: Runner) -> AbstractAsyncContextManager[None]:
        """Returns a context in which it handles requests for a running model."""
