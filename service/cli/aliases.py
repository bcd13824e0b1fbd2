"""Aliases in the terminal: point one at a version, take it away, look back, go back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import Json, print_json, print_table, say
from service.cli.session import opened

if TYPE_CHECKING:
    from infra.artifacts.aliases import Guard, Move
    from service.wiring import Components

Name = Annotated[str, typer.Argument(metavar="KIND/NAME", help="Such as model/churn.")]
Alias = Annotated[str, typer.Argument(help="Such as production.")]
Expect = Annotated[
    str | None,
    typer.Option(
        metavar="REFERENCE|none", help="Move it only if it points at this now, or is not there."
    ),
]


def tag(
    reference: Annotated[str, typer.Argument(metavar="REFERENCE", help="What to point at.")],
    alias: Alias,
    expect: Expect = None,
    json: Json = False,
) -> None:
    """Point an alias at a version."""
    with opened() as parts:
        guard = _guard(parts, expect)
        move = parts.artifacts.tag(reference, alias, guard=guard, actor=_actor())
    _report(move, alias, json=json)


def untag(name: Name, alias: Alias, expect: Expect = None, json: Json = False) -> None:
    """Remove an alias; its history stays."""
    with opened() as parts:
        guard = _guard(parts, expect)
        move = parts.artifacts.untag(name, alias, guard=guard, actor=_actor())
    _report(move, alias, json=json)


def rollback(name: Name, alias: Alias, expect: Expect = None, json: Json = False) -> None:
    """Point an alias back at what it pointed at before."""
    with opened() as parts:
        guard = _guard(parts, expect)
        move = parts.artifacts.roll_back(name, alias, guard=guard, actor=_actor())
    _report(move, alias, json=json)


def history(name: Name, alias: Alias, json: Json = False) -> None:
    """List the moves of an alias, the latest first."""
    with opened() as parts:
        moves = parts.artifacts.history(name, alias)
    if json:
        print_json(moves)
    else:
        rows = [
            (f"{move.at:%Y-%m-%d %H:%M}", move.action, move.before, move.after, move.actor)
            for move in moves
        ]
        print_table(("at", "action", "before", "after", "by"), rows)


def _guard(parts: Components, expect: str | None) -> Guard:
    from infra.artifacts.aliases import Guard

    if expect is None:
        return Guard()
    return Guard(expect=None if expect == "none" else parts.artifacts.find(expect).digest)


def _actor() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        return "terminal"


def _report(move: Move, alias: str, *, json: bool) -> None:
    if json:
        print_json(move)
        return
    words: dict[Any, str] = {None: "nothing"}
    before, after = (words.get(digest, str(digest)) for digest in (move.before, move.after))
    if before == after:
        say(f"{alias!r} points at {after} already")
    else:
        say(f"{alias!r} pointed at {before} and points at {after} now")
