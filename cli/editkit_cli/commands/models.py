"""`editkit models`."""

from __future__ import annotations

from collections.abc import Sequence

import click

from editkit_cli.terminal.group import command
from editkit_cli.terminal.interrupts import keeping
from editkit_cli.terminal.options import Settings
from editkit_cli.terminal.output import Output
from editkit_cli.terminal.tables import Column
from editkit_store.records import ModelInfo

__all__ = ["models"]


@click.group("models", help="List the models known by name, and fetch them")
def models() -> None:
    """The noun whose verbs are below."""


@command("list", example="editkit models list", shared=("json", "nl", "quiet"))
def list_(settings: Settings) -> None:
    """List the models known by name, and which of them are here.

    Any other model of the hub (owner/name), a local folder and a GGUF file will do as well.
    """
    from editkit.models import list_models

    found = list_models()
    out = settings.out
    out.result(found, lambda: _draw_models(out, found))


def _draw_models(out: Output, found: Sequence[ModelInfo]) -> None:
    out.table(
        (Column("name", style="bold"), Column("size", right=True), Column("here"),
         Column("from", style="dim"), Column("licence"), Column("note", flexible=True)),
        [
            (
                one.name,
                one.parameters,
                "yes" if one.cached else "",
                one.hub_id or "",
                one.license + (" (gated)" if one.gated else ""),
                one.note,
            )
            for one in found
        ],
    )  # fmt: skip


@command(
    "pull",
    example="editkit models pull smollm2-135m\neditkit models pull HuggingFaceTB/SmolLM2-360M",
    shared=("pickle", "json", "quiet"),
)
@click.argument("name", metavar="NAME")
def pull(settings: Settings, name: str) -> None:
    """Fetch a model into the cache folder.

    A model that was fetched before is not fetched again, unless its copy was altered.
    NAME is an alias or a hub id (owner/name).
    """
    from editkit.models import pull_model

    out = settings.out
    with keeping(lambda: "no partial model is kept; run the command again"):
        info = pull_model(name, progress=out.progress(), allow_pickle=settings.allow_pickle)
    out.result(info, lambda: out.text(f"{info.name} is in {info.path}"))


models.add_command(list_)
models.add_command(pull)
