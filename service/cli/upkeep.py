"""The artifact store's upkeep in the terminal: verify, repair, collect, mirror, expire."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import Json, note, print_json, say, waiting
from service.cli.session import opened

if TYPE_CHECKING:
    from infra.artifacts.storage import Storage
    from infra.artifacts.store import ArtifactStore
    from infra.artifacts.verify import Report
    from service.wiring import Components

Ref = Annotated[str, typer.Argument(metavar="REFERENCE", help="Such as dataset/faq@v3.")]
Place = Annotated[
    str, typer.Argument(metavar="STORE", help="Folder or URL of another store, such as s3://...")
]


def verify(
    references: Annotated[
        list[str] | None,
        typer.Argument(metavar="[REFERENCE]...", help="By default every version there is."),
    ] = None,
    share: Annotated[
        float, typer.Option(min=0.0001, max=1, help="Share of the files to read.")
    ] = 1.0,
    json: Json = False,
) -> None:
    """Read files again and say what is not as it was; the exit code is 1 if anything is wrong."""
    from infra.artifacts.verify import Sample

    with opened() as parts:
        chosen = references or _every_version(parts)
        reports = {}
        for reference in chosen:
            with waiting(f"reading {reference}"):
                reports[reference] = parts.artifacts.verify(reference, Sample(share))
    _print_reports(reports, json=json)


def repair(reference: Ref, mirror: Place, json: Json = False) -> None:
    """Mend what `verify` finds with the bytes of another store."""
    with opened() as parts, waiting("repairing"):
        report = parts.artifacts.repair(reference, _storage(parts, mirror))
    _print_reports({reference: report}, json=json)


def gc(
    grace_hours: Annotated[
        float, typer.Option(min=0, help="Younger objects stay: a writer may be at work.")
    ] = 24,
    trash_days: Annotated[
        float, typer.Option(min=0, help="How long the trash is kept before it goes for good.")
    ] = 7,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count only.")] = False,
    json: Json = False,
) -> None:
    """Collect what no version, alias or reader keeps."""
    from datetime import timedelta

    from infra.artifacts.gc import Policy
    from service import stored_models

    policy = Policy(timedelta(hours=grace_hours), timedelta(days=trash_days), dry_run)
    with opened() as parts, waiting("collecting"):
        found = parts.artifacts.gc(policy, roots=lambda: stored_models.used(parts))
    if json:
        print_json(found)
        return
    would = "would go" if dry_run else "went"
    say(f"{found.artifacts} artifacts have no name left")
    say(f"{found.trashed} objects ({found.trashed_bytes} bytes) {would} to the trash")
    say(f"{found.purged} objects ({found.purged_bytes} bytes) {would} for good")


def sync(
    reference: Ref,
    store: Place,
    fetch: Annotated[
        bool, typer.Option("--fetch", help="Bring it from there to here instead.")
    ] = False,
    database: Annotated[
        str | None,
        typer.Option(help="The other store's database; of a folder, by default a file in it."),
    ] = None,
    json: Json = False,
) -> None:
    """Bring an artifact to another store; only what is missing there travels."""
    with opened() as parts:
        other = _open(parts, store, database)
        try:
            here = parts.artifacts
            with waiting("copying"):
                moved = other.sync(reference, here) if fetch else here.sync(reference, other)
        finally:
            other.database.close()
    if json:
        print_json(moved)
    else:
        say(f"{moved.objects} objects, {moved.bytes} bytes travelled")


def expire(
    reference: Ref,
    in_days: Annotated[float, typer.Option(min=0, help="From then on, not from now on.")] = 0,
) -> None:
    """Say from when on a version keeps its files no longer; `gc` collects them then."""
    from datetime import UTC, datetime, timedelta

    at = datetime.now(UTC) + timedelta(days=in_days)
    with opened() as parts:
        parts.artifacts.expire(reference, at)
    say(f"{reference} expires at {at:%Y-%m-%d %H:%M %Z}")


def _every_version(parts: Components) -> list[str]:
    return [
        str(version.reference)
        for name in parts.artifacts.names()
        for version in parts.artifacts.versions(f"{name.kind}/{name.name}")
    ]


def _open(parts: Components, location: str, database: str | None) -> ArtifactStore:
    from pathlib import Path

    from infra.artifacts.store import open_store
    from infra.database.engine import Database
    from infra.database.migrate import upgrade
    from infra.errors import InvalidRequest

    if database is None and "://" in location:
        raise InvalidRequest(
            f"The names of the store at {location!r} are in a database; give it with --database"
        )
    opened_there = Database(database or f"sqlite:///{Path(location).absolute() / 'ragstone.db'}")
    upgrade(opened_there)
    return open_store(location, opened_there, **parts.settings.artifacts.storage_options)


def _storage(parts: Components, location: str) -> Storage:
    from pathlib import Path

    from infra.artifacts.bucket import connect
    from infra.artifacts.contents import MARK
    from infra.artifacts.folder import Folder
    from infra.errors import NotFound

    storage: Storage
    if "://" in location:
        storage = connect(location, **parts.settings.artifacts.storage_options)
    else:
        storage = Folder(Path(location))
    if storage.size(MARK) is None:
        raise NotFound("artifact store", location)
    return storage


def _print_reports(reports: dict[str, Report], *, json: bool) -> None:
    if json:
        print_json([{"reference": name, **_as_dict(each)} for name, each in reports.items()])
    elif not reports:
        note("No artifacts")
    else:
        for name, report in reports.items():
            state = "sound" if report.sound else f"{len(report.problems)} objects are wrong"
            say(f"{name}: {state} ({report.files} files, {report.bytes} bytes read)")
            for problem in report.problems:
                say(f"  {problem.reason}: {', '.join(problem.paths[:5]) or problem.key}")
    if not all(report.sound for report in reports.values()):
        raise typer.Exit(1)


def _as_dict(report: Report) -> dict[str, object]:
    from dataclasses import asdict

    return {"sound": report.sound, **asdict(report)}
