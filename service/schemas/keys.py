"""Keys over HTTP: what they open, how much they may use, and their text, once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal, cast

from pydantic import BaseModel, Field, StringConstraints

from service.callers import MAX_LIMIT, SCOPES, Limits, Scope
from service.keys import MAX_DAYS, MAX_LISTED, MAX_NAME, Changes, Key, Opens, lifetime
from service.schemas.shared import Input, unix

Word = Annotated[str, StringConstraints(min_length=1, max_length=MAX_NAME)]
Words = Annotated[list[Word], Field(max_length=MAX_LISTED)]
Limit = Annotated[int, Field(ge=1, le=MAX_LIMIT)]
Days = Annotated[float, Field(ge=0, le=MAX_DAYS)]


class CreateKey(Input):
    name: Word
    tenant: Word | None = None
    groups: Words = Field(default_factory=list)
    scopes: list[Scope] | None = None
    models: Words | None = None
    """Patterns such as `gpt-*`."""
    collections: Words | None = None
    expires_in_days: Days | None = None
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    max_concurrent: Limit | None = None

    def as_opens(self) -> Opens:
        return Opens(
            tenant=self.tenant,
            groups=tuple(self.groups),
            scopes=None if self.scopes is None else tuple(self.scopes),
            models=None if self.models is None else tuple(self.models),
            collections=None if self.collections is None else tuple(self.collections),
            limits=Limits(self.requests_per_minute, self.tokens_per_minute, self.max_concurrent),
        )


class ChangeKey(Input):
    """What is left out stays; null takes a limit away."""

    groups: Words = Field(default_factory=list)
    scopes: list[Scope] | None = None
    models: Words | None = None
    collections: Words | None = None
    expires_in_days: Days | None = None
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None
    max_concurrent: Limit | None = None

    def as_changes(self) -> Changes:
        given = self.model_dump(include=self.model_fields_set)
        if "expires_in_days" in given:
            time = lifetime(given.pop("expires_in_days"))
            given["expires_at"] = None if time is None else datetime.now(UTC) + time
        values = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in given.items()
        }
        return cast("Changes", values)


class RotateKey(Input):
    grace_hours: Annotated[float, Field(ge=0, le=24 * 365)] = 0.0
    """For how long the old text opens still."""


class KeyOut(BaseModel):
    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    state: Literal["valid", "revoked", "expired"]
    tenant: str | None
    groups: list[str]
    scopes: list[str]
    models: list[str] | None
    collections: list[str] | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    max_concurrent: int | None
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    last_used_at: int | None

    @classmethod
    def of(cls, key: Key) -> KeyOut:
        return cls.model_validate(describe(key))


class NewKey(KeyOut):
    key: str
    """The text that clients send; it is not shown again."""

    @classmethod
    def showing(cls, key: Key, text: str) -> NewKey:
        return cls.model_validate({**describe(key), "key": text})


class KeyList(BaseModel):
    object: Literal["list"] = "list"
    data: list[KeyOut]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, keys: Sequence[Key], *, has_more: bool) -> KeyList:
        data = [KeyOut.of(key) for key in keys]
        return cls(
            data=data,
            first_id=data[0].id if data else None,
            last_id=data[-1].id if data else None,
            has_more=has_more,
        )


def describe(key: Key) -> dict[str, object]:
    """Return what there is to say of a key, but never its text."""
    caller, limits = key.caller, key.caller.limits
    return {
        "id": key.id,
        "name": key.name,
        "state": key.state(datetime.now(UTC)),
        "tenant": caller.tenant,
        "groups": sorted(caller.groups),
        "scopes": [scope for scope in sorted(SCOPES) if scope in caller.scopes],
        "models": None if caller.models is None else list(caller.models),
        "collections": None if caller.collections is None else list(caller.collections),
        "requests_per_minute": limits.requests_per_minute,
        "tokens_per_minute": limits.tokens_per_minute,
        "max_concurrent": limits.max_concurrent,
        "created_at": unix(key.created_at),
        "expires_at": unix(key.expires_at) if key.expires_at else None,
        "revoked_at": unix(key.revoked_at) if key.revoked_at else None,
        "last_used_at": unix(key.last_used_at) if key.last_used_at else None,
    }
