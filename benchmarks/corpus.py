"""The text that is ingested: prose, abstracts and our own documentation, as plain files."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
BOOK = Path("documents", "text", "book-war-and-peace-1225p.txt")
ABSTRACTS = Path("retrieval", "scifact", "corpus.jsonl.gz")
QUESTIONS = Path("retrieval", "scifact", "queries.jsonl.gz")

BOOK_CHARACTERS = 260_000
ABSTRACT_COUNT = 220
QUICK_BOOK_CHARACTERS = 8_000
QUICK_ABSTRACT_COUNT = 6
QUICK_DOCS = 1


@dataclass(frozen=True, slots=True)
class Corpus:
    """Files of one folder, and how much text they hold."""

    files: tuple[Path, ...]
    characters: int


def write(folder: Path, *, data: Path | None, quick: bool, part: float = 1.0) -> Corpus:
    """Write the corpus to `folder`: about 1,000 chunks of 200 tokens, or a few tens when quick.

    With `part` below 1 it is that part of the book, of the abstracts and of the documentation.

    Without `data` (the folder of real datasets) it holds the documentation alone.
    """
    folder.mkdir(parents=True)
    texts = dict(_documentation(quick=quick, part=part))
    if data is not None:
        length = QUICK_BOOK_CHARACTERS if quick else int(BOOK_CHARACTERS * part)
        texts["book.txt"] = (data / BOOK).read_text(encoding="utf-8")[:length]
        count = QUICK_ABSTRACT_COUNT if quick else int(ABSTRACT_COUNT * part)
        for number, abstract in zip(range(count), abstracts(data), strict=False):
            texts[f"abstract-{number:04}.txt"] = abstract
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return Corpus(
        files=tuple(sorted(folder.iterdir())),
        characters=sum(len(text) for text in texts.values()),
    )


def abstracts(data: Path) -> Iterator[str]:
    """Yield SciFact's abstracts, each under its title."""
    with gzip.open(data / ABSTRACTS, "rt", encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            yield f"{entry['title']}\n\n{entry['text']}\n"


def questions(data: Path) -> list[str]:
    """Return SciFact's claims: one sentence each."""
    with gzip.open(data / QUESTIONS, "rt", encoding="utf-8") as lines:
        return [json.loads(line)["text"] for line in lines]


def _documentation(*, quick: bool, part: float) -> Iterator[tuple[str, str]]:
    # As .txt: the peers read plain text alone, so nobody is timed on parsing Markdown.
    pages = sorted(DOCS.rglob("*.md"))
    count = QUICK_DOCS if quick else math.ceil(len(pages) * part)
    for number, path in enumerate(pages[:count]):
        yield f"docs-{number:03}-{path.stem}.txt", path.read_text(encoding="utf-8")
