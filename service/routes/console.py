"""The web pages: the console at `/`, the API's description at `/docs`; no script from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fastapi import APIRouter
from starlette.responses import FileResponse

FOLDER = Path(__file__).parent.parent / "console"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
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
def console() -> FileResponse:
    return _page("index.html")


@router.get("/docs")
def docs() -> FileResponse:
    return _page("docs.html")


@router.get("/console/{name}")
def asset(
    name: Literal["console.css", "console.js", "api.js", "docs.html", "docs.js", "icon.svg"],
) -> FileResponse:
    return _page(name)


def _page(name: str) -> FileResponse:
    path = FOLDER / name
    return FileResponse(path, media_type=MEDIA_TYPES[path.suffix], headers=HEADERS)
