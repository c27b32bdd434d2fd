"""`editkit init`."""

from __future__ import annotations

from editkit_cli.backend.opening import open_history
from editkit_cli.terminal.group import command
from editkit_cli.terminal.options import Settings

__all__ = ["init"]


@command(
    "init",
    example="editkit init --model smollm2-135m",
    shared=("store", "model", "judge", "json", "quiet"),
)
def init(settings: Settings) -> None:
    """Create the store and remember the model.

    A store that is there keeps its history; with --model it remembers that model from now on, and
    with --judge what decides which edit a prompt asks for. The model's name is checked, nothing is
    fetched.
    """
    model = None if settings.model is None else _known_name(settings.model)
    existed = settings.path.exists()
    with open_history(settings) as history:
        made = history.init_store(model, settings.judge).model_copy(
            update={"store": settings.store}
        )
    out = settings.out
    if existed:
        out.status("the store exists already; its history is kept")
    uses = made.model or "the default model"
    out.result(made, lambda: out.text(f"{made.store} at {made.version}, for {uses}"))


def _known_name(name: str) -> str:
    """What the store remembers: a path in full, so that it holds in any folder; else the name."""
    from editkit.models import resolve

    source = resolve(name)
    return source.name if source.path is None else str(source.path)
