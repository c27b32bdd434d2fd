"""The servers of the HTTP tests, for what lies below the routes."""

from __future__ import annotations

from cli.http.conftest import calm, start

__all__ = ["calm", "start"]
