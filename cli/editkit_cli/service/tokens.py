"""Bearer tokens and their roles.

They are stored in a file beside the store, ``history.db.tokens``, for two reasons: a history is
copied, exported and shared, and credentials must not travel with it; and only the running server
may open the store, while tokens are created and revoked as it runs. The file holds SHA-256 digests
only. A token has 256 random bits, so that it cannot be guessed and needs no slow hash.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import Field, TypeAdapter, ValidationError

from editkit_store.database.files import is_private, locked, write_private
from editkit_store.errors import EditkitError, InvalidRequest
from editkit_store.records import Record

__all__ = ["ROLES", "Made", "Role", "Token", "TokenFile", "UnknownToken", "tokens_path"]

Role = Literal["read", "edit", "admin"]

ROLES: tuple[Role, ...] = ("read", "edit", "admin")
"""Each role may do what the roles before it may."""

PREFIX = "ek-"


class UnknownToken(EditkitError):
    """No token has that id or name."""

    code = "unknown_token"


class UnsafeTokens(EditkitError):
    """Other users could have written the file of tokens."""

    code = "unsafe_tokens"


class Token(Record):
    """A token without its secret."""

    id: str = Field(description="8 hex digits")
    name: str = Field(description="Who has it; the author of changes that it makes")
    role: Role
    created: datetime = Field(description="UTC")


class Made(Token):
    """Result of `token create`."""

    token: str = Field(repr=False, description="The secret; shown once and stored nowhere")


class _Kept(Token):
    digest: str


_LIST = TypeAdapter(list[_Kept])


def tokens_path(store: Path) -> Path:
    """Returns the path of a store's tokens."""
    real = Path(os.path.realpath(store))  # the same for all links to the store
    return real.with_name(real.name + ".tokens")


class TokenFile:
    """The tokens of one store. The file is read again whenever it has changed."""

    def __init__(self, store: Path) -> None:
        self.path = tokens_path(store)
        self._seen: tuple[int, int, int] | None = None
        self._kept: list[_Kept] = []

    def create(self, name: str, role: Role) -> Made:
        """Creates a token.

        Raises:
            InvalidRequest: The name is empty, too long or taken.
            StoreUnwritable: The file cannot be written.
        """
        if not name.isprintable() or not name.strip() or len(name) > 100:
            raise InvalidRequest(
                "a token's name is 1 to 100 printable characters", field="name",
                hint="say who will have it, e.g. --name dashboard",
            )  # fmt: skip
        with locked(self.path):
            kept = self._read()
            if any(one.name == name for one in kept):
                raise InvalidRequest(
                    f"there is a token named '{name}' already", field="name",
                    hint="revoke it, or take another name",
                )  # fmt: skip
            secret = PREFIX + secrets.token_urlsafe(32)
            made = Made(
                id=secrets.token_hex(4), name=name, role=role, created=datetime.now(UTC),
                token=secret,
            )  # fmt: skip
            fields = made.model_dump(exclude={"token"})
            self._write([*kept, _Kept(**fields, digest=_digest(secret))])
        return made

    def all(self) -> list[Token]:
        """Returns the tokens, oldest first."""
        return [_public(one) for one in self._read()]

    def revoke(self, name: str) -> Token:
        """Revokes a token by its id or name.

        Raises:
            UnknownToken: There is none.
        """
        with locked(self.path):
            kept = self._read()
            found = next((one for one in kept if name in (one.id, one.name)), None)
            if found is None:
                raise UnknownToken(
                    f"there is no token '{name}'", hint="`editkit token list` shows them"
                )
            self._write([one for one in kept if one is not found])
        return _public(found)

    def find(self, secret: str) -> Token | None:
        """Returns the token with this secret, if there is one."""
        digest = _digest(secret)
        found = None
        # Always compares all of them, so that the duration reveals nothing.
        for one in self._read():
            if hmac.compare_digest(one.digest, digest):
                found = _public(one)
        return found

    def _read(self) -> list[_Kept]:
        try:
            stat = os.stat(self.path)
        except FileNotFoundError:
            self._seen, self._kept = None, []
            return []
        seen = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if seen != self._seen:
            if not is_private(self.path):
                raise UnsafeTokens(
                    f"others may read or write '{self.path}'",
                    hint=f"chmod 600 {self.path}, and revoke what you do not know",
                )
            try:
                self._kept = _LIST.validate_json(self.path.read_text(encoding="utf-8"))
            except (ValidationError, UnicodeDecodeError) as error:
                raise UnsafeTokens(
                    f"'{self.path}' is not a file of tokens",
                    hint="remove it, and create the tokens again",
                ) from error
            self._seen = seen
        return list(self._kept)

    def _write(self, kept: list[_Kept]) -> None:
        text = json.dumps(_LIST.dump_python(kept, mode="json"), indent=1)
        write_private(self.path, text + "\n")


def _digest(secret: str) -> str:
    return "sha256:" + hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _public(one: _Kept) -> Token:
    return Token(**one.model_dump(exclude={"digest"}))
