"""How passages are put in order: fusion, floor, reranking, diversity, neighbours, variants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from infra.contracts import Passage
from infra.errors import InvalidRequest
from infra.retrieval_settings import Retrieval
from infra.settings import load_settings
from retrieval.collections import Collection
from retrieval.ingest import Summary
from retrieval.search import Retriever, SearchRequest, Stages
from retrieval.sources.folder import walk
from service.wiring import Components

TOPICS = {
    "tower": "The tower of the castle stands on ragstone that came down the river by boat.",
    "twin": "The tower of the castle stands on ragstone which came down the river by boat.",
    "moat": "A moat surrounds the castle; its water comes from the river in the winter.",
    "bread": "Knead the dough for ten minutes and let the bread rise overnight in the kitchen.",
    "oven": "The oven of the castle kitchen bakes forty loaves of bread in an hour.",
    "boats": "Boats on the river carry stone, grain and wine to the harbour of the town.",
    "music": "A lute has pairs of strings; it is played with the fingers or a quill.",
}
QUESTIONS = (
    "the tower on ragstone",
    "castle river",
    "bread in the kitchen",
    "boats that carry stone",
)


class ShortestFirst:
    """A reranker that likes short texts: an order that neither search gives."""

    def score(self, question: str, texts: Sequence[str]) -> NDArray[np.float32]:
        assert question
        return np.array([1 / (1 + len(text)) for text in texts], dtype=np.float32)


class HalfShortestFirst(ShortestFirst):
    """Leaves half of the order to the fusion."""

    weight = 0.5


def two_more(question: str) -> list[str]:
    return ["lute strings", "", "lute strings", question]


class Library:
    def __init__(self, folder: Path) -> None:
        texts = folder / "texts"
        texts.mkdir()
        for name, text in TOPICS.items():
            (texts / f"{name}.txt").write_text(text, encoding="utf-8")
        (texts / "long.txt").write_text(
            "\n\n".join(f"On {name}: {text}" for name, text in TOPICS.items()),
            encoding="utf-8",
        )
        retrieval = {"embedder": "hashing", "chunk_tokens": 40, "chunk_overlap_tokens": 0}
        self.components = Components(
            load_settings(data_folder=folder / "data", retrieval=retrieval)
        )
        self.collection: Collection = self.components.collections.create(
            "library", self.components.recipe()
        )
        summary = Summary()
        for event in self.components.ingester.ingest(self.collection, walk([texts])):
            summary.add(event)
        assert summary.added == len(TOPICS) + 1

    def search(self, text: str, **how: Any) -> list[Passage]:
        request = SearchRequest(text, **how)
        return list(self.components.retriever.search(self.collection, request).passages)

    def retriever(self, stages: Stages | None = None, **options: Any) -> Retriever:
        parts = self.components
        return Retriever(
            parts.database,
            parts.views,
            embedders=parts.embedders,
            settings=Retrieval(**options),
            stages=stages or Stages(),
        )

    def names(self, passages: Sequence[Passage]) -> list[str]:
        return [Path(passage.source).stem for passage in passages]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    library = Library(tmp_path_factory.mktemp("library"))
    yield library
    library.components.close()


def ids(passages: Sequence[Passage]) -> list[int]:
    return [passage.chunk_id for passage in passages]


@pytest.mark.parametrize("fusion", ["convex", "rrf"])
@pytest.mark.parametrize("mode", ["hybrid", "dense", "lexical"])
@pytest.mark.parametrize("question", QUESTIONS)
def test_scores_fall_and_lie_between_0_and_1(
    library: Library, question: str, mode: str, fusion: str
) -> None:
    scores = [one.score for one in library.search(question, mode=mode, fusion=fusion, limit=30)]
    assert len(scores) >= 5
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


@pytest.mark.parametrize("question", QUESTIONS)
def test_weight_1_is_dense_search_and_weight_0_is_lexical(library: Library, question: str) -> None:
    for weight, mode in ((1.0, "dense"), (0.0, "lexical")):
        fused = library.search(question, dense_weight=weight, smoothing=0.0, limit=30)
        alone = library.search(question, mode=mode, limit=30)
        assert ids(fused)[: len(alone)] == ids(alone)


def test_ranks_and_scores_fuse_to_different_orders(library: Library) -> None:
    orders = {
        tuple(ids(library.search(question, fusion=fusion, limit=30)))
        for question in QUESTIONS
        for fusion in ("convex", "rrf")
    }
    assert len(orders) > len(QUESTIONS)


def test_smoothing_brings_forward_what_others_confirm(library: Library) -> None:
    question = "bread"
    plain = {one.chunk_id: one.score for one in library.search(question, smoothing=0.0, limit=30)}
    drawn = {one.chunk_id: one.score for one in library.search(question, smoothing=1.0, limit=30)}
    assert set(plain) == set(drawn)
    assert max(drawn.values()) - min(drawn.values()) < max(plain.values()) - min(plain.values())
    half = {one.chunk_id: one.score for one in library.search(question, smoothing=0.5, limit=30)}
    for number, score in half.items():
        assert score == pytest.approx((plain[number] + drawn[number]) / 2, abs=1e-6)


def test_one_ranking_alone_and_ranks_are_not_smoothed(library: Library) -> None:
    for how in ({"mode": "dense"}, {"mode": "lexical"}, {"fusion": "rrf"}):
        smooth = library.search(QUESTIONS[0], smoothing=1.0, **how)
        assert smooth == library.search(QUESTIONS[0], smoothing=0.0, **how)


@hypothesis_settings(max_examples=40, deadline=None)
@given(question=st.sampled_from(QUESTIONS), floor=st.floats(0, 1), limit=st.integers(1, 20))
def test_min_score_keeps_exactly_those_that_reach_it(
    library: Library, question: str, floor: float, limit: int
) -> None:
    everything = library.search(question, limit=limit)
    kept = library.search(question, limit=limit, min_score=floor)
    assert kept == [passage for passage in everything if passage.score >= floor]


def test_min_score_of_the_settings_holds_where_the_request_has_none(library: Library) -> None:
    retriever = library.retriever(min_score=0.6)
    found = retriever.search(library.collection, SearchRequest(QUESTIONS[0])).passages
    assert found
    assert min(passage.score for passage in found) >= 0.6
    lower = SearchRequest(QUESTIONS[0], min_score=0.0)
    assert len(retriever.search(library.collection, lower).passages) > len(found)
    retriever.close()


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_diversity_is_the_order_of_scores(library: Library, question: str) -> None:
    plain = library.search(question, limit=10)
    assert library.search(question, limit=10, diversity=0.0) == plain


def test_diversity_sends_a_twin_back(library: Library) -> None:
    question = "tower of the castle on ragstone"
    plain = library.search(question, limit=2)
    assert all("stands on ragstone" in passage.text for passage in plain)
    varied = library.search(question, limit=2, diversity=0.7)
    assert varied[0] == plain[0]
    assert "stands on ragstone" not in varied[1].text


def test_neighbours_widen_a_passage_to_what_is_stored_around_it(library: Library) -> None:
    plain = [one for one in library.search("lute strings", limit=20) if "long" in one.source]
    wide = [
        one
        for one in library.search("lute strings", limit=20, neighbours=1)
        if "long" in one.source
    ]
    assert len(plain) > len(wide) >= 1
    for passage in wide:
        stored = library.components.documents.read_text(
            passage.document_id, passage.document_version, passage.start_char, passage.end_char
        )
        assert stored == passage.text
    assert max(len(one.text) for one in wide) > max(len(one.text) for one in plain)


def test_reranker_decides_the_order_and_the_score(library: Library) -> None:
    retriever = library.retriever(Stages(reranker=ShortestFirst()))
    result = retriever.search(library.collection, SearchRequest(QUESTIONS[1], limit=5))
    passages = result.passages
    assert "rerank" in result.timings_ms
    assert [one.score for one in passages] == [one.scores["rerank"] for one in passages]
    lengths = [len(f"{one.heading or one.title}\n{one.text}") for one in passages]
    assert lengths == sorted(lengths)
    plain = retriever.search(library.collection, SearchRequest(QUESTIONS[1], 5, rerank=False))
    assert ids(plain.passages) == ids(library.search(QUESTIONS[1], limit=5))
    retriever.close()


def test_reranker_with_a_weight_shares_the_order_with_the_fusion(library: Library) -> None:
    request = SearchRequest(QUESTIONS[1], limit=5)
    fused = library.search(QUESTIONS[1], limit=50)
    retriever = library.retriever(Stages(reranker=HalfShortestFirst()))
    passages = retriever.search(library.collection, request).passages
    texts = {one.chunk_id: f"{one.heading or one.title}\n{one.text}" for one in fused}
    shares, ends = [], []
    for values in (
        {one.chunk_id: one.score for one in fused},
        {name: 1 / (1 + len(text)) for name, text in texts.items()},
    ):
        low, high = min(values.values()), max(values.values())
        shares.append({name: (value - low) / (high - low) for name, value in values.items()})
        ends.append((low, high))
    lowest, best = ((ends[0][end] + ends[1][end]) / 2 for end in (0, 1))
    wanted = {
        name: lowest + (shares[0][name] + shares[1][name]) / 2 * (best - lowest) for name in texts
    }
    assert ids(passages) == sorted(wanted, key=lambda name: -wanted[name])[:5]
    assert [one.score for one in passages] == pytest.approx(
        [wanted[one.chunk_id] for one in passages], abs=1e-6
    )
    assert ids(passages) not in (
        ids(fused)[:5],
        sorted(texts, key=lambda name: len(texts[name]))[:5],
    )
    retriever.close()


def test_a_floor_holds_where_a_reranker_shares_the_order(library: Library) -> None:
    """However the passages compare with each other, one that both find poor has a low score."""
    retriever = library.retriever(Stages(reranker=HalfShortestFirst()), rerank_candidates=1)
    [fused] = library.search(QUESTIONS[1], limit=1)
    request = SearchRequest(QUESTIONS[1], limit=1)
    [alone] = retriever.search(library.collection, request).passages
    read = 1 / (1 + len(f"{fused.heading or fused.title}\n{fused.text}"))
    assert alone.chunk_id == fused.chunk_id
    assert alone.score == pytest.approx((fused.score + read) / 2, abs=1e-6)
    floor = SearchRequest(QUESTIONS[1], limit=1, min_score=alone.score + 0.01)
    assert not retriever.search(library.collection, floor).passages
    retriever.close()


def test_reranker_reads_only_the_candidates_it_is_given(library: Library) -> None:
    retriever = library.retriever(Stages(reranker=ShortestFirst()), rerank_candidates=3)
    request = SearchRequest(QUESTIONS[1], limit=2)
    found = retriever.search(library.collection, request).passages
    fused = ids(library.search(QUESTIONS[1], limit=6))
    assert set(ids(found)) <= set(fused[:3])
    more = retriever.search(library.collection, SearchRequest(QUESTIONS[1], limit=6)).passages
    assert ids(more)[3:] == fused[3:]
    assert set(ids(more)[:3]) == set(fused[:3])
    scores = [one.score for one in more]
    assert scores == sorted(scores, reverse=True)
    retriever.close()


def test_rerank_without_a_reranker_is_refused(library: Library) -> None:
    with pytest.raises(InvalidRequest, match=r"retrieval\.reranker"):
        library.search("tower", rerank=True)


def test_variants_bring_in_what_the_question_does_not_say(library: Library) -> None:
    retriever = library.retriever(Stages(variants=two_more))
    question = "bread in the kitchen"
    alone = SearchRequest(question, limit=3, mode="lexical")
    assert "music" not in library.names(retriever.search(library.collection, alone).passages)
    more = SearchRequest(question, limit=10, mode="lexical", multi_query=True)
    passages = retriever.search(library.collection, more).passages
    assert "music" in library.names(passages)
    assert all(0 <= one.score <= 1 for one in passages)
    retriever.close()


def test_variants_that_nobody_makes_are_refused(library: Library) -> None:
    with pytest.raises(InvalidRequest, match=r"retrieval\.variants"):
        library.search("tower", multi_query=True)


@pytest.mark.parametrize("name", ["dense_weight", "smoothing", "diversity"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_shares_outside_0_and_1_are_refused(library: Library, name: str, value: float) -> None:
    with pytest.raises(InvalidRequest, match=name):
        library.search("tower", **{name: value})
