"""Version expressions: ``v12``, ``@``, ``@-``, tags.

Grammar of a version expression::

    expression = base { "-" } | base "~" digits
    base       = "@" | "v" digits | digits | tag

``@`` is the current version, each ``-`` one step back, ``~N`` is N steps back.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from editkit_store.errors import InvalidTag, UnknownVersion

__all__ = ["check_tag", "format_version", "parse_version"]

_TAG = re.compile(r"[A-Za-z_][A-Za-z0-9_./]*(?:-[A-Za-z0-9_./]+)*")
_NUMBER = re.compile(r"[vV]?(\d{1,18})")
_BACK = re.compile(r"(?P<base>.*?)(?:(?P<dashes>-+)|~(?P<steps>\d{1,18}))?", re.DOTALL)


MAX_TAG = 100
"""Maximum length of a tag, characters."""


def format_version(number: int) -> str:
    """Returns the name of a version, e.g. ``v12``."""
    return f"v{number}"


def check_tag(name: str) -> str:
    """Returns ``name`` if it can name a version.

    Raises:
        InvalidTag: It is empty, has characters other than letters, digits, ``_ . / -``, or looks
            like a version.
    """
    if not _TAG.fullmatch(name) or len(name) > MAX_TAG:
        raise InvalidTag(
            f"'{name}' cannot be a tag",
            hint="a tag begins with a letter; letters, digits, _ . / and inner - may follow, "
            f"{MAX_TAG} characters at most",
        )
    if _NUMBER.fullmatch(name):
        raise InvalidTag(f"'{name}' looks like a version and cannot be a tag")
    return name


def parse_version(text: str, *, current: int, tags: Mapping[str, int]) -> int:
    """Returns the number of the version that ``text`` names.

    Args:
        text: A version expression.
        current: Number of the current version.
        tags: Tag names and the versions they point to.

    Raises:
        UnknownVersion: It does not name a version of this history.
    """
    asked = text.strip()
    base = _base(asked, current=current, tags=tags)
    back = 0
    if base is None:
        match = _BACK.fullmatch(asked)
        if match is not None and match["base"]:
            base = _base(match["base"], current=current, tags=tags)
            back = int(match["steps"]) if match["steps"] else len(match["dashes"] or "")
    if base is not None and 0 <= base - back <= current:
        return base - back
    raise _unknown(asked, current=current, tags=tags, number=base)


def _base(text: str, *, current: int, tags: Mapping[str, int]) -> int | None:
    if text == "@":
        return current
    if text in tags:
        return tags[text]
    number = _NUMBER.fullmatch(text)
    return int(number[1]) if number else None


def _unknown(
    text: str, *, current: int, tags: Mapping[str, int], number: int | None
) -> UnknownVersion:
    span = "v0 is the only version so far" if current == 0 else f"versions are v0 to v{current}"
    if number is None and tags:
        near = difflib.get_close_matches(text, tags, n=3)
        shown = ", ".join(near or sorted(tags)[:5])
        span += f"; tags: {shown}"
    return UnknownVersion(f"there is no version '{text}'", text=text, current=current, hint=span)
