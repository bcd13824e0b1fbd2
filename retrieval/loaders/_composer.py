"""Builds a Document from blocks in reading order, within the limits, with every span exact."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING

from infra.contracts import Block, BlockKind, Document
from infra.errors import EmptyDocument, ExceedsLimit

if TYPE_CHECKING:
    from infra.settings import Loading

MAX_BLOCKS = 500_000
MAX_METADATA_CHARACTERS = 1_000
# Items and rows follow line by line; everything else is set apart by an empty line.
_TIGHT = frozenset({"list_item", "table"})

_LINE_ENDS = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Controls, lone surrogates, soft hyphens, byte-order marks, non-characters: no page shows them.
_UNSEEN = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\ufeff\ufffe\uffff\ud800-\udfff]")
# Unicode tags spell text that no font draws; only flags need them, after a black flag.
_TAGS = re.compile("(?<![\U0001f3f4\U000e0020-\U000e007f])[\U000e0000-\U000e007f]+")


class Composer:
    """Collects blocks; `document` joins them."""

    def __init__(self, media_type: str, limits: Loading) -> None:
        self.limits = limits
        self.warnings: list[str] = []
        self._media_type = media_type
        self._pieces: list[str] = []
        self._blocks: list[Block] = []
        self._length = 0
        self._hidden = 0

    @property
    def is_empty(self) -> bool:
        return not self._blocks

    @property
    def first_heading(self) -> str:
        """The heading that opens the document, if one does."""
        if not self._blocks or self._blocks[0].kind != "heading":
            return ""
        return self._pieces[0]

    @property
    def remaining_characters(self) -> int:
        """How much text may still be added."""
        return self.limits.max_text_characters - self._length

    def add(self, kind: BlockKind, text: str, *, level: int = 0, page: int | None = None) -> None:
        """Append a block; white space around it is dropped, and nothing is added for nothing.

        Raises:
            ExceedsLimit: the document has become longer than is allowed.
        """
        text = self._clean(text)
        text = text.strip("\n").rstrip() if kind == "code" else text.strip()
        if not text or text.isspace():
            return
        if self._blocks:
            tight = kind in _TIGHT and kind == self._blocks[-1].kind
            separator = "\n" if tight and page == self._blocks[-1].page else "\n\n"
            self._pieces.append(separator)
            self._length += len(separator)
        start = self._length
        self._pieces.append(text)
        self._length += len(text)
        self._blocks.append(Block(kind, start, self._length, level, page))
        self._check()

    def warn(self, message: str) -> None:
        """Record what could not be read though the rest could, once."""
        if message not in self.warnings:
            self.warnings.append(message)

    def hide(self, text: str | int) -> None:
        """Count text that is left out because a reader of the page would not see it."""
        self._hidden += text if isinstance(text, int) else len(text.strip())

    def document(
        self, *, title: str = "", metadata: Mapping[str, object] | None = None
    ) -> Document:
        """Return what was collected.

        Raises:
            EmptyDocument: no block was added.
        """
        if self._hidden:
            self.warn(f"{self._hidden} characters of hidden text were left out")
        if not self._blocks:
            reason = "; ".join(self.warnings)
            raise EmptyDocument(f"It holds no text{f' ({reason})' if reason else ''}")
        return Document(
            text="".join(self._pieces),
            blocks=tuple(self._blocks),
            media_type=self._media_type,
            title=self._one_line(title),
            metadata=self._flat(metadata or {}),
            warnings=tuple(self.warnings),
        )

    def _clean(self, text: str) -> str:
        text = _LINE_ENDS.sub("\n", text)
        text = _UNSEEN.sub("", text)
        if _TAGS.search(text):
            before = len(text)
            text = _TAGS.sub("", text)
            self.hide(before - len(text))
        return text

    def _check(self) -> None:
        if self._length > self.limits.max_text_characters:
            raise ExceedsLimit(
                f"It holds more than {self.limits.max_text_characters:,} characters of text;"
                " split it, or raise loading.max_text_characters"
            )
        if len(self._blocks) > MAX_BLOCKS:
            raise ExceedsLimit(f"It holds more than {MAX_BLOCKS:,} paragraphs; split it")

    def _one_line(self, text: str) -> str:
        return " ".join(self._clean(text).split())[:MAX_METADATA_CHARACTERS]

    def _flat(self, metadata: Mapping[str, object]) -> dict[str, str | int | float | bool]:
        flat: dict[str, str | int | float | bool] = {}
        for key, value in metadata.items():
            if isinstance(value, bool | int | float):
                flat[key] = value
            elif isinstance(value, date | datetime):
                flat[key] = value.isoformat()
            elif value is not None and (line := self._one_line(str(value))):
                flat[key] = line
        return flat
