"""`ragstone drift`: what moved in the latest window of a monitor, as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from service.cli.output import note, say
from service.cli.session import opened

app = typer.Typer(help="Look closer at what drifted.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def drift() -> None:
    """Look closer at what drifted."""


@app.command("report")
def report(
    monitor: Annotated[str, typer.Argument(help="Of the settings.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")] = Path(
        "drift.html"
    ),
) -> None:
    """Write one HTML file of what moved since the last look, with figures and examples."""
    from datetime import UTC, datetime

    from service.work import watching

    with opened() as parts:
        output.write_bytes(watching.report(parts, monitor, now=datetime.now(UTC)))
        if rows := watching.missing(parts, monitor):
            note(f"{monitor}: {rows:,} rows are missing to a full window")
    say(f"Wrote {output}")
