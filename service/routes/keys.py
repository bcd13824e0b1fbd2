"""Keys: create, list, change, rotate and revoke them over HTTP."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query

from service.bodies import StrictRoute
from service.dependencies import Operator, Parts
from service.keys import MAX_NAME, lifetime
from service.schemas.keys import ChangeKey, CreateKey, KeyList, KeyOut, NewKey, RotateKey
from service.schemas.shared import MAX_LIST, OPENAI_ERRORS

router = APIRouter(
    prefix="/v1/keys",
    tags=["keys"],
    route_class=StrictRoute,
    responses=OPENAI_ERRORS,
    dependencies=[Operator],
)
Name = Annotated[str, Path(max_length=MAX_NAME)]


@router.post("")
def create(body: CreateKey, components: Parts) -> NewKey:
    """Create a key; the answer is the only place that shows it."""
    expires_in = lifetime(body.expires_in_days)
    key, text = components.keys.create(body.name, expires_in=expires_in, opens=body.as_opens())
    components.keyring.refresh()
    return NewKey.showing(key, text)


@router.get("")
def list_keys(
    components: Parts,
    limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 20,
    after: Annotated[str, Query(max_length=MAX_NAME)] | None = None,
) -> KeyList:
    """List the keys, the oldest first, the revoked and expired ones too."""
    found = components.keys.list(limit=limit + 1, after=after)
    return KeyList.of(found[:limit], has_more=len(found) > limit)


@router.get("/{key_id}")
def get(key_id: Name, components: Parts) -> KeyOut:
    """Return one key, by id or name."""
    return KeyOut.of(components.keys.get(key_id))


@router.post("/{key_id}")
def change(key_id: Name, body: ChangeKey, components: Parts) -> KeyOut:
    """Change what a key opens and may use."""
    key = components.keys.change(key_id, body.as_changes())
    components.keyring.refresh()
    return KeyOut.of(key)


@router.post("/{key_id}/rotate")
def rotate(key_id: Name, components: Parts, body: RotateKey | None = None) -> NewKey:
    """Give a key another text; what it opens and has used stays."""
    grace = timedelta(hours=body.grace_hours if body else 0.0)
    key, text = components.keys.rotate(key_id, grace=grace)
    components.keyring.refresh()
    return NewKey.showing(key, text)


@router.delete("/{key_id}")
def revoke(key_id: Name, components: Parts) -> KeyOut:
    """Revoke a key; its name stays taken."""
    key = components.keys.revoke(key_id)
    components.keyring.refresh()
    return KeyOut.of(key)
