"""Search: embed the question, ask dense and lexical side by side, fuse, fetch the passages."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from infra.contracts import Embedder, Passage
from infra.database.engine import Database
from infra.database.schema import chunk, document, file
from infra.errors import InvalidRequest
from retrieval.collections import Collection
from retrieval.filters import Filter
from retrieval.fusion import Fused, reciprocal_rank_fusion
from retrieval.indexes import Hits
from retrieval.ingest import check_embedder
from retrieval.view import View, Views, require_sequence

Mode: TypeAlias = Literal["hybrid", "dense", "lexical"]

SEQUENCE_TIMEOUT_SECONDS = 10.0
LAG_TIMEOUT_SECONDS = 1.0
"""How long a search without `min_sequence` waits for writes that are already committed."""


@dataclass(frozen=True, slots=True)
class SearchRequest:
    text: str
    limit: int = 8
    filter: Filter | None = None
    mode: Mode = "hybrid"
    min_score: float | None = None
    min_sequence: int = 0
    """Wait until the write that answered with this sequence can be found."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    passages: tuple[Passage, ...]
    """Best first."""
    timings_ms: Mapping[str, float]
    """By step: embed, dense, lexical, fuse, fetch; dense and lexical run side by side."""


class Retriever:
    """Answers searches over any collection."""

    def __init__(
        self, database: Database, views: Views, *, embedder: Embedder, candidates: int
    ) -> None:
        self._database = database
        self._views = views
        self._embedder = embedder
        self._candidates = candidates
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="dense")

    def search(self, collection: Collection, request: SearchRequest) -> SearchResult:
        """Return the passages that match best, with scores between 0 and 1.

        Raises:
            InvalidRequest: the text is empty.
            InvalidConfiguration: the collection was built with another embedder.
            NotReady: `min_sequence` was not reached in time.
        """
        if not request.text.strip():
            raise InvalidRequest("The question is empty", parameter="query")
        check_embedder(collection, self._embedder)
        view = self._views.get(collection)
        self._wait(view, request)
        clock = _Clock()
        documents = view.documents_matching(request.filter) if request.filter else None
        clock.lap("filter")
        lists = self._candidate_lists(view, request, documents, clock)
        fused = reciprocal_rank_fusion(lists, limit=max(self._candidates, request.limit))
        clock.lap("fuse")
        passages = self._fetch(collection, fused, request, normaliser=_best_score(lists))
        clock.lap("fetch")
        return SearchResult(passages, clock.laps_ms)

    def close(self) -> None:
        self._threads.shutdown()

    def _wait(self, view: View, request: SearchRequest) -> None:
        if request.min_sequence:
            require_sequence(view, request.min_sequence, timeout_seconds=SEQUENCE_TIMEOUT_SECONDS)
        else:
            view.catch_up(view.latest_sequence(), timeout_seconds=LAG_TIMEOUT_SECONDS)

    def _candidate_lists(
        self,
        view: View,
        request: SearchRequest,
        documents: NDArray[np.int64] | None,
        clock: _Clock,
    ) -> dict[str, Hits]:
        limit = max(self._candidates, request.limit)
        lists: dict[str, Hits] = {}
        vector = None
        if request.mode != "lexical":
            vector = self._embedder.embed([request.text], kind="query")[0]
            clock.lap("embed")
        if vector is not None and request.mode == "hybrid":
            # Both release the interpreter lock, so the second costs little beside the first.
            future = self._threads.submit(
                _timed, lambda: view.index.dense(vector, limit, documents=documents)
            )
            lists["lexical"], clock.laps_ms["lexical"] = _timed(
                lambda: view.index.lexical(request.text, limit, documents=documents)
            )
            lists["dense"], clock.laps_ms["dense"] = future.result()
            clock.skip()
        elif vector is not None:
            lists["dense"] = view.index.dense(vector, limit, documents=documents)
            clock.lap("dense")
        else:
            lists["lexical"] = view.index.lexical(request.text, limit, documents=documents)
            clock.lap("lexical")
        return lists

    def _fetch(
        self,
        collection: Collection,
        fused: Sequence[Fused],
        request: SearchRequest,
        *,
        normaliser: float,
    ) -> tuple[Passage, ...]:
        """Read the best candidates; those deleted meanwhile make room for the next."""
        passages: list[Passage] = []
        for start in range(0, len(fused), request.limit):
            wanted = {item.chunk_id: item for item in fused[start : start + request.limit]}
            rows = {row.id: row for row in self._rows(list(wanted))}
            for number, item in wanted.items():
                if number in rows:
                    passages.append(_passage(collection, rows[number], item, normaliser))
            if len(passages) >= request.limit:
                break
        floor = request.min_score
        kept = [found for found in passages if floor is None or found.score >= floor]
        return tuple(kept[: request.limit])

    def _rows(self, numbers: list[int]) -> Sequence[Any]:
        # Numbers are unique over all builds; naming the build too would make SQLite scan it.
        with self._database.read() as connection:
            return connection.execute(
                select(
                    chunk.c.id,
                    chunk.c.start_char,
                    chunk.c.end_char,
                    chunk.c.text,
                    chunk.c.heading,
                    chunk.c.page,
                    document.c.file_id,
                    document.c.version,
                    document.c.source,
                    document.c.title,
                    document.c.metadata,
                    file.c.filename,
                )
                .join(document, document.c.id == chunk.c.document_id)
                .join(file, file.c.id == document.c.file_id)
                .where(chunk.c.id.in_(numbers))
            ).all()


class _Clock:
    """Milliseconds by step."""

    def __init__(self) -> None:
        self.laps_ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps_ms[name] = (now - self._last) * 1e3
        self._last = now

    def skip(self) -> None:
        self._last = time.perf_counter()


def _timed(work: Any) -> tuple[Hits, float]:
    start = time.perf_counter()
    result = work()
    return result, (time.perf_counter() - start) * 1e3


def _best_score(lists: Mapping[str, Hits]) -> float:
    """The fused score of a chunk that heads every list: what scores are divided by to end at 1."""
    return len(lists) / 61


def _passage(collection: Collection, row: Any, item: Fused, normaliser: float) -> Passage:
    return Passage(
        chunk_id=row.id,
        document_id=row.file_id,
        document_version=row.version,
        collection=collection.name,
        source=row.source,
        title=row.title or row.filename,
        start_char=row.start_char,
        end_char=row.end_char,
        text=row.text,
        score=min(1.0, item.score / normaliser),
        scores=item.scores,
        heading=row.heading,
        page=row.page,
        metadata={"filename": row.filename, **row.metadata},
    )
