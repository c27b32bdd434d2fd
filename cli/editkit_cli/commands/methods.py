"""`editkit methods`: the editing methods that installed packages register."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from pydantic import Field

from editkit_cli.terminal.group import command
from editkit_cli.terminal.options import Settings
from editkit_cli.terminal.output import Output
from editkit_cli.terminal.tables import Column
from editkit_store.records import Record

if TYPE_CHECKING:
    from editkit.methods.registry import Registered

__all__ = ["InstalledMethod", "methods"]


class InstalledMethod(Record):
    """A row of `methods list`."""

    name: str
    packages: tuple[str, ...] = Field(
        description="Distributions that register it; several only if their names clash"
    )
    version: str | None = Field(description="Version of the distribution")
    usable: bool = Field(description="Whether it can be imported")
    fault: str | None = Field(description="Why it cannot be used")
    about: str = ""


@click.group("methods", help="List the editing methods that are installed")
def methods() -> None:
    """The noun whose verb is below."""


@command(
    "list",
    example="editkit methods list\neditkit methods list --json",
    shared=("json", "nl", "quiet"),
)
def list_(settings: Settings) -> None:
    """List the editing methods that installed packages register.

    Each of them is imported, to see whether it can be used. A package registers a method through
    the entry-point group editkit.methods.
    """
    from editkit.methods.registry import registered

    found = [_inspect(one) for one in registered().values()]
    out = settings.out
    out.result(found, lambda: _draw_methods(out, found))
    for one in found:
        if one.fault is not None:
            out.warning(f"the method '{one.name}' cannot be used: {one.fault}")


def _inspect(method: Registered) -> InstalledMethod:
    fault = method.fault
    if method.spec is not None:
        try:
            method.spec.load()
        except Exception as error:  # a package may raise anything when it is imported
            package = method.packages[0]
            fault = f"the package '{package}' fails to load: {type(error).__name__}: {error}"
    return InstalledMethod(
        name=method.name,
        packages=method.packages,
        version=_version(method.packages[0]) if len(method.packages) == 1 else None,
        usable=fault is None,
        fault=fault,
        about="" if method.spec is None else method.spec.about,
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # registered without a distribution
        return None


def _draw_methods(out: Output, found: Sequence[InstalledMethod]) -> None:
    out.table(
        (Column("name", style="bold"), Column("package"), Column("version"), Column("usable"),
         Column("about", flexible=True)),
        [
            (
                one.name,
                ", ".join(one.packages),
                one.version or "",
                "yes" if one.usable else "no",
                one.about,
            )
            for one in found
        ],
    )  # fmt: skip


methods.add_command(list_)
