"""`editkit status`."""

from __future__ import annotations

from editkit_cli.backend.opening import open_history
from editkit_cli.terminal.group import command
from editkit_cli.terminal.options import Settings
from editkit_cli.terminal.output import Output
from editkit_cli.terminal.tables import megabytes, short_digest
from editkit_store.records import Status

__all__ = ["status"]


@command("status", example="editkit status --json")
def status(settings: Settings) -> None:
    """Show where the store stands."""
    with open_history(settings) as history:
        found = history.status()
    out = settings.out
    out.result(found, lambda: _draw_status(out, found))
    for warning in found.warnings:
        out.warning(warning)


def _draw_status(out: Output, found: Status) -> None:
    learned = [
        f"{count} on {short_digest(fingerprint)}" for fingerprint, count in found.models.items()
    ]
    out.fields(
        ("store", f"{found.store} ({megabytes(found.store_bytes)})"),
        (
            "space",
            ", ".join(
                f"{name.replace('_', ' ')} {megabytes(size)}"
                for name, size in found.space.items()
                if size
            ),
        ),
        ("version", found.version),
        ("edits", f"{found.edits} active"),
        ("operations", str(found.operations)),
        ("model", found.model or "none remembered"),
        ("fingerprint", found.fingerprint or ""),
        ("learned", ", ".join(learned)),
        ("tags", ", ".join(f"{name} = {version}" for name, version in found.tags.items())),
        ("schema", str(found.schema_version)),
        ("server", found.server or ""),
    )
