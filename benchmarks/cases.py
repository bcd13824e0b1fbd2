"""Questions with the passages that our own search finds for them, over public question sets."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from infra.contracts import Embedder, Passage, Vectors
from retrieval.fusion import reciprocal_rank_fusion
from retrieval.indexes import Change, open_index

CANDIDATES = 100
PASSAGES = 8


@dataclass(frozen=True, slots=True)
class Case:
    """A question, what was found for it, and what is right."""

    question: str
    passages: tuple[Passage, ...]
    answers: tuple[str, ...] = ()
    """Right answers; none where the passages' pool does not answer the question."""
    gold: frozenset[str] = frozenset()
    """Paragraphs that hold the answer."""
    article: str = ""

    def holds_answer(self, passage: Passage, text: str) -> bool:
        """Whether a stretch of the passage carries a right answer."""
        found = text.casefold()
        return passage.document_id in self.gold and any(
            answer.casefold() in found for answer in self.answers
        )


class RememberingEmbedder:
    """Embeds every text once: the same sentences are candidates for many questions."""

    def __init__(self, inner: Embedder) -> None:
        self._inner = inner
        self._known: dict[tuple[str, str], NDArray[np.float32]] = {}

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
        missing = [text for text in dict.fromkeys(texts) if (kind, text) not in self._known]
        if missing:
            for text, row in zip(missing, self._inner.embed(missing, kind=kind), strict=True):
                self._known[kind, text] = row
        return np.stack([self._known[kind, text] for text in texts])

    def token_spans(self, text: str) -> NDArray[np.int32]:
        return self._inner.token_spans(text)


class Pool:
    """Paragraphs under our own index, one chunk each; an article is a document."""

    def __init__(
        self, paragraphs: Sequence[Mapping[str, Any]], folder: Path, embedder: Embedder
    ) -> None:
        self.paragraphs = paragraphs
        self._embedder = embedder
        titles = [str(paragraph.get("title", "")) for paragraph in paragraphs]
        self.articles = {title: number for number, title in enumerate(dict.fromkeys(titles))}
        self._index = open_index("local", folder, dimension=embedder.dimension)
        vectors = embedder.embed([paragraph["text"] for paragraph in paragraphs], kind="document")
        self._index.apply(
            [
                Change(
                    sequence=number + 1,
                    chunk_id=number + 1,
                    document_id=self.articles[title],
                    text=paragraph["text"],
                    vector=vector.astype(np.float16),
                )
                for number, (paragraph, title, vector) in enumerate(
                    zip(paragraphs, titles, vectors, strict=True)
                )
            ]
        )

    def warm(self, questions: Sequence[str]) -> None:
        """Embed questions together, which is faster than one by one; the embedder remembers."""
        self._embedder.embed(questions, kind="query")

    def search(
        self, question: str, *, articles: Iterable[str] | None = None
    ) -> tuple[Passage, ...]:
        """Return the best passages by hybrid search, of the named articles alone if any are."""
        allowed = None
        if articles is not None:
            allowed = np.array(sorted(self.articles[title] for title in articles), dtype=np.int64)
        vector = self._embedder.embed([question], kind="query")[0]
        lists = {
            "dense": self._index.dense(vector, CANDIDATES, documents=allowed),
            "lexical": self._index.lexical(question, CANDIDATES, documents=allowed),
        }
        found = reciprocal_rank_fusion(lists, limit=PASSAGES)
        return tuple(
            self._passage(item.chunk_id - 1, item.score * 61 / 2, item.scores) for item in found
        )

    def close(self) -> None:
        self._index.close()

    def _passage(self, number: int, score: float, scores: Mapping[str, float]) -> Passage:
        paragraph = self.paragraphs[number]
        return Passage(
            chunk_id=number + 1,
            document_id=paragraph["id"],
            document_version=1,
            collection="pool",
            source=paragraph["id"],
            title=str(paragraph.get("title", "")).replace("_", " "),
            start_char=0,
            end_char=len(paragraph["text"]),
            text=paragraph["text"],
            score=score,
            scores=scores,
        )


def read_rows(path: Path, *, every: int = 1) -> list[dict[str, Any]]:
    """Read a gzip JSON Lines file, or each `every`-th line of it."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for number, line in enumerate(lines) if number % every == 0]


def ask(
    pool: Pool, questions: Sequence[Mapping[str, Any]], *, articles: frozenset[str] | None = None
) -> list[Case]:
    """Search for questions that the pool answers, save those marked unanswerable."""
    titles = {row["id"]: str(row.get("title", "")) for row in pool.paragraphs}
    pool.warm([row["question"] for row in questions])
    cases = []
    for row in questions:
        gold = frozenset(row.get("doc_ids") or [row["doc_id"]])
        answers = tuple(row["answers"]) if row.get("answerable", True) else ()
        passages = pool.search(row["question"], articles=articles)
        cases.append(Case(row["question"], passages, answers, gold, titles[min(gold)]))
    return cases


def ask_off_topic(
    pool: Pool, questions: Sequence[Mapping[str, Any]], *, articles: frozenset[str]
) -> list[Case]:
    """Search for questions in the named articles without their own: nothing there answers them."""
    titles = {row["id"]: str(row.get("title", "")) for row in pool.paragraphs}
    pool.warm([row["question"] for row in questions])
    cases = []
    for row in questions:
        own = titles[row["doc_id"]]
        passages = pool.search(row["question"], articles=articles - {own})
        cases.append(Case(row["question"], passages, article=own))
    return cases


def halves(pool: Pool) -> tuple[frozenset[str], frozenset[str]]:
    """Split the articles in two: one to fit on, one held out; alternately by name."""
    ordered = sorted(pool.articles)
    return frozenset(ordered[::2]), frozenset(ordered[1::2])
