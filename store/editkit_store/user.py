"""Who runs this process."""

from __future__ import annotations

import functools

__all__ = ["user_name"]


@functools.cache
def user_name() -> str:
    """Returns the name of whoever runs this process, as far as the system knows it."""
    import getpass  # reading commands do without

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such user in this container
        return "unknown"
