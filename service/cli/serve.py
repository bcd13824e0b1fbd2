"""`ragstone serve`: the HTTP server, in the foreground."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from service.cli.output import note


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; else the setting.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port; else the setting.")
    ] = None,
) -> None:
    """Serve HTTP until stopped.

    That is the OpenAI-compatible API, search, answers, and the chat page at the root.
    """
    from infra.settings import load_settings
    from service.server import run

    given: dict[str, Any] = {"host": host, "port": port}
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = load_settings(server=chosen) if chosen else load_settings()
    if sys.stderr.isatty():
        address = f"http://{settings.server.host}:{settings.server.port}"
        note(f"Ragstone is about to listen on {address}; Ctrl-C stops it")
    run(settings)
