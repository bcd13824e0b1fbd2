"""`ragstone models forget`: predictions that are kept, removed by model, version, key or age."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from infra.errors import InvalidRequest
from service.cli.output import Json, Yes, note, print_json, print_table
from service.cli.session import opened

if TYPE_CHECKING:
    from service.models.batch_caching import Forgot
    from service.prediction.forgetting import Wanted

_MODEL = re.compile(r"(?P<name>[^@]+)(@v(?P<version>[1-9]\d{0,9}))?")


def forget(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="NAME, or NAME@v3; else all of them."),
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=VALUE", help="Of the rows that have all of these."),
    ] = None,
    before_days: Annotated[
        float | None, typer.Option(min=0, help="What is older than so many days.")
    ] = None,
    tenant: Annotated[str | None, typer.Option(help="Of this tenant alone.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    yes: Yes = False,
    json: Json = False,
) -> None:
    """Remove predictions that a job stored for requests; this cannot be undone.

    With --key also what the log of interactions keeps of these rows. The artifacts that jobs wrote
    are left, and named.
    """
    from service.models import batch_caching

    wanted = _wanted(model, key or (), before_days=before_days, tenant=tenant)
    with opened() as parts:
        if not yes and not dry_run:
            seen = batch_caching.forget(parts, wanted, dry_run=True)
            rows = sum(each.rows for each in seen.stored)
            question = f"Forget {rows:,} stored predictions, and {seen.logged:,} of the log?"
            typer.confirm(question, abort=True, err=True)
        done = batch_caching.forget(parts, wanted, dry_run=dry_run)
    if json:
        print_json({"dry_run": dry_run, **_as_dict(done)})
    else:
        _tell(done, dry_run=dry_run)


def _wanted(
    model: str | None, key: list[str] | tuple[()], *, before_days: float | None, tenant: str | None
) -> Wanted:
    from datetime import UTC, datetime, timedelta

    from service.prediction.forgetting import Wanted

    if model is None and not key and before_days is None:
        raise InvalidRequest("Say what is to be forgotten: MODEL, --key or --before-days")
    match = _MODEL.fullmatch(model) if model is not None else None
    if model is not None and match is None:
        raise InvalidRequest(f"{model!r} is neither NAME nor NAME@v3")
    pairs = [each.partition("=") for each in key]
    if wrong := next((name + sign + value for name, sign, value in pairs if not sign), None):
        raise InvalidRequest(f"--key {wrong!r} is no COLUMN=VALUE")
    names = [name for name, _, _ in pairs]
    if again := next((name for name in names if names.count(name) > 1), None):
        raise InvalidRequest(f"--key: {again!r} is given twice; forget one value after the other")
    version = match["version"] if match else None
    return Wanted(
        model=match["name"].removeprefix("model/") if match else None,
        version=None if version is None else int(version),
        key={name: value for name, _, value in pairs},
        until=None if before_days is None else datetime.now(UTC) - timedelta(days=before_days),
        tenant=tenant,
    )


def _as_dict(done: Forgot) -> dict[str, object]:
    return {
        "stored": [each.as_dict() for each in done.stored],
        "logged": done.logged,
        "under_way": done.under_way,
        "artifacts": done.artifacts,
    }


def _tell(done: Forgot, *, dry_run: bool) -> None:
    rows = [
        (each.model, f"{each.rows:,}", each.tenant, f"{each.at:%Y-%m-%d %H:%M}", each.artifact)
        for each in done.stored
    ]
    if rows:
        print_table(("model", "rows", "tenant", "stored", "also in"), rows, numbers=("rows",))
    count = sum(each.rows for each in done.stored)
    would = "Would forget" if dry_run else "Forgot"
    note(f"{would} {count:,} stored predictions, and the content of {done.logged:,} of the log")
    for job in done.under_way:
        note(f"{job} is storing predictions now: forget again when it has ended")
    if done.artifacts:
        note("Artifacts hold them still; `ragstone artifacts expire` and `gc` remove these")
