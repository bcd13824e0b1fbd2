"""Fills a collection of the real stack with chunks and vectors, without embedding each chunk."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import corpus
from benchmarks.options import Options
from infra.contracts import Block, Chunk, Document, Embedder, Vectors
from retrieval.collections import Collection
from retrieval.commit import Prepared, commit_document
from service.wiring import Components

CHUNKS_PER_DOCUMENT = 100
DOCUMENTS_PER_TRANSACTION = 20
PIECE_CHARACTERS = 400
"""Half a chunk."""
MAX_PIECES = 8_000
SENTENCE = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True, slots=True)
class Pieces:
    """Half-chunks of real text, each with the vector of its first sentence."""

    texts: Sequence[str]
    vectors: Vectors


def cut(embedder: Embedder, options: Options, *, count: int = MAX_PIECES) -> Pieces:
    """Cut the real texts into pieces and embed the first sentence of each.

    A sentence takes a fraction of the time of a whole chunk and lies where real text lies; vectors
    drawn at random would all be equally far apart, which no collection is.
    """
    texts = list(_pieces(_sources(options), count))
    firsts = [SENTENCE.split(text, maxsplit=1)[0] for text in texts]
    return Pieces(texts, embedder.embed(firsts, kind="document"))


def fill(components: Components, pieces: Pieces, *, name: str, count: int) -> Collection:
    """Create collection `name` of `count` chunks through the product's own commit.

    A chunk is two pieces, its vector the unit sum of theirs: real words and real neighbourhoods,
    as many as asked for, and no two alike.
    """
    into = components.collections.create(name, components.recipe())
    first, second = _pairs(len(pieces.texts), count)
    batch: list[Prepared] = []
    for start in range(0, count, CHUNKS_PER_DOCUMENT):
        these = slice(start, min(start + CHUNKS_PER_DOCUMENT, count))
        batch.append(_document(components, pieces, first[these], second=second[these]))
        if len(batch) == DOCUMENTS_PER_TRANSACTION or these.stop == count:
            with components.database.write(lock=into.id) as connection:
                for prepared in batch:
                    commit_document(connection, into, prepared)
            batch = []
    return into


def _pairs(pieces: int, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return `count` different pairs of different pieces; each round pairs all pieces anew."""
    if count > pieces * (pieces - 1):
        raise ValueError(f"{pieces} pieces do not make {count} different chunks")
    numbers = np.arange(count)
    first = numbers % pieces
    return first, (first + 1 + numbers // pieces) % pieces


def _document(
    components: Components,
    pieces: Pieces,
    first: NDArray[np.int64],
    *,
    second: NDArray[np.int64],
) -> Prepared:
    texts = [f"{pieces.texts[a]} {pieces.texts[b]}" for a, b in zip(first, second, strict=True)]
    chunks, blocks, position = [], [], 0
    for ordinal, text in enumerate(texts):
        end = position + len(text)
        chunks.append(Chunk(ordinal, position, end, text, tokens=len(text) // 4))
        blocks.append(Block("paragraph", position, end))
        position = end + 1
    content = Document("\n".join(texts), tuple(blocks), "text/plain")
    blob = components.blobs.put([content.text.encode()])
    vectors = pieces.vectors[first] + pieces.vectors[second]
    return Prepared(
        uri=f"benchmark:{blob.digest}",
        filename="text.txt",
        blob=blob,
        content=content,
        metadata={},
        chunks=chunks,
        vectors=vectors / np.linalg.norm(vectors, axis=1, keepdims=True),
    )


def _sources(options: Options) -> Iterator[str]:
    if options.data is None:
        for path in sorted(corpus.DOCS.rglob("*.md")):
            yield path.read_text(encoding="utf-8")
        return
    # A book and abstracts in turn, so that any number of pieces holds both.
    book = (options.data / corpus.BOOK).read_text(encoding="utf-8")
    for number, abstract in enumerate(corpus.abstracts(options.data)):
        yield abstract
        yield book[number * PIECE_CHARACTERS * 2 : (number + 1) * PIECE_CHARACTERS * 2]


def _pieces(sources: Iterator[str], count: int) -> Iterator[str]:
    made = 0
    for text in sources:
        plain = " ".join(text.split())
        for start in range(0, len(plain) - PIECE_CHARACTERS // 2, PIECE_CHARACTERS):
            yield plain[start : start + PIECE_CHARACTERS].strip()
            made += 1
            if made == count:
                return


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
