"""`ragstone watch`: looks at the monitors of the settings once, or whenever a window ends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import Json, note, print_json, print_table
from service.cli.session import opened

if TYPE_CHECKING:
    from service.wiring import Components

POLL_SECONDS = 5.0


def watch(
    once: Annotated[bool, typer.Option("--once", help="Look at what is due, and end.")] = False,
    json: Json = False,
) -> None:
    """Compare what is asked and answered now with the past, and tell of what drifted."""
    from datetime import UTC, datetime

    from service.work import monitors, watching

    with opened() as parts:
        monitors.check(parts)
        if not parts.settings.watch.monitors:
            note("Nothing is watched; name monitors in the settings, under watch.monitors")
            return
        while True:
            found = [
                watching.described(each) for each in watching.look(parts, now=datetime.now(UTC))
            ]
            if json:
                print_json(found)
            elif found:
                columns = ("monitor", "verdict", "alarm", "action")
                rows = [[str(each[name] or "") for name in columns] for each in found]
                print_table(columns, rows)
            if once:
                _note_missing(parts)
                return
            time.sleep(POLL_SECONDS)


def _note_missing(parts: Components) -> None:
    from service.work import watching

    for name in parts.settings.watch.monitors:
        if rows := watching.missing(parts, name):
            note(f"{name}: {rows:,} rows are missing to a full window")
