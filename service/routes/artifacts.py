"""Artifacts: versions, files by range, aliases by compare-and-swap, differences, lineage."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import ExitStack
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response

from infra.artifacts.refs import Reference
from infra.errors import Conflict, NotFound
from service.bodies import StrictRoute
from service.dependencies import Operator, Parts
from service.limits import in_thread
from service.ranges import Span, parse
from service.schemas.artifacts import (
    ArtifactOut,
    DifferenceOut,
    LineageOut,
    NameList,
    NameOut,
    VersionList,
    VersionOut,
)
from service.schemas.shared import OPENAI_ERRORS
from service.streaming import ClosingResponse, begun
from service.wiring import Components

router = APIRouter(
    prefix="/v1/artifacts",
    tags=["artifacts"],
    route_class=StrictRoute,
    responses=OPENAI_ERRORS,
    dependencies=[Operator],
)
NEWEST = "latest"
"""In the place of a version: the newest there is."""
PIECE_BYTES = 1 << 20
MAX_ENTRIES = 10_000
MAX_DEPTH = 100
CONTENT: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}},
    206: {"content": {"application/octet-stream": {}}, "description": "A part of the file"},
    304: {"description": "The client has it already"},
}

Kind = Annotated[str, Path(max_length=64)]
Name = Annotated[str, Path(max_length=128)]
Selector = Annotated[str, Path(max_length=80, description="v3, an alias, sha256:... or latest")]
Alias = Annotated[str, Path(max_length=64)]


async def _reference(kind: Kind, name: Name, selector: Selector, components: Parts) -> Reference:
    """What the path means now."""
    text = f"{kind}/{name}" if selector == NEWEST else f"{kind}/{name}@{selector}"
    return await in_thread(lambda: components.artifacts.find(text))


Found = Annotated[Reference, Depends(_reference)]


@router.get("")
def list_names(
    components: Parts, kind: Annotated[str | None, Query(max_length=64)] = None
) -> NameList:
    """List the newest version of every name."""
    return NameList(data=[NameOut.of(each) for each in components.artifacts.names(kind)])


@router.get("/{kind}/{name}")
def list_versions(kind: Kind, name: Name, components: Parts) -> VersionList:
    """List the versions of a name, the newest first."""
    found = components.artifacts.versions(f"{kind}/{name}")
    return VersionList(data=[VersionOut.of(each) for each in found])


@router.get("/{kind}/{name}/{selector}")
def get(
    reference: Found,
    components: Parts,
    limit: Annotated[int, Query(ge=1, le=MAX_ENTRIES)] = 1000,
    after: Annotated[str, Query(max_length=1024)] = "",
) -> ArtifactOut:
    """Return one artifact: its metadata, parents and files, the files page by page."""
    manifest = components.artifacts.resolve(reference.pinned)
    return ArtifactOut.of(reference, manifest, after=after, limit=limit)


@router.get("/{kind}/{name}/{selector}/diff")
def diff(
    reference: Found, components: Parts, against: Annotated[str, Query(max_length=300)]
) -> DifferenceOut:
    """Return what changed on the way from `against`, any reference, to this artifact."""
    before = components.artifacts.find(against)
    found = components.artifacts.diff(before.pinned, reference.pinned)
    return DifferenceOut.of(before, reference, found)


@router.get("/{kind}/{name}/{selector}/lineage")
def lineage(
    reference: Found,
    components: Parts,
    direction: Literal["up", "down"] = "up",
    depth: Annotated[int, Query(ge=1, le=MAX_DEPTH)] = 10,
) -> LineageOut:
    """Return what an artifact was made from (`up`), or what was made from it (`down`)."""
    found = components.artifacts.lineage(reference.pinned, up=direction == "up", depth=depth)
    return LineageOut.of(reference.digest, found)


@router.get(
    "/{kind}/{name}/{selector}/files/{path:path}", response_class=Response, responses=CONTENT
)
async def read(
    reference: Found,
    path: str,
    request: Request,
    components: Parts,
    wanted: Annotated[str | None, Header(alias="range", max_length=1000)] = None,
) -> Response:
    """Return a file's bytes, all or those of one `Range`; the digest is its `ETag`."""
    manifest = await in_thread(lambda: components.artifacts.resolve(reference.pinned))
    entry = manifest.entry(path)
    if entry is None:
        raise NotFound("file", path, among=(each.path for each in manifest.entries))
    tag = f'"{entry.digest}"'
    headers = {
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(path.rpartition('/')[2])}",
    }
    if tag in [each.strip() for each in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers=headers)
    changed = request.headers.get("if-range", tag) != tag
    span = None if changed else parse(wanted, entry.size)
    whole = Span(0, entry.size)
    extra = span.headers(entry.size) if span else {"Content-Length": str(entry.size)}
    options: dict[str, Any] = {
        "status_code": 206 if span else 200,
        "headers": {**headers, **extra},
        "media_type": "application/octet-stream",
    }
    if not entry.size:
        return Response(**options)
    pieces = _pieces(components, reference.pinned, path=path, span=span or whole)
    return ClosingResponse(await begun(pieces), **options)


async def _pieces(
    components: Components, reference: str, *, path: str, span: Span
) -> AsyncGenerator[bytes, None]:
    with ExitStack() as stack:
        store = components.artifacts
        # Leased, so that nothing is collected under a slow download.
        await in_thread(lambda: stack.enter_context(store.reading(reference)))
        stream = await in_thread(lambda: stack.enter_context(store.open(reference, path)))
        await in_thread(lambda: stream.seek(span.start))
        left = span.end - span.start
        while left:
            size = min(left, PIECE_BYTES)
            piece = await in_thread(lambda size=size: stream.read(size))  # type: ignore[misc]
            if not piece:
                raise Conflict(f"{path!r} is cut short; verify {reference!r}")
            left -= len(piece)
            yield piece
