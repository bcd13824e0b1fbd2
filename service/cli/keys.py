"""`ragstone keys`: API keys, created and shown once, listed, revoked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import Json, Yes, note, print_json, print_table, say
from service.cli.session import opened

if TYPE_CHECKING:
    from service.keys import Key

app = typer.Typer(
    help="Create, list and revoke API keys.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for; must be new.")],
    expires_in_days: Annotated[
        float | None, typer.Option(min=0, help="Days after which the key is refused.")
    ] = None,
    json: Json = False,
) -> None:
    """Create a key and show it; only its hash is stored, so it cannot be shown again."""
    from datetime import timedelta

    with opened() as parts:
        lifetime = timedelta(days=expires_in_days) if expires_in_days else None
        key, text = parts.keys.create(name, expires_in=lifetime)
    if json:
        print_json({**_row(key), "key": text})
    else:
        note("Keep this key; it is not shown again.")
        typer.echo(text)


@app.command("list")
def list_keys(json: Json = False) -> None:
    """List the keys, the revoked and expired ones too."""
    with opened() as parts:
        rows = [_row(key) for key in parts.keys.list()]
    if json:
        print_json(rows)
    elif rows:
        columns = ("name", "state", "created_at", "expires_at", "last_used_at", "id")
        print_table(columns, [[_cell(row[column]) for column in columns] for row in rows])
    else:
        note("No keys; create one with `ragstone keys create NAME`")


@app.command("revoke")
def revoke(
    name: Annotated[str, typer.Argument(help="Name or id of the key.")],
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Shut a key out from the next request on; this cannot be undone."""
    with opened() as parts:
        key = parts.keys.get(name)
        if not yes:
            typer.confirm(f"Revoke key {key.name!r}?", abort=True, err=True)
        key = parts.keys.revoke(key.id)
    if json:
        print_json(_row(key))
    else:
        say(f"Revoked {key.name!r}")


def _row(key: Key) -> dict[str, Any]:
    from datetime import UTC, datetime

    state = "revoked" if key.revoked_at else "valid"
    return {
        "id": key.id,
        "name": key.name,
        "state": state if key.revoked_at or key.is_valid(datetime.now(UTC)) else "expired",
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    }


def _cell(value: Any) -> str:
    return f"{value:%Y-%m-%d %H:%M}" if hasattr(value, "strftime") else str(value or "")
