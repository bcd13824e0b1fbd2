"""Judged collections: documents, questions and relevance judgements, filled into the product."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from infra.artifacts.blobs import Blob
from infra.contracts import Block, Chunk, Document, Embedder, Vectors
from retrieval.chunking import split
from retrieval.collections import Collection
from retrieval.commit import Prepared, commit_document
from retrieval.embedders import open_embedder
from retrieval.ingest import embedding_text
from service.wiring import Components

FOLDER = Path("retrieval")
NAMES = ("adi", "cranfield", "med", "npl", "scifact")
DOCUMENTS_PER_TRANSACTION = 200
TEXTS_PER_CALL = 128
PLUGIN = f"{__name__}.build"
"""As `retrieval.embedder` in the settings."""

Judgements = Mapping[str, Mapping[str, int]]
"""By question, then by document: how relevant, 0 for not."""


@dataclass(frozen=True, slots=True)
class Entry:
    id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Judged:
    """One collection with one split of its questions."""

    name: str
    documents: tuple[Entry, ...]
    questions: Mapping[str, str]
    judgements: Judgements


def load(name: str, data: Path, *, split: Literal["test", "train"] = "test") -> Judged:
    """Read a collection; only questions that have judgements in the split are kept."""
    folder = data / FOLDER / name
    judgements: dict[str, dict[str, int]] = {}
    for line in _lines(folder / "qrels" / f"{split}.jsonl.gz"):
        judgements.setdefault(line["query-id"], {})[line["corpus-id"]] = line["score"]
    return Judged(
        name,
        tuple(
            Entry(line["_id"], line.get("title", ""), line["text"])
            for line in _lines(folder / "corpus.jsonl.gz")
        ),
        {
            line["_id"]: line["text"]
            for line in _lines(folder / "queries.jsonl.gz")
            if line["_id"] in judgements
        },
        judgements,
    )


def quick(judged: Judged, *, documents: int, questions: int) -> Judged:
    """Return a part of a collection that holds what its questions are judged on."""
    chosen = dict(list(judged.questions.items())[:questions])
    judgements = {question: judged.judgements[question] for question in chosen}
    wanted = {document for found in judgements.values() for document in found}
    others = [entry for entry in judged.documents if entry.id not in wanted][:documents]
    kept = {entry.id for entry in others} | wanted
    entries = tuple(entry for entry in judged.documents if entry.id in kept)
    return Judged(judged.name, entries, chosen, judgements)


@dataclass(frozen=True, slots=True)
class Cut:
    """A document as the product would hold it."""

    entry: Entry
    content: Document
    chunks: Sequence[Chunk]


def cut(judged: Judged, components: Components) -> list[Cut]:
    """Split every document that has text by the product's own chunker and settings."""
    recipe = components.recipe()
    cuts = []
    for entry in judged.documents:
        text = entry.text or entry.title
        if not text.strip():
            continue
        start = len(text) - len(text.lstrip())
        block = Block("paragraph", start, len(text.rstrip()))
        content = Document(text, (block,), "text/plain", title=entry.title)
        chunks = split(
            content,
            components.embedder.token_spans(text),
            max_tokens=recipe.chunk_tokens,
            overlap_tokens=recipe.chunk_overlap_tokens,
        )
        cuts.append(Cut(entry, content, chunks))
    return cuts


def texts(cuts: Sequence[Cut]) -> list[str]:
    """What is embedded: one text per chunk."""
    return [embedding_text(part.content, chunk) for part in cuts for chunk in part.chunks]


def fill(
    components: Components, judged: Judged, cuts: Sequence[Cut], *, vectors: Vectors
) -> Collection:
    """Commit the documents to a collection of the same name; sources are `name:id`."""
    into = components.collections.create(judged.name, components.recipe())
    blob = components.blobs.put([judged.name.encode()])
    rows = iter(vectors)
    for start in range(0, len(cuts), DOCUMENTS_PER_TRANSACTION):
        with components.database.write(lock=into.id) as connection:
            for part in cuts[start : start + DOCUMENTS_PER_TRANSACTION]:
                own = np.stack([next(rows) for _ in part.chunks])
                commit_document(connection, into, _prepared(judged, part, blob, own))
    view = components.views.get(into)
    view.refresh()
    return into


def identifier(source: str) -> str:
    """Return the document's id in the judgements, from its source in the collection."""
    return source.partition(":")[2]


def stored_vectors(embedder: Embedder, wanted: Sequence[str], folder: Path) -> Vectors:
    """Embed texts as documents, or read what an earlier run with this very model has written."""
    hasher = hashlib.sha256(embedder.identity.encode())
    for text in wanted:
        hasher.update(hashlib.sha256(text.encode()).digest())
    path = folder / f"{hasher.hexdigest()[:32]}.npy"
    if path.is_file():
        kept: Vectors = np.load(path, allow_pickle=False)
        return kept
    vectors = np.empty((len(wanted), embedder.dimension), dtype=np.float32)
    # Texts of like length go together: a batch is padded to its longest.
    order = sorted(range(len(wanted)), key=lambda position: -len(wanted[position]))
    for start in range(0, len(order), TEXTS_PER_CALL):
        batch = order[start : start + TEXTS_PER_CALL]
        vectors[batch] = embedder.embed([wanted[position] for position in batch], kind="document")
    folder.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part.npy")
    np.save(unfinished, vectors)
    unfinished.rename(path)
    return vectors


class RememberingEmbedder:
    """Behaves as the embedder it wraps; a question asked again is not embedded again."""

    def __init__(self, inner: Embedder) -> None:
        self._inner = inner
        self._questions: dict[str, Vectors] = {}

    @property
    def identity(self) -> str:
        return self._inner.identity

    @property
    def dimension(self) -> int:
        return self._inner.dimension

    @property
    def max_tokens(self) -> int:
        return self._inner.max_tokens

    def embed(self, texts: Sequence[str], *, kind: Literal["query", "document"]) -> Vectors:
        if kind == "document":
            return self._inner.embed(texts, kind=kind)
        missing = [text for text in dict.fromkeys(texts) if text not in self._questions]
        if missing:
            rows = self._inner.embed(missing, kind=kind)
            self._questions.update(zip(missing, rows, strict=True))
        return np.stack([self._questions[text] for text in texts])

    def token_spans(self, text: str) -> NDArray[np.int32]:
        return self._inner.token_spans(text)


def build(*, inner: str, **options: Any) -> RememberingEmbedder:
    """Wrap the embedder of plug-in `inner`."""
    return RememberingEmbedder(open_embedder(inner, **options))


def _prepared(judged: Judged, part: Cut, blob: Blob, vectors: Vectors) -> Prepared:
    return Prepared(
        uri=f"{judged.name}:{part.entry.id}",
        filename=f"{part.entry.id}.txt",
        blob=blob,
        content=part.content,
        metadata={},
        chunks=part.chunks,
        vectors=vectors,
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)
