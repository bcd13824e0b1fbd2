"""`ragstone usage`: what calls used and cost, by day, key, model or tenant."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import Json, note, print_json, print_table
from service.cli.session import opened

if TYPE_CHECKING:
    from datetime import date

    from service.gateway.usage import Column, Row


def usage(
    by: Annotated[
        str, typer.Option(help="What lines are told apart by: of day, key, model, tenant.")
    ] = "key,model,day",
    since: Annotated[
        str | None, typer.Option(help="First day, such as 2026-11-01; days are those of UTC.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Last day.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    json: Json = False,
) -> None:
    """Report requests, tokens and cost of models, also of answers over collections."""
    from service.gateway.usage import report

    columns = _columns(by)
    first, last = _day(since, "--since"), _day(until, "--until")
    with opened() as parts:
        rows = report(parts.database, columns, since=first, until=last)
        names = parts.keys.names(row.key for row in rows if row.key)
        currency = parts.settings.gateway.currency
    lines = [_line(row, columns, names) for row in rows]
    if json:
        print_json({"currency": currency, "data": lines})
    elif csv:
        _print_csv(lines, columns)
    elif lines:
        heads = list(lines[0])
        figures = [head for head in heads if head not in columns]
        print_table(heads, [[line[head] for head in heads] for line in lines], numbers=figures)
        note(f"cost in {currency}")
    else:
        note("No usage in that time")


def _columns(by: str) -> list[Column]:
    from service.gateway.usage import COLUMNS

    found: list[Column] = []
    for word in filter(None, (part.strip() for part in by.split(","))):
        column = next((each for each in COLUMNS if each == word), None)
        if column is None:
            raise typer.BadParameter(
                f"{word!r} is no column; there are {', '.join(COLUMNS)}", param_hint="--by"
            )
        found.append(column)
    return found


def _day(text: str | None, option: str) -> date | None:
    from datetime import date

    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no day; 2026-11-29 is", param_hint=option) from None


def _line(row: Row, columns: list[Column], names: dict[str, str]) -> dict[str, Any]:
    from service.gateway.prices import format_amount

    line: dict[str, Any] = {column: getattr(row, column) for column in columns}
    if row.key:
        line["key"] = names.get(row.key, row.key)
    return {
        **line,
        "requests": row.count.requests,
        "interrupted": row.count.interrupted,
        "prompt_tokens": row.count.prompt_tokens,
        "completion_tokens": row.count.completion_tokens,
        "cost": format_amount(row.count.cost),
    }


def _print_csv(lines: list[dict[str, Any]], columns: list[Column]) -> None:
    from csv import DictWriter

    from service.gateway.usage import FIGURES

    writer = DictWriter(sys.stdout, [*columns, *FIGURES], lineterminator="\n")
    writer.writeheader()
    # A spreadsheet takes a cell that begins so for a formula; names are not ours to trust.
    for line in lines:
        writer.writerow(
            {
                name: f"'{value}" if str(value).startswith(("=", "+", "-", "@")) else value
                for name, value in line.items()
            }
        )
