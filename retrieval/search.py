"""Search: embed the question, ask dense and lexical side by side, fuse, rerank, diversify."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from infra.contracts import Access, Embedder, Passage
from infra.database.engine import Database
from infra.errors import InvalidRequest, NotReady, StorageFailed
from infra.retrieval_settings import Retrieval
from retrieval import fusion
from retrieval.build_state import instead_of_removed
from retrieval.collections import Collection
from retrieval.diversity import maximal_marginal_relevance
from retrieval.embedding import Embedders
from retrieval.filters import Filter
from retrieval.fusion import Fused
from retrieval.indexes import Hits
from retrieval.neighbours import expand
from retrieval.ordering import Fusion, Way, ordered
from retrieval.passages import Found, fetch
from retrieval.rerankers import Reranker, ranked
from retrieval.rerankers.none import NoReranker
from retrieval.view import View, Views, require_sequence

Mode: TypeAlias = Literal["hybrid", "dense", "lexical"]
Variants: TypeAlias = Callable[[str], Sequence[str]]
"""From a question to other ways to ask it."""

SEQUENCE_TIMEOUT_SECONDS = 10.0
LAG_TIMEOUT_SECONDS = 1.0
"""How long a search without `min_sequence` waits for writes that are already committed."""
DIVERSITY_POOL = 5
"""Times the limit: passages among which those that differ are looked for."""


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """One search; what is None is as the settings say."""

    text: str
    limit: int = 8
    filter: Filter | None = None
    mode: Mode = "hybrid"
    min_score: float | None = None
    """Passages that score less are left out."""
    min_sequence: int = 0
    """Wait until the write that answered with this sequence can be found."""
    fusion: Fusion | None = None
    dense_weight: float | None = None
    """Of the convex fusion, 0 to 1; the rest is lexical."""
    smoothing: float | None = None
    """The part of a score that comes from candidates alike; of the convex fusion, 0 to 1."""
    rerank: bool | None = None
    diversity: float | None = None
    """0 ranks by score alone, 1 by difference alone (1 - the balance of MMR)."""
    neighbours: int | None = None
    """Chunks before and after each passage that are returned with it."""
    multi_query: bool | None = None
    access: Access | None = None
    """Whose documents may be found; None are everybody's."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    passages: tuple[Passage, ...]
    """Best first."""
    timings_ms: Mapping[str, float]
    """By step: embed, dense, lexical, fuse, fetch; dense and lexical run side by side.

    Also rerank, diversify and expand where they are asked for.
    """


@dataclass(frozen=True, slots=True)
class Stages:
    """The exchangeable steps."""

    reranker: Reranker = NoReranker()
    rerankers: Callable[[str], Reranker] | None = None
    """From a collection's name to the one in place of `reranker`."""
    variants: Variants | None = None

    def reranker_of(self, collection: str) -> Reranker:
        return self.reranker if self.rerankers is None else self.rerankers(collection)


class Retriever:
    """Answers searches over any collection."""

    def __init__(
        self,
        database: Database,
        views: Views,
        *,
        embedders: Embedders,
        settings: Retrieval,
        stages: Stages = Stages(),
    ) -> None:
        self._database = database
        self._views = views
        self._embedders = embedders
        self._settings = settings
        self._stages = stages
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="dense")

    def search(self, collection: Collection, request: SearchRequest) -> SearchResult:
        """Return the passages that match best, with scores between 0 and 1.

        Raises:
            InvalidFilter: none of the documents has such a field, or values of that kind in it.
            InvalidRequest: the text is empty, a weight or share is not between 0 and 1, or
                variants are asked for and none are set up.
            InvalidConfiguration: the collection was built with another embedder.
            NotReady: `min_sequence` was not reached in time, or the index is being opened.
        """
        if not request.text.strip():
            raise InvalidRequest("The question is empty", parameter="query")
        embedder = self._embedders.of(collection.recipe, collection=collection.name)
        reranker = self._stages.reranker_of(collection.name)
        request = self._completed(request, reranker)
        view = self._views.get(collection)
        self._wait(view, request)
        clock = _Clock()
        documents = None
        if request.access or request.filter:
            documents = view.selection.documents(request.access, request.filter)
        clock.lap("filter")
        if documents is not None and not len(documents):
            return SearchResult((), clock.laps_ms)
        fused = self._fused(view, request, documents, embedder=embedder, clock=clock)
        found = fetch(
            self._database, collection, fused, count=self._pool(request), access=request.access
        )
        clock.lap("fetch")
        if len(found) < min(len(fused), self._pool(request)) or not fused:
            with self._database.read() as connection:
                current = instead_of_removed(connection, collection)
            if current is not None:
                return self.search(current, request)
        if request.rerank:
            count = self._settings.rerank_candidates
            found = _reranked(found, request, reranker, count=count)
            clock.lap("rerank")
        passages = [one.passage for one in self._chosen(found, request, clock)]
        if request.neighbours:
            passages = expand(self._database, passages, neighbours=request.neighbours)
            clock.lap("expand")
        return SearchResult(tuple(passages), clock.laps_ms)

    def count(self, collection: Collection) -> int:
        """Return how many chunks can be found."""
        view = self._views.get(collection)
        view.refresh()
        return len(view.index)

    def close(self) -> None:
        self._threads.shutdown()

    def _completed(self, request: SearchRequest, reranker: Reranker) -> SearchRequest:
        """Fill in what the settings say, and refuse what cannot be."""
        defaults = self._settings
        can_rerank = not isinstance(reranker, NoReranker)
        if request.rerank and not can_rerank:
            raise InvalidRequest(
                "There is no reranker; set retrieval.reranker or leave `rerank` out",
                parameter="rerank",
            )
        request = replace(
            request,
            rerank=can_rerank and request.rerank is not False,
            min_score=_first(request.min_score, defaults.min_score),
            fusion=_first(request.fusion, defaults.fusion),
            dense_weight=_first(request.dense_weight, defaults.dense_weight),
            smoothing=_first(request.smoothing, defaults.smoothing),
            diversity=_first(request.diversity, defaults.diversity),
            neighbours=_first(request.neighbours, defaults.neighbours),
            multi_query=_first(request.multi_query, defaults.multi_query),
        )
        for name in ("dense_weight", "smoothing", "diversity"):
            value = getattr(request, name)
            if not 0 <= value <= 1:
                raise InvalidRequest(f"{name} = {value!r} is not between 0 and 1", parameter=name)
        if request.multi_query and self._stages.variants is None:
            raise InvalidRequest(
                "Nothing makes variants of a question; set retrieval.variants or leave "
                "`multi_query` out",
                parameter="multi_query",
            )
        return request

    def _wait(self, view: View, request: SearchRequest) -> None:
        if request.min_sequence:
            require_sequence(view, request.min_sequence, timeout_seconds=SEQUENCE_TIMEOUT_SECONDS)
        elif not _caught_up(view) and not view.is_complete:
            raise NotReady(
                f"The index of {view.collection.name!r} is being opened; try again shortly"
            )

    def _fused(
        self,
        view: View,
        request: SearchRequest,
        documents: NDArray[np.int64] | None,
        *,
        embedder: Embedder,
        clock: _Clock,
    ) -> list[Fused]:
        """Rank for the question and, if asked for, its variants."""
        texts = [request.text]
        if request.multi_query and self._stages.variants is not None:
            others = (text for text in self._stages.variants(request.text) if text.strip())
            texts = list(dict.fromkeys([request.text, *others]))
        vectors: Sequence[NDArray[np.float32] | None] = [None] * len(texts)
        if request.mode != "lexical":
            vectors = list(embedder.embed(texts, kind="query"))
            clock.lap("embed")
        limit = max(self._settings.candidates, request.limit)
        rankings = []
        for text, vector in zip(texts, vectors, strict=True):
            asked = replace(request, text=text)
            lists = self._candidate_lists(view, asked, vector, documents=documents, clock=clock)
            rankings.append(
                ordered(
                    lists,
                    _way(asked),
                    depth=limit,
                    wanted=request.limit,
                    vectors=view.index.vectors,
                )
            )
            clock.lap("fuse")
        return rankings[0] if len(rankings) == 1 else fusion.mean(rankings, limit=limit)

    def _candidate_lists(
        self,
        view: View,
        request: SearchRequest,
        vector: NDArray[np.float32] | None,
        *,
        documents: NDArray[np.int64] | None,
        clock: _Clock,
    ) -> dict[str, Hits]:
        limit = max(self._settings.candidates, request.limit)

        def dense(wanted: NDArray[np.float32]) -> tuple[Hits, float]:
            return _timed(lambda: view.index.dense(wanted, limit, documents=documents))

        lists: dict[str, Hits] = {}
        # Both release the interpreter lock, so the second costs little beside the first.
        side = None
        if vector is not None and request.mode == "hybrid":
            side = self._threads.submit(dense, vector)
        if request.mode != "dense":
            lists["lexical"], taken = _timed(
                lambda: view.index.lexical(request.text, limit, documents=documents)
            )
            clock.add("lexical", taken)
        if vector is not None:
            lists["dense"], taken = side.result() if side else dense(vector)
            clock.add("dense", taken)
        clock.skip()
        return lists

    def _pool(self, request: SearchRequest) -> int:
        """How many passages are read, of which some may be dropped."""
        pool = request.limit
        if request.rerank:
            pool = max(pool, self._settings.rerank_candidates)
        return max(pool, request.limit * DIVERSITY_POOL) if request.diversity else pool

    def _chosen(self, found: list[Found], request: SearchRequest, clock: _Clock) -> list[Found]:
        floor = request.min_score
        kept = [one for one in found if floor is None or one.passage.score >= floor]
        if not request.diversity or not kept:
            return kept[: request.limit]
        rows = maximal_marginal_relevance(
            np.array([one.passage.score for one in kept], dtype=np.float32),
            np.stack([one.vector for one in kept]).astype(np.float32),
            limit=request.limit,
            balance=1 - request.diversity,
        )
        clock.lap("diversify")
        return [kept[row] for row in rows]


def _caught_up(view: View) -> bool:
    """Wait a little for what was written last.

    An index that cannot take it in, as on a full disk, answers with what it has once it was whole:
    what was deleted since is not among the passages that are read.
    """
    try:
        return view.catch_up(timeout_seconds=LAG_TIMEOUT_SECONDS)
    except StorageFailed:
        if not view.is_complete:
            raise
        return False  # a line for every search would fill logs; who follows the writes tells it


def _reranked(
    found: list[Found], request: SearchRequest, reranker: Reranker, *, count: int
) -> list[Found]:
    """Put the best `count` passages in the reranker's order; the others stay behind them."""
    head, tail = found[:count], found[count:]
    texts = [_read_together(one.passage) for one in head]
    fused = [one.passage.score for one in head]
    scores = ranked(reranker, request.text, texts, fused=fused)
    if scores is None or not head:
        return found
    order = np.argsort(-scores, kind="stable")
    lowest = float(scores[order[-1]])
    return [
        *(head[row].scored("rerank", float(scores[row])) for row in order),
        *(one.at_most(lowest) for one in tail),
    ]


def _way(request: SearchRequest) -> Way:
    """How its lists are to become one ranking; `_completed` has filled in what was left out."""
    assert request.fusion is not None
    assert request.dense_weight is not None
    assert request.smoothing is not None
    return Way(request.fusion, request.dense_weight, request.smoothing)


def _read_together(passage: Passage) -> str:
    """What a reranker reads: the text below its headings, as it was embedded."""
    context = passage.heading or passage.title
    return f"{context}\n{passage.text}"


class _Clock:
    """Milliseconds by step."""

    def __init__(self) -> None:
        self.laps_ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.add(name, (now - self._last) * 1e3)
        self._last = now

    def add(self, name: str, milliseconds: float) -> None:
        self.laps_ms[name] = self.laps_ms.get(name, 0.0) + milliseconds

    def skip(self) -> None:
        self._last = time.perf_counter()


def _timed(work: Callable[[], Hits]) -> tuple[Hits, float]:
    start = time.perf_counter()
    result = work()
    return result, (time.perf_counter() - start) * 1e3


def _first(asked: Any, default: Any) -> Any:
    return default if asked is None else asked
