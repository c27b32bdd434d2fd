"""The store itself: making one, and where it stands. Loads no model."""

from __future__ import annotations

from editkit_cli.group import command
from editkit_cli.options import Settings
from editkit_cli.output import Output
from editkit_cli.tables import short_digest
from editkit_store import open_store
from editkit_store.records import Initialized, Status

__all__ = ["init", "status"]


@command(
    "init",
    example="editkit init --model smollm2-135m",
    shared=("store", "model", "json", "quiet"),
)
def init(settings: Settings) -> None:
    """Create the store and remember the model.

    A store that is there keeps its history; with --model it remembers that model from now on.
    The model's name is checked, nothing is fetched.
    """
    model = None if settings.model is None else _known_name(settings.model)
    existed = settings.path.exists()
    with open_store(settings.path, write=True, create=True) as store:
        if model is not None:
            store.remember(model=model)
        made = Initialized(
            store=settings.store, model=store.setting("model"), version=store.version()
        )
    out = settings.out
    if existed:
        out.status("the store was there already; its history is kept")
    uses = made.model or "the default model"
    out.result(made, lambda: out.text(f"{made.store} at {made.version}, for {uses}"))


def _known_name(name: str) -> str:
    """What the store remembers: a path in full, so that it holds in any folder; else the name."""
    from editkit.models import resolve

    source = resolve(name)
    return source.name if source.path is None else str(source.path)


@command("status", example="editkit status --json")
def status(settings: Settings) -> None:
    """Show where the store stands."""
    with open_store(settings.path) as store:
        found = store.status()
    out = settings.out
    out.result(found, lambda: _draw_status(out, found))


def _draw_status(out: Output, found: Status) -> None:
    learned = [
        f"{count} on {short_digest(fingerprint)}" for fingerprint, count in found.models.items()
    ]
    out.fields(
        ("store", f"{found.store} ({found.store_bytes / 1e6:.1f} MB)"),
        ("version", found.version),
        ("edits", f"{found.edits} active"),
        ("operations", str(found.operations)),
        ("model", found.model or "none remembered"),
        ("fingerprint", found.fingerprint or ""),
        ("learned", ", ".join(learned)),
        ("tags", ", ".join(f"{name} = {version}" for name, version in found.tags.items())),
        ("schema", str(found.schema_version)),
    )
