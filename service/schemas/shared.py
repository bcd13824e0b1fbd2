"""What several faces share: strict input, errors, lists, metadata."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from infra.contracts import Metadata, Readers
from retrieval.filters import Filter, parse

MAX_LIST = 100


class Input(BaseModel):
    """A request body: what is unknown is refused rather than ignored, nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorObject(BaseModel):
    """OpenAI's error object."""

    error: ErrorDetail


class Problem(BaseModel):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    code: str


class Deleted(BaseModel):
    id: str
    object: str
    deleted: Literal[True] = True


OPENAI_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorObject, "description": "The request cannot be served as it is"},
    "5XX": {"model": ErrorObject, "description": "The server cannot serve it now"},
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": description,
        "content": {"application/problem+json": {"schema": Problem.model_json_schema()}},
    }
    for status, description in (
        ("4XX", "The request cannot be served as it is"),
        ("5XX", "The server cannot serve it now"),
    )
}

Key = Annotated[str, StringConstraints(min_length=1, max_length=64)]
StoreMetadata = Annotated[
    dict[Key, Annotated[str, StringConstraints(max_length=512)]], Field(max_length=16)
]
Attributes = Annotated[
    dict[Key, Annotated[str, StringConstraints(max_length=4096)] | bool | int | float],
    Field(max_length=64),
]
"""Of a document; a filter compares them."""
Tenant = Annotated[str, StringConstraints(min_length=1, max_length=255)]
AllowList = Annotated[
    list[Annotated[str, StringConstraints(min_length=1, max_length=255)]],
    Field(
        max_length=1000,
        description="Who of the tenant may read it: key:NAME, group:NAME; empty is everyone. "
        "The operator may write public, which is everyone of every tenant.",
    ),
]
RawFilter = Annotated[
    dict[str, Any],
    Field(
        description="A comparison {type: eq|ne|gt|gte|lt|lte|in|nin, key, value}, or a combination "
        "{type: and|or, filters: [...]}, or {type: not, filter: {...}}."
    ),
]


def parse_filter(raw: dict[str, Any] | None) -> Filter | None:
    """Return the filter that was given, if one was."""
    return parse(raw) if raw else None


def readers_of(tenant: str | None, allow: list[str] | None) -> Readers | None:
    """Return who is to read a document, None if that was not said."""
    if tenant is None and allow is None:
        return None
    return Readers(tenant, tuple(allow or ()))


def unix(moment: datetime) -> int:
    """Return whole seconds since 1970, OpenAI's form of time."""
    return int(moment.timestamp())


def plain(metadata: Metadata) -> dict[str, Any]:
    """Return metadata as JSON can hold it."""
    return dict(metadata)
