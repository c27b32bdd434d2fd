"""The `editkit` command: a thin, typed shell over `editkit` and `editkit_store`.

Everything a command does is a call that Python callers can make too; this package only reads
options, prints records and turns errors into exit codes.
"""

from __future__ import annotations

from typing import Any

__all__ = ["__version__"]


def __getattr__(name: str) -> Any:
    """The version, read from the installed distribution when somebody asks for it."""
    if name == "__version__":
        from importlib.metadata import version

        return version("editkit")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
