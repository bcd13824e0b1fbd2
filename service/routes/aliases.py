"""Aliases of artifacts: read, moved by compare-and-swap, rolled back, removed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Path, Response
from starlette.exceptions import HTTPException

from infra.artifacts.aliases import Guard, Move
from infra.errors import Conflict
from service.bodies import StrictRoute
from service.dependencies import Operator, Parts
from service.routes.artifacts import NEWEST, Kind, Name
from service.schemas.artifacts import AliasOut, MoveAlias, MoveOut
from service.schemas.shared import OPENAI_ERRORS
from service.wiring import Components

router = APIRouter(
    prefix="/v1/artifacts/{kind}/{name}/aliases",
    tags=["artifacts"],
    route_class=StrictRoute,
    responses=OPENAI_ERRORS,
    dependencies=[Operator],
)
Alias = Annotated[str, Path(max_length=64)]


def _guard(
    if_match: Annotated[str | None, Header(description="The digest, in quotes")] = None,
    if_none_match: Annotated[Literal["*"] | None, Header()] = None,
) -> Guard:
    """What must hold for an alias to move: `If-Match: "sha256:..."` or `If-None-Match: *`."""
    if if_none_match is not None:
        return Guard(expect=None)
    if if_match is None or if_match.strip() == "*":
        return Guard()
    return Guard(expect=if_match.strip().removeprefix("W/").strip('"'))


Guarded = Annotated[Guard, Depends(_guard)]


@router.get("/{alias}")
def get_alias(
    kind: Kind, name: Name, alias: Alias, components: Parts, response: Response
) -> AliasOut:
    """Return what an alias points at, and its history; the digest is also the `ETag`."""
    return _show_alias(components, f"{kind}/{name}", alias, response=response)


@router.put("/{alias}")
def move_alias(
    kind: Kind,
    name: Name,
    alias: Alias,
    body: MoveAlias,
    guard: Guarded,
    components: Parts,
    response: Response,
) -> AliasOut:
    """Point an alias at a version; with `If-Match`, only if it still points where you saw it."""
    text = f"{kind}/{name}"
    target = text if body.target == NEWEST else f"{text}@{body.target}"
    _guarded(guard, lambda: components.artifacts.tag(target, alias, guard=guard, actor="http"))
    return _show_alias(components, text, alias, response=response)


@router.delete("/{alias}")
def remove_alias(
    kind: Kind, name: Name, alias: Alias, guard: Guarded, components: Parts, response: Response
) -> AliasOut:
    """Remove an alias; its history stays."""
    text = f"{kind}/{name}"
    components.artifacts.history(text, alias)  # a name that never was is a 404
    _guarded(guard, lambda: components.artifacts.untag(text, alias, guard=guard, actor="http"))
    return _show_alias(components, text, alias, response=response)


@router.post("/{alias}/rollback")
def roll_alias_back(
    kind: Kind, name: Name, alias: Alias, guard: Guarded, components: Parts, response: Response
) -> AliasOut:
    """Point an alias back at what it pointed at before."""
    text = f"{kind}/{name}"
    components.artifacts.history(text, alias)
    _guarded(guard, lambda: components.artifacts.roll_back(text, alias, guard=guard, actor="http"))
    return _show_alias(components, text, alias, response=response)


def _guarded(guard: Guard, move: Callable[[], Move]) -> None:
    try:
        move()
    except Conflict as error:
        if guard.expect == "anything":
            raise
        raise HTTPException(412, error.message) from None


def _show_alias(components: Components, name: str, alias: str, *, response: Response) -> AliasOut:
    moves = components.artifacts.history(name, alias)
    digest = moves[0].after
    if digest is not None:
        response.headers["ETag"] = f'"{digest}"'
    history = [MoveOut.of(move) for move in moves]
    return AliasOut(name=name, alias=alias, digest=digest, history=history)
