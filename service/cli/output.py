"""Writing to the terminal: data to standard output, words about it to standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO
from urllib.parse import unquote, urlsplit

import typer

if TYPE_CHECKING:
    from rich.console import Console

PIPE_WIDTH = 160
"""Columns of a table that goes to a file; a terminal's own width is used where there is one."""

# What moves a terminal's cursor, changes its state or the order of its letters. A document may hold
# any of it, and none of it may act.
_ACTING = {
    **dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], "\N{REPLACEMENT CHARACTER}"),
    **dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A)]),
    ord("\n"): "\n",
    ord("\t"): "\t",
}

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
On = Annotated[
    Literal["here", "ray"], typer.Option(help="Where to work: this process, or a Ray cluster.")
]
Workers = Annotated[
    int, typer.Option(min=1, help="Processes on the Ray cluster, each with the model.")
]
CollectionName = Annotated[
    str, typer.Option("--collection", "-c", metavar="NAME", help="The collection.")
]
Tenant = Annotated[str | None, typer.Option(help="Whose the documents are; else the operator's.")]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        metavar="key:NAME|group:NAME|public",
        help="Who may read them; may be repeated. Else everyone of the tenant.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")]


def console(stream: TextIO | None = None) -> Console:
    """Return a console on standard output, or on `stream`; it takes no text for markup."""
    from rich.console import Console

    file = stream or sys.stdout
    return Console(
        file=file,
        width=None if file.isatty() else PIPE_WIDTH,
        markup=False,
        highlight=False,
        emoji=False,
    )


def printable(text: str) -> str:
    """Return `text` without the characters that would act on a terminal."""
    return text.translate(_ACTING)


def note(text: str) -> None:
    """Print words that are not data, to standard error."""
    typer.echo(printable(text), err=True)


def say(text: str = "", *, style: str | None = None) -> None:
    """Print a line of the result, wrapped to the terminal if it goes to one."""
    console().print(printable(text), style=style, soft_wrap=not sys.stdout.isatty())


def print_json(value: Any) -> None:
    """Print dataclasses, mappings and lists as indented JSON."""
    import orjson

    options = orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z
    typer.echo(orjson.dumps(value, option=options, default=_plain).decode())


def print_table(
    columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Sequence[str] = ()
) -> None:
    """Print rows below a heading; the columns named in `numbers` are flush right."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(printable("" if cell is None else str(cell))) for cell in row))
    console().print(table)


def waiting(what: str) -> AbstractContextManager[object]:
    """Show that something takes its time while the block runs, if someone is watching."""
    return console(sys.stderr).status(f"{what} ...")


def place(uri: str) -> str:
    """Return a source as a person would write it, on one line: of a file its path."""
    parts = urlsplit(uri)
    text = unquote(parts.path, errors="replace") if parts.scheme == "file" else uri
    return text.replace("\n", "\N{REPLACEMENT CHARACTER}")


def span(start: int, end: int, page: int | None) -> str:
    """Return where a passage stands."""
    return f"characters {start}-{end}" + (f", page {page}" if page else "")


def _plain(value: Any) -> Any:
    from collections.abc import Mapping

    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"Cannot write {type(value).__name__} as JSON")
