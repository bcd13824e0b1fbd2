"""Reciprocal rank fusion, against numbers worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import InvalidRequest
from retrieval.fusion import reciprocal_rank_fusion
from retrieval.indexes import Hits


def _hits(*chunk_ids: int) -> Hits:
    scores = np.linspace(0.9, 0.1, len(chunk_ids), dtype=np.float32)
    return Hits(np.array(chunk_ids, dtype=np.int64), scores)


def test_scores_are_the_sum_of_reciprocal_ranks() -> None:
    fused = reciprocal_rank_fusion({"dense": _hits(3, 1, 2), "lexical": _hits(1, 4)}, limit=10)
    assert [item.chunk_id for item in fused] == [1, 3, 4, 2]
    assert [item.score for item in fused] == pytest.approx(
        [1 / 62 + 1 / 61, 1 / 61, 1 / 62, 1 / 63]
    )


def test_each_list_keeps_its_own_score() -> None:
    fused = reciprocal_rank_fusion({"dense": _hits(3, 1), "lexical": _hits(1)}, limit=10)
    scores = {item.chunk_id: item.scores for item in fused}
    assert scores[3] == {"dense": pytest.approx(0.9)}
    assert scores[1] == {"dense": pytest.approx(0.1), "lexical": pytest.approx(0.9)}


def test_ties_fall_to_the_smaller_chunk_id() -> None:
    fused = reciprocal_rank_fusion({"dense": _hits(9, 2), "lexical": _hits(2, 9)}, limit=10)
    assert [item.chunk_id for item in fused] == [2, 9]
    assert fused[0].score == fused[1].score


def test_weights_and_k_shift_the_balance() -> None:
    lists = {"dense": _hits(1, 2), "lexical": _hits(2, 1)}
    fused = reciprocal_rank_fusion(lists, limit=1, k=0, weights={"dense": 3.0})
    assert (fused[0].chunk_id, fused[0].score) == (1, 3.0 + 0.5)
    fused = reciprocal_rank_fusion(lists, limit=1, weights={"dense": 0.0})
    assert fused[0].chunk_id == 2


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_below_one_gives_nothing(limit: int) -> None:
    assert reciprocal_rank_fusion({"dense": _hits(1)}, limit=limit) == []


def test_no_lists_give_nothing() -> None:
    assert reciprocal_rank_fusion({}, limit=5) == []
    assert reciprocal_rank_fusion({"dense": _hits(), "lexical": _hits()}, limit=5) == []


@pytest.mark.parametrize("weight", [-1.0, float("nan")])
def test_negative_weight_is_refused(weight: float) -> None:
    with pytest.raises(InvalidRequest, match="dense"):
        reciprocal_rank_fusion({"dense": _hits(1)}, limit=5, weights={"dense": weight})
    with pytest.raises(InvalidRequest, match="-1"):
        reciprocal_rank_fusion({"dense": _hits(1)}, limit=5, k=-1)


_ranking = st.lists(st.integers(1, 30), unique=True, max_size=20)


@given(rankings=st.lists(_ranking, min_size=1, max_size=4), limit=st.integers(1, 40))
def test_order_of_the_lists_does_not_matter(rankings: list[list[int]], limit: int) -> None:
    lists = {f"list-{n}": _hits(*ranking) for n, ranking in enumerate(rankings)}
    expected = reciprocal_rank_fusion(lists, limit=limit)
    for names in itertools.permutations(lists):
        assert reciprocal_rank_fusion({n: lists[n] for n in names}, limit=limit) == expected


@given(rankings=st.lists(_ranking, min_size=1, max_size=4), limit=st.integers(1, 40))
def test_all_chunks_come_back_once_and_fall(rankings: list[list[int]], limit: int) -> None:
    lists = {f"list-{n}": _hits(*ranking) for n, ranking in enumerate(rankings)}
    fused = reciprocal_rank_fusion(lists, limit=limit)
    everything = set().union(*rankings)
    assert len(fused) == len({item.chunk_id for item in fused}) == min(limit, len(everything))
    keys = [(-item.score, item.chunk_id) for item in fused]
    assert keys == sorted(keys)
    for item in fused:
        ranks = [
            ranking.index(item.chunk_id) + 1 for ranking in rankings if item.chunk_id in ranking
        ]
        assert item.score == pytest.approx(sum(1 / (60 + rank) for rank in ranks))
