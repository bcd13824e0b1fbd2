"""Web pages: what a reader sees of them, without navigation, scripts and hidden text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from lxml import etree

from infra.contracts import BlockKind, Document
from infra.errors import Damaged
from retrieval.loaders._composer import Composer
from retrieval.loaders._decoding import decode
from retrieval.loaders._hidden import hiding_selectors, is_hidden
from retrieval.loaders._rows import row_line
from retrieval.loaders.text import add_paragraphs

if TYPE_CHECKING:
    from infra.settings import Loading

MEDIA_TYPES = frozenset({"text/html"})

_CHARSET = re.compile(
    rb"""<meta[^>]{0,200}charset\s*=\s*["']?\s*([\w.:-]{1,40})|<\?xml[^>]{0,200}encoding\s*=\s*["']([\w.-]{1,40})""",
    re.IGNORECASE,
)
_LEFT_OUT = frozenset(
    """applet audio base button canvas datalist embed frame frameset iframe input link map meta nav
    noframes noscript object script select source style svg template textarea title track
    video""".split()  # noqa: SIM905
)
_BLOCKS = frozenset(
    """address article aside blockquote body caption center dd details dialog div dl dt fieldset
    figcaption figure footer form h1 h2 h3 h4 h5 h6 header hgroup hr html legend li main menu ol
    optgroup option p pre section summary table tbody td tfoot th thead tr ul""".split()  # noqa: SIM905
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
# Inside a table they mean that it lays out a page rather than holding data.
_LAYOUT = frozenset("h1 h2 h3 h4 table ul ol pre article section form blockquote".split())  # noqa: SIM905
_MAX_CELL_CHARACTERS = 1_000
_MAX_CODE_CHARACTERS = 4_000
_SPACES = re.compile(r"[ \t\n\r\f\xa0]+")
_RUN_OF_SPACES = re.compile(r" {2,}")
_AROUND_BREAK = re.compile(r" ?\n ?")
_EMPTY_LINES = re.compile(r"\n{2,}")
# A short paragraph all in bold heads what follows, whatever its tag.
_HEADING_LIKE = re.compile(r"(?=.{0,20}[^\W\d_]{3})[^\n]{3,99}[^\n.,:;]\Z")
_BOLD = re.compile(r"font-weight\s*:\s*(?:bold|[6-9]00)", re.IGNORECASE)
_BOLD_LEVEL = 4
_META = {
    "author": "author",
    "description": "description",
    "keywords": "keywords",
    "article:published_time": "created",
    "article:modified_time": "modified",
    "date": "created",
}


def load(path: Path, limits: Loading) -> Document:
    """Read a web page; its language, author and description become metadata."""
    data = path.read_bytes()
    declared = _CHARSET.search(data[:4096])
    name = next(filter(None, declared.groups()), b"") if declared else b""
    decoded = decode(data, declared=name.decode("ascii", errors="replace"))
    composer = Composer("text/html", limits)
    for warning in decoded.warnings:
        composer.warn(warning)
    root = add_page(composer, decoded.text)
    title = root.findtext(".//title") or ""
    return composer.document(title=title, metadata=_metadata(root))


def add_page(composer: Composer, markup: str, *, page: int | None = None) -> etree._Element:
    """Add what a reader sees of `markup`, and return its tree.

    Raises:
        Damaged: there is no element in it.
    """
    parser = etree.HTMLParser(encoding="utf-8", huge_tree=True, no_network=True, remove_pis=True)
    data = markup.replace("\0", "").encode("utf-8", errors="replace")
    try:
        root = etree.fromstring(data, parser) if data.strip() else None
    except etree.XMLSyntaxError as error:
        raise Damaged(f"It is not readable as HTML: {error}") from error
    if root is None:
        return etree.Element("html")
    if any("depth" in entry.message for entry in parser.error_log):
        composer.warn("It is nested too deeply; what lies deepest was left out")
    sheets = ["".join(_texts(style)) for style in root.iter("style")]
    _Walk(composer, page, hiding_selectors(sheets)).read(root)
    return root


class _Walk:
    """One pass over a tree in document order, without recursion, so that depth costs nothing."""

    def __init__(self, composer: Composer, page: int | None, hiding: frozenset[str]) -> None:
        self._composer = composer
        self._page = page
        self._hiding = hiding
        self._parts: list[str] = []
        self._bold = 0
        self._plain_characters = 0
        self._kinds: list[tuple[BlockKind, int]] = [("paragraph", 0)]
        self._markers: list[str] = []
        self._numbers: list[int | None] = []

    def read(self, root: etree._Element) -> None:
        walk = etree.iterwalk(root, events=("start", "end", "comment"))
        skipped: etree._Element | None = None
        for event, element in walk:
            if event == "start":
                if not self._enter(element):
                    skipped = element
                    walk.skip_subtree()
                continue
            if event == "end" and element is not skipped:
                self._leave(element)
            if element is not root:
                self._say(element.tail)
        self._flush()

    def _enter(self, element: etree._Element) -> bool:
        """Begin an element; False when nothing inside it is to be walked."""
        tag = str(element.tag)
        attributes = {str(name).lower(): str(value) for name, value in element.attrib.items()}
        if tag in _LEFT_OUT or attributes.get("role") == "navigation":
            return False
        if tag not in {"html", "body"} and is_hidden(attributes, self._hiding):
            self._composer.hide(" ".join("".join(_texts(element)).split()))
            return False
        if tag in _BLOCKS:
            self._flush()
        if tag == "pre":
            self._add_preformatted(element)
            return False
        if tag == "table" and not _lays_out(element):
            self._add_table(element)
            return False
        self._begin(tag, element)
        self._say(element.text)
        return True

    def _begin(self, tag: str, element: etree._Element) -> None:
        if tag in _HEADINGS:
            self._kinds.append(("heading", _HEADINGS[tag]))
        elif tag in {"ol", "ul", "menu"}:
            self._numbers.append(_first_number(element))
        elif tag == "li":
            self._kinds.append(("list_item", 0))
            self._markers.append(self._marker())
        elif tag == "br":
            self._parts.append("\n")
        self._bold += _is_bold(element)

    def _marker(self) -> str:
        """`-`, or the number that an ordered list shows."""
        if not self._numbers or self._numbers[-1] is None:
            return "-"
        number = self._numbers[-1]
        self._numbers[-1] = number + 1
        return f"{number}."

    def _leave(self, element: etree._Element) -> None:
        tag = str(element.tag)
        if tag not in _BLOCKS:
            self._bold -= _is_bold(element)
            return
        self._flush()
        self._bold -= _is_bold(element)
        if tag in _HEADINGS or tag == "li":
            self._kinds.pop()
        if tag == "li":
            self._markers.pop()
        elif tag in {"ol", "ul", "menu"}:
            self._numbers.pop()

    def _say(self, text: str | None) -> None:
        if text:
            self._parts.append(_SPACES.sub(" ", text))
            if not self._bold and not text.isspace():
                self._plain_characters += len(text)

    def _flush(self) -> None:
        text = _AROUND_BREAK.sub("\n", _RUN_OF_SPACES.sub(" ", "".join(self._parts))).strip()
        stands_out = not self._plain_characters and _HEADING_LIKE.match(text) is not None
        self._parts.clear()
        self._plain_characters = 0
        if not text:
            return
        kind, level = self._kinds[-1]
        if kind == "paragraph" and stands_out:
            kind, level = "heading", _BOLD_LEVEL
        if kind == "heading":
            text = " ".join(text.split())
        if kind == "list_item" and self._markers[-1]:
            text, self._markers[-1] = f"{self._markers[-1]} {text}", ""
        for part in _EMPTY_LINES.split(text):
            self._composer.add(kind, part, level=level, page=self._page)

    def _add_preformatted(self, element: etree._Element) -> None:
        text = "".join(_texts(element))
        if len(text) > _MAX_CODE_CHARACTERS and element.find(".//code") is None:
            add_paragraphs(self._composer, text, page=self._page)
        else:
            self._composer.add("code", text, page=self._page)

    def _add_table(self, table: etree._Element) -> None:
        keep_empty = table.find(".//th") is not None
        lines = []
        for row in table.iter("tr", "caption"):
            cells = list(row.iterchildren("td", "th")) if row.tag == "tr" else [row]
            texts = [" ".join("".join(self._seen(cell)).split()) for cell in cells]
            line = row_line(texts if keep_empty else [text for text in texts if text])
            if line:
                lines.append(line)
        self._composer.add("table", "\n".join(lines), page=self._page)

    def _seen(self, cell: etree._Element) -> list[str]:
        """The texts of a cell that are in sight."""
        texts: list[str] = []
        walk = etree.iterwalk(cell, events=("start", "end", "comment"))
        for event, element in walk:
            if event == "start":
                attributes = {str(key).lower(): str(value) for key, value in element.attrib.items()}
                if element.tag in _LEFT_OUT:
                    walk.skip_subtree()
                elif is_hidden(attributes, self._hiding):
                    self._composer.hide("".join(_texts(element)))
                    walk.skip_subtree()
                else:
                    texts.append(" " if element.tag in _BLOCKS or element.tag == "br" else "")
                    texts.append(element.text or "")
            elif element is not cell:
                texts.append(" " if element.tag in _BLOCKS else "")
                texts.append(element.tail or "")
        return texts


def _texts(element: etree._Element) -> list[str]:
    return [str(text) for text in element.itertext(with_tail=False)]


def _is_bold(element: etree._Element) -> bool:
    return element.tag in {"b", "strong"} or _BOLD.search(element.get("style") or "") is not None


def _first_number(element: etree._Element) -> int | None:
    """Where an ordered list begins to count; None for a list without numbers."""
    if element.tag != "ol":
        return None
    start = element.get("start") or "1"
    return int(start) if start.isdecimal() and len(start) < 9 else 1


def _lays_out(table: etree._Element) -> bool:
    """Whether a table arranges a page, not data: it holds headings, lists, tables or long cells."""
    if table.get("role") in {"presentation", "none"}:
        return True
    if next((True for inner in table.iterdescendants(*_LAYOUT)), False):
        return True
    cells = 0
    for cell in table.iter("td", "th"):
        cells += 1
        if sum(len(text) for text in _texts(cell)) > _MAX_CELL_CHARACTERS:
            return True
    return cells < 2


def _metadata(root: etree._Element) -> dict[str, str]:
    found = {}
    if root.get("lang"):
        found["language"] = str(root.get("lang"))
    for meta in root.iter("meta"):
        key = _META.get((meta.get("name") or meta.get("property") or "").lower())
        if key and meta.get("content"):
            found.setdefault(key, str(meta.get("content")))
    return found
