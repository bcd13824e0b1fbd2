"""Builds over HTTP: what is asked of them and how they are shown."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field

from service.schemas.jobs import JobOut
from service.schemas.shared import Input

if TYPE_CHECKING:
    from retrieval.build_state import Event


class Rebuild(Input):
    """A new build with the embedder of the settings; what is absent is as the settings say."""

    chunk_tokens: Annotated[int, Field(ge=16, le=8192)] | None = None
    chunk_overlap_tokens: Annotated[int, Field(ge=0, le=4096)] | None = None
    swap: bool = False
    """Let it answer at the end, if it is no worse."""


class SwapBuild(Input):
    expect: int | None = None
    """Refuse if another build than this is live."""
    force: bool = False
    """Without comparing it with the live build."""


class RollBack(Input):
    expect: int | None = None


class BuildOut(BaseModel):
    object: Literal["build"] = "build"
    id: int
    state: str
    """`building`, `live`, `standby` (kept in step for a rollback), `reclaiming`, `reclaimed`."""
    documents: int
    """That it holds in their current version."""
    missing: int
    chunks: int
    embedder: str
    dimension: int
    chunk_tokens: int
    chunk_overlap_tokens: int
    created_at: datetime


class BuildList(BaseModel):
    object: Literal["list"] = "list"
    data: list[BuildOut]


class RebuildOut(BaseModel):
    build: BuildOut
    job: JobOut


class VerdictOut(BaseModel):
    passed: bool
    reason: str
    scores: dict[str, float]


class SwapOut(BaseModel):
    live: int
    standby: int
    sequence: int
    """A search with `min_sequence` of this is answered by the build that is live now."""
    verdict: VerdictOut | None


class EventOut(BaseModel):
    build: int
    kind: str
    detail: dict[str, Any]
    at: datetime

    @classmethod
    def of(cls, event: Event) -> EventOut:
        return cls(build=event.build_id, kind=event.kind, detail=event.detail, at=event.at)


class EventList(BaseModel):
    object: Literal["list"] = "list"
    data: list[EventOut]


class TakeSnapshot(Input):
    name: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Of the artifact; else the collection's own."""
    with_files: bool = True
    """Include the files as they came."""


class RestoreSnapshot(Input):
    artifact: Annotated[str, Field(min_length=1, max_length=300)]
    """Such as `collection/faq@v3`."""
    name: Annotated[str, Field(min_length=1, max_length=255)]
    """Of the new collection."""
