"""Markdown without its marks: headings, paragraphs, list items, tables and code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infra.contracts import Document
from retrieval.loaders._composer import Composer
from retrieval.loaders._decoding import decode
from retrieval.loaders._rows import row_line
from retrieval.loaders.html import add_page

if TYPE_CHECKING:
    from markdown_it.token import Token

    from infra.settings import Loading

MEDIA_TYPES = frozenset({"text/markdown"})

_FRONT_MATTER = re.compile(
    r"\A\ufeff?---[ \t]*\n(.{0,20000}?)\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL
)
_FIELD = re.compile(r"^([A-Za-z][\w -]{0,40}):[ \t]+(\S.*)$", re.MULTILINE)


def load(path: Path, limits: Loading) -> Document:
    """Read a Markdown file; simple fields of its front matter become metadata."""
    decoded = decode(path.read_bytes())
    composer = Composer("text/markdown", limits)
    for warning in decoded.warnings:
        composer.warn(warning)
    text = decoded.text.replace("\r\n", "\n").replace("\r", "\n")
    fields, text = _front_matter(text)
    _add(composer, text)
    title = fields.pop("title", "") or composer.first_heading
    return composer.document(title=title, metadata={**fields, "encoding": decoded.encoding})


def _add(composer: Composer, text: str) -> None:
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"maxNesting": 20}).enable(["table", "strikethrough"])
    walk = _Walk(composer)
    for token in parser.parse(text):
        walk.see(token)


class _Walk:
    """Follows the block tokens, which markdown-it gives as one flat list."""

    def __init__(self, composer: Composer) -> None:
        self._composer = composer
        self._level = 0
        self._marker: list[str] = []
        self._row: list[str] | None = None
        self._rows: list[str] = []

    def see(self, token: Token) -> None:
        handle = getattr(self, f"_see_{token.type}", None)
        if handle is not None:
            handle(token)

    def _see_heading_open(self, token: Token) -> None:
        # In a quotation or a list item a heading is an example, not the document's own.
        self._level = int(token.tag[1:]) if token.level == 0 else 0

    def _see_heading_close(self, _: Token) -> None:
        self._level = 0

    def _see_list_item_open(self, token: Token) -> None:
        self._marker.append(f"{token.info}{token.markup}" if token.info else "-")

    def _see_list_item_close(self, _: Token) -> None:
        self._marker.pop()

    def _see_tr_open(self, _: Token) -> None:
        self._row = []

    def _see_tr_close(self, _: Token) -> None:
        self._rows.append(row_line(self._row or []))
        self._row = None

    def _see_table_close(self, _: Token) -> None:
        self._composer.add("table", "\n".join(self._rows))
        self._rows = []

    def _see_fence(self, token: Token) -> None:
        self._composer.add("code", token.content)

    _see_code_block = _see_fence

    def _see_html_block(self, token: Token) -> None:
        add_page(self._composer, token.content)

    def _see_inline(self, token: Token) -> None:
        text = "".join(_visible(token.children or ()))
        if self._row is not None:
            self._row.append(" ".join(text.split()))
        elif self._level:
            self._composer.add("heading", " ".join(text.split()), level=self._level)
        elif self._marker:
            marker, self._marker[-1] = self._marker[-1], ""
            self._composer.add("list_item", f"{marker} {text}" if marker else text)
        else:
            self._composer.add("paragraph", text)


def _visible(tokens: Sequence[Token]) -> Iterator[str]:
    """The text of inline tokens; a link that says something else is followed by its address."""
    targets: list[tuple[str, int]] = []
    said: list[str] = []
    for token in tokens:
        piece = ""
        if token.type in {"text", "code_inline", "image"}:
            piece = token.content
        elif token.type in {"softbreak", "hardbreak"}:
            piece = "\n"
        elif token.type == "link_open":
            targets.append((str(token.attrs.get("href", "")), len(said)))
        elif token.type == "link_close" and targets:
            target, start = targets.pop()
            shown = "".join(said[start:])
            outward = target.startswith(("http://", "https://"))
            piece = f" ({target})" if outward and shown.strip() not in target else ""
        if piece:
            said.append(piece)
            yield piece


def _front_matter(text: str) -> tuple[dict[str, str], str]:
    match = _FRONT_MATTER.match(text)
    if match is None:
        return {}, text
    fields = _FIELD.findall(match.group(1))
    if not fields:
        return {}, text
    known = {name.strip().lower(): value.strip().strip("\"'") for name, value in fields}
    return known, text[match.end() :]
