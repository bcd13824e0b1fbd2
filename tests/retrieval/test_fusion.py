"""Rank fusion and score fusion, against numbers worked out by hand and against their laws."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import InvalidRequest
from retrieval.fusion import Fused, convex_combination, mean, reciprocal_rank_fusion
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


_scored = st.dictionaries(st.integers(1, 30), st.floats(0.015625, 1, width=32), max_size=20)
_weight = st.floats(0, 1)


def _list(scores: dict[int, float]) -> Hits:
    order = sorted(scores, key=lambda number: (-scores[number], number))
    return Hits(
        np.array(order, dtype=np.int64),
        np.array([scores[number] for number in order], dtype=np.float32),
    )


def _both(dense: dict[int, float], lexical: dict[int, float], weight: float) -> list[Fused]:
    lists = {"dense": _list(dense), "lexical": _list(lexical)}
    weights = {"dense": weight, "lexical": 1 - weight}
    return convex_combination(lists, limit=100, weights=weights)


def test_convex_scores_are_weighted_shares_of_the_best() -> None:
    fused = _both({1: 0.8, 2: 0.4}, {2: 12.0, 3: 3.0}, 0.25)
    assert [item.chunk_id for item in fused] == [2, 1, 3]
    assert [item.score for item in fused] == pytest.approx([0.125 + 0.75, 0.25, 0.1875])
    assert fused[0].scores == {"dense": pytest.approx(0.4), "lexical": pytest.approx(12.0)}


@given(dense=_scored, lexical=_scored)
def test_weight_1_or_0_is_one_ranking_alone(
    dense: dict[int, float], lexical: dict[int, float]
) -> None:
    for weight, alone in ((1.0, dense), (0.0, lexical)):
        fused = _both(dense, lexical, weight)
        assert [item.chunk_id for item in fused] == _list(alone).chunk_ids.tolist()


@given(dense=_scored, lexical=_scored, weight=_weight)
def test_convex_scores_fall_and_lie_between_0_and_1(
    dense: dict[int, float], lexical: dict[int, float], weight: float
) -> None:
    fused = _both(dense, lexical, weight)
    assert all(0 <= item.score <= 1 + 1e-9 for item in fused)
    keys = [(-item.score, item.chunk_id) for item in fused]
    assert keys == sorted(keys)
    assert len({item.chunk_id for item in fused}) == len(fused)


@given(dense=_scored, lexical=_scored, weight=_weight, data=st.data())
def test_a_better_score_never_lowers_a_rank(
    dense: dict[int, float], lexical: dict[int, float], weight: float, data: st.DataObject
) -> None:
    if not dense:
        return
    number = data.draw(st.sampled_from(sorted(dense)))
    # Not above the best of its list: that one is what all the others are measured by.
    better = data.draw(st.floats(dense[number], max(dense.values()), width=32))
    for fuse in (
        lambda scores: _both(scores, lexical, weight),
        lambda scores: reciprocal_rank_fusion(
            {"dense": _list(scores), "lexical": _list(lexical)}, limit=100
        ),
    ):
        before = [item.chunk_id for item in fuse(dense)]
        after = [item.chunk_id for item in fuse({**dense, number: better})]
        if number in before:
            assert after.index(number) <= before.index(number)


@given(dense=_scored, lexical=_scored, weight=_weight, limit=st.integers(0, 40))
def test_a_limit_cuts_the_ranking(
    dense: dict[int, float], lexical: dict[int, float], weight: float, limit: int
) -> None:
    lists = {"dense": _list(dense), "lexical": _list(lexical)}
    weights = {"dense": weight, "lexical": 1 - weight}
    cut = convex_combination(lists, limit=limit, weights=weights)
    assert cut == _both(dense, lexical, weight)[:limit]


def test_lists_without_a_positive_score_do_not_divide_by_zero() -> None:
    lists = {"dense": Hits(np.array([1, 2]), np.array([0.0, -0.5], dtype=np.float32))}
    fused = convex_combination(lists, limit=5, weights={"dense": 1.0})
    assert [(item.chunk_id, item.score) for item in fused] == [(1, 0.0), (2, 0.0)]
    assert convex_combination({}, limit=5, weights={}) == []


@pytest.mark.parametrize("weight", [-0.5, float("nan")])
def test_a_negative_weight_is_refused_by_the_convex_fusion(weight: float) -> None:
    with pytest.raises(InvalidRequest, match="dense"):
        convex_combination({"dense": _hits(1)}, limit=5, weights={"dense": weight})


def test_mean_of_rankings_counts_what_is_missing_as_0() -> None:
    first = [Fused(1, 0.9, {"dense": 0.5}), Fused(2, 0.6, {"dense": 0.3})]
    second = [Fused(2, 0.8, {"dense": 0.4, "lexical": 2.0})]
    merged = mean([first, second], limit=5)
    assert [(item.chunk_id, item.score) for item in merged] == [
        (2, pytest.approx(0.7)),
        (1, pytest.approx(0.45)),
    ]
    assert merged[0].scores == {"dense": 0.4, "lexical": 2.0}
    assert mean([first], limit=1) == first[:1]
