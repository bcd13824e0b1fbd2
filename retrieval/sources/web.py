"""Web pages: one, a list, or those of a sitemap; heeds robots.txt, asks only for what changed."""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import unquote, urljoin, urlsplit
from urllib.robotparser import RobotFileParser

from infra.errors import FetchFailed, FetchRefused, InvalidRequest, SourceFailed, UnreadableDocument
from infra.fetching import Bounds, Fetcher, Resolve, gunzip, resolve_by_system
from retrieval.globs import Globs
from retrieval.sources import (
    Context,
    Fetched,
    Item,
    ItemGone,
    NotModified,
    Unwalkable,
    check_options,
)

AGENT = "ragstone"
MEDIA_TYPES = (
    "text/",
    "application/pdf",
    "application/json",
    "application/xhtml+xml",
    "application/xml",
    "application/msword",
    "application/vnd.openxmlformats-officedocument",
    "message/rfc822",
)
"""Beginnings of what may be a document."""
MAX_SITEMAPS = 1000
MAX_SITEMAP_BYTES = 52_428_800
"""What the protocol allows a sitemap to have, unpacked."""
MAX_ROBOTS_BYTES = 512_000
MAX_DELAY_SECONDS = 10.0
"""Between two pages, however slowly a robots.txt wants them to be read."""
_GONE = frozenset({404, 410})


def build(place: str, context: Context, *, resolve: Resolve = resolve_by_system) -> Web:
    """Return the pages that a URL or a file of URLs names.

    Options: `as` (`page`, `sitemap` or `list`; told from the address by default), `include` and
    `exclude`, globs over whole URLs.
    """
    check_options(context, "as", *Globs.OPTIONS)
    form = context.options.get("as") or _form_of(place)
    if form not in ("page", "sitemap", "list", "file"):
        raise InvalidRequest(f"Option as={form!r}; use page, sitemap or list", parameter="options")
    return Web(place, form, context, resolve=resolve)


class Web:
    """Pages, each known by its URL."""

    def __init__(self, place: str, form: str, context: Context, *, resolve: Resolve) -> None:
        self.identity = f"web:{Path(place).resolve() if form == 'file' else place}"
        self._place = place
        self._form = form
        limits = context.limits
        self._globs = Globs(context.options)
        self._pages = _fetcher(context, limits.max_item_bytes, resolve)
        self._maps = _fetcher(context, MAX_SITEMAP_BYTES, resolve)
        self._robots = _Robots(
            _fetcher(context, MAX_ROBOTS_BYTES, resolve), ignored=limits.ignore_robots
        )

    def list(self) -> Iterator[Item | Unwalkable]:
        if self._form == "sitemap":
            urls = self._walk_sitemaps()
        elif self._form == "page":
            urls = iter([self._place])
        else:
            urls = self._read_list()
        for url in urls:
            page = url.partition("#")[0]
            if not self._globs.choose(page):
                continue
            if self._form == "sitemap" and _host(page) != _host(self._place):
                yield Unwalkable(page, "on another host than its sitemap", code="outside")
            else:
                yield Item(page, _filename(page, ""), None)

    def fetch(self, item: Item, scratch: Path, *, known: str | None) -> Fetched | NotModified:
        self._robots.check(item.uri)
        path = scratch / "page"
        with path.open("xb") as file:
            try:
                answer = self._pages.fetch(
                    item.uri, file, headers=_conditions(known), media_types=MEDIA_TYPES
                )
            except FetchFailed as error:
                if error.status in _GONE:
                    raise ItemGone(error.message) from error
                raise
        if answer.url != item.uri:
            self._robots.check(answer.url)
        if answer.status == 304 and known is not None:
            return NotModified()
        if answer.status != 200:
            raise FetchFailed(f"{item.uri!r} answers 304 to a plain question", status=answer.status)
        return Fetched(
            path,
            _validators(answer.headers.get("etag"), answer.headers.get("last-modified")),
            filename=_filename(answer.url, answer.media_type),
            metadata={"url": answer.url},
        )

    def _read_list(self) -> Iterator[str]:
        with tempfile.TemporaryFile() as file:
            if self._form == "file":
                try:
                    file.write(Path(self._place).read_bytes())
                except OSError as error:
                    raise SourceFailed(f"{self._place!r}: {error.strerror}") from error
            else:
                self._bring(self._place, file)
            file.seek(0)
            for line in file:
                url = line.decode(errors="replace").strip()
                if url and not url.startswith("#"):
                    yield url

    def _walk_sitemaps(self) -> Iterator[str]:
        """Yield the pages of a sitemap and of those that it names; each is read once."""
        waiting, seen = [self._place], {self._place}
        while waiting:
            url = waiting.pop()
            with tempfile.TemporaryFile() as file, tempfile.TemporaryFile() as room:
                self._bring(url, file)
                for kind, found in _read_sitemap(_unpacked(file, room, url), url):
                    if kind == "url":
                        yield found
                        continue
                    if _host(found) != _host(self._place):
                        raise SourceFailed(f"{url!r} names a sitemap on another host, {found!r}")
                    if found not in seen:
                        seen.add(found)
                        waiting.append(found)
            if len(seen) > MAX_SITEMAPS:
                raise SourceFailed(f"{self._place!r} names more than {MAX_SITEMAPS} sitemaps")

    def _bring(self, url: str, file: BinaryIO) -> None:
        try:
            self._robots.check(url)
            answer = self._maps.fetch(url, file)
        except UnreadableDocument as error:
            raise SourceFailed(error.message) from error
        if answer.status != 200:
            raise SourceFailed(f"{url!r} answers {answer.status}")
        file.seek(0)


class _Robots:
    """What the robots.txt of each host allows; a host without one allows all."""

    def __init__(self, fetcher: Fetcher, *, ignored: bool) -> None:
        self._fetcher = fetcher
        self._ignored = ignored
        self._rules: dict[str, RobotFileParser] = {}
        self._asked_at: dict[str, float] = {}

    def check(self, url: str) -> None:
        """Wait as long as the host asks for, or refuse a URL that it asks not to read.

        Raises:
            FetchRefused: the host asks not to read it.
            FetchFailed: its robots.txt does not answer, so that all is to be left alone.
        """
        host = _host(url)
        if self._ignored:
            return
        if host not in self._rules:
            self._rules[host] = self._read(urljoin(url, "/robots.txt"))
        rules = self._rules[host]
        if not rules.can_fetch(AGENT, url):
            raise FetchRefused(f"The robots.txt of {host} asks not to read {url!r}")
        delay = min(float(rules.crawl_delay(AGENT) or 0), MAX_DELAY_SECONDS)
        remaining = self._asked_at.get(host, float("-inf")) + delay - time.monotonic()
        if remaining > 0:
            time.sleep(remaining)
        self._asked_at[host] = time.monotonic()

    def _read(self, url: str) -> RobotFileParser:
        rules = RobotFileParser()
        file = io.BytesIO()
        try:
            self._fetcher.fetch(url, file)
        except FetchFailed as error:
            if error.status is None or not 400 <= error.status < 500:
                raise
            file = io.BytesIO()
        rules.parse(file.getvalue().decode(errors="replace").splitlines())
        return rules


def _fetcher(context: Context, max_bytes: int, resolve: Resolve) -> Fetcher:
    limits = context.limits
    bounds = Bounds(
        max_bytes=max_bytes,
        timeout_seconds=limits.timeout_seconds,
        max_redirects=limits.max_redirects,
        allowed_addresses=limits.allowed_addresses,
    )
    return Fetcher(bounds, user_agent=AGENT, resolve=resolve)


def _form_of(place: str) -> str:
    parts = urlsplit(place)
    if parts.scheme not in {"http", "https"}:
        return "file"
    return "sitemap" if parts.path.endswith((".xml", ".xml.gz")) else "page"


def _read_sitemap(file: BinaryIO, url: str) -> Iterator[tuple[str, str]]:
    """Yield ("url" | "sitemap", address), in the order of the file, without holding it."""
    from lxml import etree

    parents: tuple[str, ...] = ("url", "sitemap")
    try:
        for _, element in etree.iterparse(
            file, events=("end",), resolve_entities=False, no_network=True, load_dtd=False
        ):
            if not isinstance(element.tag, str) or etree.QName(element).localname not in parents:
                continue
            kind = etree.QName(element).localname
            for child in element:
                if isinstance(child.tag, str) and etree.QName(child).localname == "loc":
                    yield kind, urljoin(url, (child.text or "").strip())
                    break
            _drop(element)
    except etree.XMLSyntaxError as error:
        raise SourceFailed(f"{url!r} is not a sitemap: {error}") from None


def _drop(element: Any) -> None:
    element.clear()
    while element.getprevious() is not None:
        del element.getparent()[0]


def _unpacked(file: BinaryIO, room: BinaryIO, url: str) -> BinaryIO:
    """Return the file, or `room` with what it unpacks to where it is a gzip by its first bytes."""
    if file.read(2) != b"\x1f\x8b":
        file.seek(0)
        return file
    file.seek(0)
    for piece in gunzip(iter(lambda: file.read(1 << 16), b""), what=url):
        room.write(piece)
        if room.tell() > MAX_SITEMAP_BYTES:
            raise SourceFailed(f"{url!r} unpacks to more than {MAX_SITEMAP_BYTES:,} bytes")
    room.seek(0)
    return room


def _conditions(known: str | None) -> dict[str, str]:
    if known is None:
        return {}
    held = json.loads(known)
    names = {"etag": "If-None-Match", "modified": "If-Modified-Since"}
    return {names[key]: value for key, value in held.items()}


def _validators(etag: str | None, modified: str | None) -> str | None:
    held = {"etag": etag, "modified": modified}
    told = {key: value for key, value in held.items() if value and value.isprintable()}
    return json.dumps(told) if told else None


def _filename(url: str, media_type: str) -> str:
    parts = urlsplit(url)
    name = unquote(parts.path.rstrip("/").rpartition("/")[2]) or parts.hostname or "page"
    name = "".join(letter for letter in name if letter.isprintable())[-200:]
    if media_type in {"text/html", "application/xhtml+xml"} and "." not in name[-6:]:
        name += ".html"
    return name


def _host(url: str) -> str:
    return urlsplit(url).netloc.lower()
