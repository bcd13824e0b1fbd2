"""`ragstone init`: writes a commented ragstone.toml, and a first key where one is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.output import Json, note, print_json, say

FILE = "ragstone.toml"


def init(
    host: Annotated[str, typer.Option(help="Address the server listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the server.")] = 8000,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    json: Json = False,
) -> None:
    """Write a ragstone.toml with every setting.

    It goes to the current folder; what is not chosen is shown commented out. If the host is not
    this machine alone, a first API key is made and shown, once.
    """
    path = Path(FILE)
    _write(path, host=host, port=port, force=force)
    key = _first_key(host)
    if json:
        print_json({"path": str(path.resolve()), "key": key})
        return
    say(f"Wrote {path}")
    if key is not None:
        note("Keep this key; it is not shown again. Clients send `Authorization: Bearer KEY`.")
        typer.echo(key)
    say("Next: ragstone ingest PATH, then ragstone ask QUESTION or ragstone serve")


def _write(path: Path, *, host: str, port: int, force: bool) -> None:
    from infra.errors import Conflict
    from service.cli.settings_text import write_toml

    if path.exists() and not force:
        raise Conflict(f"{str(path)!r} exists; --force replaces it")
    path.write_text(write_toml({"server.host": host, "server.port": port}), encoding="utf-8")
    path.chmod(0o600)  # a database password may come to stand in it


def _first_key(host: str) -> str | None:
    """Return a new key for a server that others can reach, unless it has one already."""
    from service.authentication import is_loopback
    from service.cli.session import opened

    if is_loopback(host):
        return None
    with opened() as parts:
        return None if parts.keys.list() else parts.keys.create("first")[1]
