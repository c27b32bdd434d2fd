"""Canonical JSON and tagged digests: the names by which content is known.

A digest is ``sha256:`` followed by 64 hex digits. The tag names the algorithm, so that a later
editkit can change it without guessing. Canonical JSON is UTF-8, keys sorted, no spaces, and no NaN
or infinity, so that equal content has equal bytes on every machine.
"""

from __future__ import annotations

import hashlib
import json
import math
from json.encoder import encode_basestring  # what ensure_ascii=False writes strings with
from typing import Any

__all__ = [
    "ID_DIGITS",
    "canonical_json",
    "canonical_number",
    "canonical_text",
    "digest_bytes",
    "digest_json",
    "digest_text",
    "short_id",
]

_encode = json.JSONEncoder(
    sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":")
).encode

ID_DIGITS = 16
"""Hex digits of an edit id: 64 bits, so that a million edits collide with probability 3e-8."""


def canonical_json(value: Any) -> str:
    """Returns ``value`` as canonical JSON.

    Args:
        value: Plain data: dicts with string keys, lists, strings, numbers, booleans, ``None``.

    Raises:
        ValueError: A number is NaN or infinite.
        TypeError: Something in ``value`` is not JSON.
    """
    return _encode(value)


def canonical_number(value: float | None) -> str:
    """Returns a number or ``None`` as canonical JSON, in a fraction of the time of the general.

    Raises:
        ValueError: It is NaN or infinite.
    """
    if value is None:
        return "null"
    if not math.isfinite(value):
        raise ValueError(f"{value} is no JSON")
    return repr(value)


def canonical_text(value: str | None) -> str:
    """Returns a string or ``None`` as canonical JSON, in a fraction of the time of the general."""
    return "null" if value is None else encode_basestring(value)


def digest_bytes(data: bytes) -> str:
    """Returns the tagged SHA-256 of ``data``."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    """Returns the tagged SHA-256 of the canonical JSON of ``value``."""
    return digest_text(canonical_json(value))


def digest_text(text: str) -> str:
    """Returns the tagged SHA-256 of a text's UTF-8."""
    # Lone surrogates are legal in Python strings and in JSON escapes, but have no UTF-8 form.
    return digest_bytes(text.encode("utf-8", errors="surrogatepass"))


def short_id(value: Any) -> str:
    """Returns the first ``ID_DIGITS`` hex digits of the digest of ``value``."""
    return digest_json(value).removeprefix("sha256:")[:ID_DIGITS]
