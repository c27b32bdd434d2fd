"""The user of this process."""

from __future__ import annotations

import functools

__all__ = ["user_name"]


@functools.cache
def user_name() -> str:
    """Returns the name of the user who runs this process, if the system knows it."""
    import getpass  # lazy: commands that only read do not need it

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user in this container
        return "unknown"
