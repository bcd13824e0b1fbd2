"""`ragstone keys`: API keys, created and shown once, listed, changed, rotated, revoked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from service.cli.output import Json, Yes, note, print_json, print_table, say
from service.cli.session import opened

if TYPE_CHECKING:
    from service.callers import Scope
    from service.keys import Changes, Key

Name = Annotated[str, typer.Argument(help="Name or id of the key.")]
Scopes = Annotated[
    list[str] | None,
    typer.Option("--scope", help="What it opens: ask, models, read, write, admin; else all."),
]
Groups = Annotated[
    list[str] | None, typer.Option("--group", help="A group whose documents it may see.")
]
Models = Annotated[
    list[str] | None, typer.Option("--model", help="A pattern of models, such as 'small-*'.")
]
CollectionPatterns = Annotated[
    list[str] | None, typer.Option("--collection", help="A pattern of collections.")
]
ExpiresInDays = Annotated[
    float | None, typer.Option(min=0, help="Days after which the key is refused.")
]
Limit = Annotated[int | None, typer.Option(min=0, help="0 is no limit.")]

app = typer.Typer(
    help="Create, list, change and revoke API keys.", no_args_is_help=True, rich_markup_mode=None
)


@app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for; must be new.")],
    scope: Scopes = None,
    tenant: Annotated[
        str | None, typer.Option(help="Confines it to this tenant's documents.")
    ] = None,
    group: Groups = None,
    model: Models = None,
    collection: CollectionPatterns = None,
    expires_in_days: ExpiresInDays = None,
    requests_per_minute: Limit = None,
    tokens_per_minute: Limit = None,
    max_concurrent: Limit = None,
    budget: Annotated[str | None, typer.Option(help="Money it may spend: 12.50.")] = None,
    budget_period: Annotated[
        Literal["total", "day", "month"], typer.Option(help="What the budget is for.")
    ] = "total",
    json: Json = False,
) -> None:
    """Create a key and show it; only its hash is stored, so it cannot be shown again."""
    from service.callers import Limits
    from service.gateway.prices import parse_amount
    from service.keys import Opens, lifetime

    amount = None if budget is None else parse_amount(budget)
    opens = Opens(
        tenant=tenant,
        groups=tuple(group or ()),
        scopes=_scopes(scope),
        models=_listed(model),
        collections=_listed(collection),
        limits=Limits(
            requests_per_minute or None, tokens_per_minute or None, max_concurrent or None
        ),
    )
    with opened() as parts:
        key, text = parts.keys.create(name, expires_in=lifetime(expires_in_days), opens=opens)
        if amount is not None:
            parts.budgets.put("key", key.id, period=budget_period, amount=amount)
    _show_text(key, text, json=json)


@app.command("list")
def list_keys(json: Json = False) -> None:
    """List the keys, the revoked and expired ones too."""
    with opened() as parts:
        rows = [_row(key) for key in parts.keys.list()]
    if json:
        print_json(rows)
    elif rows:
        columns = ("name", "state", "tenant", "created_at", "expires_at", "last_used_at", "id")
        print_table(columns, [[_cell(row[column]) for column in columns] for row in rows])
    else:
        note("No keys; create one with `ragstone keys create NAME`")


@app.command("show")
def show(name: Name, json: Json = False) -> None:
    """Show what a key opens and how much it may use, but not the key itself."""
    with opened() as parts:
        row = _row(parts.keys.get(name))
    _show(row, json=json)


@app.command("set")
def set_key(
    name: Name,
    scope: Scopes = None,
    group: Groups = None,
    model: Models = None,
    collection: CollectionPatterns = None,
    expires_in_days: ExpiresInDays = None,
    requests_per_minute: Limit = None,
    tokens_per_minute: Limit = None,
    max_concurrent: Limit = None,
    json: Json = False,
) -> None:
    """Change what a key opens and may use; what is left out stays as it is."""
    from datetime import UTC, datetime

    from service.keys import lifetime

    changes: Changes = {}
    if scope:
        changes["scopes"] = _scopes(scope)
    if group:
        changes["groups"] = tuple(group)
    if model:
        changes["models"] = tuple(model)
    if collection:
        changes["collections"] = tuple(collection)
    if (time := lifetime(expires_in_days)) is not None:
        changes["expires_at"] = datetime.now(UTC) + time
    if requests_per_minute is not None:
        changes["requests_per_minute"] = requests_per_minute or None
    if tokens_per_minute is not None:
        changes["tokens_per_minute"] = tokens_per_minute or None
    if max_concurrent is not None:
        changes["max_concurrent"] = max_concurrent or None
    if not changes:
        raise typer.BadParameter("say what to change, such as --requests-per-minute 60")
    with opened() as parts:
        row = _row(parts.keys.change(name, changes))
    _show(row, json=json)


@app.command("rotate")
def rotate(
    name: Name,
    grace_hours: Annotated[
        float, typer.Option(min=0, help="For how long the old text opens still.")
    ] = 0.0,
    json: Json = False,
) -> None:
    """Give a key another text and show it; what it opens and has used stays."""
    from datetime import timedelta

    with opened() as parts:
        key, text = parts.keys.rotate(name, grace=timedelta(hours=grace_hours))
    _show_text(key, text, json=json)


@app.command("revoke")
def revoke(name: Name, yes: Yes = False, json: Json = False) -> None:
    """Shut a key out, within a second; this cannot be undone."""
    with opened() as parts:
        key = parts.keys.get(name)
        if not yes:
            typer.confirm(f"Revoke key {key.name!r}?", abort=True, err=True)
        key = parts.keys.revoke(key.id)
    if json:
        print_json(_row(key))
    else:
        say(f"Revoked {key.name!r}")


def _scopes(words: list[str] | None) -> tuple[Scope, ...] | None:
    from typing import cast

    return cast("tuple[Scope, ...] | None", _listed(words))  # looked at where keys are made


def _listed(words: list[str] | None) -> tuple[str, ...] | None:
    return tuple(words) if words else None


def _show_text(key: Key, text: str, *, json: bool) -> None:
    if json:
        print_json({**_row(key), "key": text})
    else:
        note("Keep this key; it is not shown again.")
        typer.echo(text)


def _show(row: dict[str, Any], *, json: bool) -> None:
    if json:
        print_json(row)
    else:
        print_table(("what", "value"), [(name, _cell(value)) for name, value in row.items()])


def _row(key: Key) -> dict[str, Any]:
    from datetime import UTC, datetime

    from service.callers import SCOPES

    caller, limits = key.caller, key.caller.limits
    return {
        "id": key.id,
        "name": key.name,
        "state": key.state(datetime.now(UTC)),
        "tenant": caller.tenant,
        "groups": sorted(caller.groups),
        "scopes": sorted(caller.scopes & SCOPES),
        "models": caller.models,
        "collections": caller.collections,
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "max_concurrent": limits.max_concurrent,
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "last_used_at": key.last_used_at,
    }


def _cell(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(value)
    return f"{value:%Y-%m-%d %H:%M}" if hasattr(value, "strftime") else str(value or "")
