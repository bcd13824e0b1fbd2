"""`ragstone watch`: looks at the monitors of the settings once, or whenever a window ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from infra.errors import RagstoneError, first_line
from service.cli.output import Json, note, print_json, print_table
from service.cli.session import opened

if TYPE_CHECKING:
    from monitoring.watch_results import Result
    from service.wiring import Components

POLL_SECONDS = 5.0
FAILED_SECONDS = 60.0
"""After a look that failed."""


def watch(
    once: Annotated[bool, typer.Option("--once", help="Look at what is due, and end.")] = False,
    json: Json = False,
) -> None:
    """Compare what is asked and answered now with the past, and tell of what drifted."""
    from service.work import monitors

    with opened() as parts:
        monitors.check(parts)
        if not parts.settings.watch.monitors:
            note("Nothing is watched; name monitors in the settings, under watch.monitors")
            return
        if once:
            _look(parts, json=json, shows_nothing=True)
            _note_missing(parts)
            return
        while True:
            time.sleep(go_on(parts, json=json))


def go_on(parts: Components, *, json: bool = False) -> float:
    """Look at what is due; returns the seconds until the next look, also where this one failed.

    A database that is down for a while, a monitor whose reference is gone, or a detector that
    fails as nobody foresaw ends no watch.
    """
    try:
        _look(parts, json=json, shows_nothing=False)
    except RagstoneError as error:
        note(f"{error.message}; the watch goes on")
        return FAILED_SECONDS
    except Exception as error:  # noqa: BLE001  whatever a plug-in raises
        note(f"{first_line(error) or type(error).__name__}; the watch goes on")
        return FAILED_SECONDS
    return POLL_SECONDS


def _look(parts: Components, *, json: bool, shows_nothing: bool) -> None:
    from datetime import UTC, datetime

    from service.work import watching

    judged: list[Result] = []
    try:
        watching.look(parts, now=datetime.now(UTC), found=judged)
    finally:  # one monitor that fails hides nothing of the others
        found = [watching.described(each) for each in judged]
        if json and (found or shows_nothing):
            print_json(found)
        elif found:
            columns = ("monitor", "verdict", "alarm", "action")
            print_table(columns, [[str(each[name] or "") for name in columns] for each in found])


def _note_missing(parts: Components) -> None:
    from service.work import watching

    for name in parts.settings.watch.monitors:
        if rows := watching.missing(parts, name):
            note(f"{name}: {rows:,} rows are missing to a full window")
