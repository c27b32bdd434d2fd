"""`editkit serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from editkit_cli.terminal.group import command
from editkit_cli.terminal.options import Settings

if TYPE_CHECKING:
    from editkit_cli.http.serving import ServerStarted
    from editkit_cli.terminal.output import Output

__all__ = ["check_installed", "serve"]

DEFAULT_PORT = 8377


@command(
    "serve",
    example="editkit serve --model smollm2-135m\neditkit serve --store history.db --port 0 --nl",
    shared=("store", "model", "judge", "json", "nl", "quiet"),
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen at"
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True, metavar="N",
    help="Port to listen at; 0 takes any that is free",
)  # fmt: skip
@click.option(
    "--allow-host", "hosts", multiple=True, metavar="NAME",
    help="Also answer to this host name (repeatable)",
)  # fmt: skip
@click.option(
    "--allow-origin", "origins", multiple=True, metavar="ORIGIN",
    help="Also take requests of pages from there, e.g. https://app.example (repeatable)",
)  # fmt: skip
@click.option(
    "--readers", type=click.IntRange(1, 64), default=2, show_default=True, metavar="N",
    help="Threads that generate",
)  # fmt: skip
@click.option(
    "--time-limit", type=click.FloatRange(min=1), default=120.0, show_default=True,
    metavar="SECONDS", help="How long a request may take",
)  # fmt: skip
def serve(
    settings: Settings,
    host: str,
    port: int,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
    readers: int,
    time_limit: float,
) -> None:
    """Run the model behind HTTP, with OpenAI's API and more.

    On a terminal it prints a link to its web page, signed in: chat, correct an answer, look at the
    history. `editkit token link` makes another.

    Corrections under /v1/edits take effect at once. Whoever can read the file PATH.server beside
    the store has the key to everything from this machine; others need a token, see `editkit token`.
    Agents connect to /mcp.

    Ctrl-C ends it, after the changes that are being made.
    """
    check_installed("fastapi", "uvicorn", "prometheus_client", "mcp")
    from editkit_cli.backend.opening import open_kit
    from editkit_cli.http.serving import AddressTaken, is_local, listen
    from editkit_cli.http.serving import serve as run
    from editkit_cli.mcp.endpoint import McpEndpoint
    from editkit_cli.service.limits import Limits
    from editkit_cli.service.owner import find_server

    out = settings.out
    there = find_server(settings.path)
    if there is not None:
        raise AddressTaken(
            f"process {there.pid} serves '{settings.store}' already, at {there.url}",
            hint="use that one, or stop it first",
        )
    # Before the model is loaded, so that a port in use is reported at once.
    sockets = listen(host, port)
    if not is_local(host):
        out.warning(
            "other machines can reach this server, and their requests are not encrypted",
            hint="put a proxy that speaks TLS in front of it",
        )
    try:
        with open_kit(settings) as kit:
            given_up = run(
                kit, sockets, limits=Limits(readers=readers, seconds=time_limit),
                hosts=hosts, origins=origins, mounts=(McpEndpoint(),),
                ready=lambda served: _tell(out, served),
            )  # fmt: skip
    finally:
        for one in sockets:
            one.close()
    # After the store was closed, because that may fail.
    out.status(
        f"stopped; {given_up} waiting changes were given up"
        if given_up
        else "stopped; all changes are saved"
    )


def check_installed(*packages: str) -> None:
    """Checks that optional libraries are installed.

    Args:
        *packages: Their import names.

    Raises:
        PackageMissing: One is not installed; says how to install it.
    """
    from importlib.util import find_spec

    for package in packages:
        if find_spec(package) is None:
            from editkit.errors import PackageMissing

            raise PackageMissing(
                f"serving needs '{package}', which is not installed",
                package=package,
                hint="pip install 'editkit[server]'",
            )


def _tell(out: Output, served: ServerStarted) -> None:
    out.result(served, lambda: out.text(f"{served.url}  {served.model} at {served.version}"))
    out.confide(f"the page, signed in (once, within 15 minutes): {served.link}")
