"""Resolving a model name to a folder, GGUF file, alias or hub repository. Needs no torch."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import ModelUnavailable, UnknownModel
from .aliases import Alias, close_matches, find_alias
from .hub import is_hub_id

__all__ = ["Source", "resolve"]


@dataclass(frozen=True, slots=True)
class Source:
    """A resolved model name.

    Attributes:
        kind: Kind of source.
        name: Canonical name: alias, hub id, or name of the folder or file.
        path: The folder or file, for kinds ``folder`` and ``gguf``.
        alias: Its row in the table, for kind ``alias``.
        hub_id: Repository on the hub, for kinds ``alias`` and ``hub``.
    """

    kind: Literal["folder", "gguf", "alias", "hub"]
    name: str
    path: Path | None = None
    alias: Alias | None = None
    hub_id: str | None = None


def resolve(name: str) -> Source:
    """Resolves a name, without fetching anything.

    An existing folder or GGUF file takes precedence, then aliases, then hub ids. A folder without
    ``config.json`` does not hide an alias of the same name, e.g. a folder of notes named ``gpt2``.

    Raises:
        UnknownModel: There is nothing with that name.
        ModelUnavailable: The folder of that name does not contain a model.
    """
    if not name.strip():
        raise UnknownModel("the model name is empty", name=name, hint=_LIST_HINT)
    alias = find_alias(name)
    try:
        path = Path(name).expanduser()
        if path.is_dir() and ((path / "config.json").is_file() or alias is None):
            return _folder(path.resolve(), name)
        if path.is_file():
            return _file(path.resolve(), name)
    except (OSError, RuntimeError) as error:
        # E.g. a name that is too long, an inaccessible folder, or an unknown user's home.
        raise UnknownModel(
            f"{name[:80]!r} cannot be looked up: {error}", name=name, hint=_LIST_HINT
        ) from error
    if alias is not None:
        return Source("alias", alias.name, alias=alias, hub_id=alias.hub_id)
    if not _looks_like_path(name) and is_hub_id(name):
        return Source("hub", name, hub_id=name)
    raise _unknown(name)


_LIST_HINT = "`editkit models list` shows the names; a hub id or a folder will do as well"


def _looks_like_path(name: str) -> bool:
    return (
        name.startswith((".", "/", "~", "\\"))
        or name.lower().endswith(".gguf")
        or re.match(r"[A-Za-z]:[\\/]", name) is not None
        or name.count("/") > 1
        or name.endswith("/")
    )


def _folder(path: Path, asked: str) -> Source:
    if (path / "config.json").is_file():
        return Source("folder", path.name, path=path)
    files = sorted(file.name for file in path.glob("*.gguf"))
    if files:
        hint = f"it holds GGUF files; name one of them, e.g. `{path / files[0]}`"
    elif (path / "adapter_config.json").is_file():
        hint = "it holds an adapter, not a whole model; merge it into its base model first"
    else:
        hint = "a model folder holds config.json, safetensors files and a tokenizer"
    raise ModelUnavailable(
        f"the folder {asked!r} has no config.json, so it holds no model that can be loaded",
        name=asked,
        reason="damaged",
        hint=hint,
    )


def _file(path: Path, asked: str) -> Source:
    if path.suffix.lower() == ".gguf":
        return Source("gguf", path.stem, path=path)
    raise UnknownModel(
        f"{asked!r} is a file, but not a GGUF file",
        name=asked,
        hint=f"pass the folder that holds it: `{path.parent}`",
    )


def _unknown(name: str) -> UnknownModel:
    if _looks_like_path(name):
        return UnknownModel(
            f"there is no folder or GGUF file {name!r}",
            name=name,
            hint=f"relative paths start at the working folder, {str(Path.cwd())!r}",
        )
    matches = close_matches(name)
    suggestion = f"did you mean {', '.join(matches)}? " if matches else ""
    return UnknownModel(
        f"no model named {name!r}: it is no alias, no folder here, and no hub id of the form "
        "owner/name",
        name=name,
        matches=matches,
        hint=suggestion + _LIST_HINT,
    )
