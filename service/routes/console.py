"""The web pages: the console at `/`, the API's description at `/docs`; no script from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fastapi import APIRouter
from starlette.responses import FileResponse, JSONResponse

from service.dependencies import Parts
from service.wiring import Components

FOLDER = Path(__file__).parent.parent / "console"
POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'; img-src 'self'"
)
HEADERS = {
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}

router = APIRouter(include_in_schema=False)


@router.get("/")
def console(components: Parts) -> FileResponse:
    return _page("index.html", components)


@router.get("/docs")
def docs(components: Parts) -> FileResponse:
    return _page("docs.html", components)


@router.get("/console/settings.json")
def settings(components: Parts) -> JSONResponse:
    """Tell the page which hosts links of answers may lead to."""
    hosts = list(components.settings.guards.link_hosts)
    return JSONResponse({"link_hosts": hosts}, headers=_headers(components))


@router.get("/console/{name}")
def asset(
    name: Literal[
        "console.css", "console.js", "api.js", "links.js", "docs.html", "docs.js", "icon.svg"
    ],
    components: Parts,
) -> FileResponse:
    return _page(name, components)


def _page(name: str, components: Components) -> FileResponse:
    path = FOLDER / name
    media_type = MEDIA_TYPES[path.suffix]
    return FileResponse(path, media_type=media_type, headers=_headers(components))


def _headers(components: Components) -> dict[str, str]:
    """What a browser is told: images come from here and from the hosts that links may lead to."""
    hosts = "".join(f" https://{host}" for host in components.settings.guards.link_hosts)
    return {**HEADERS, "Content-Security-Policy": POLICY + hosts}
