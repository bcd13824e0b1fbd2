"""Laws of every search index."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from infra.errors import InvalidConfiguration, InvalidRequest
from infra.plugins import available
from retrieval.indexes import Change, Hits, SearchIndex, open_index

FOUND = available("retrieval.indexes")
# Milvus Lite takes minutes over this; the short form is `tests/retrieval/test_milvus_index.py`.
SLOW = [pytest.param("milvus", marks=pytest.mark.slow)] if find_spec("milvus_lite") else []
NAMES = ["exact", "local"]
TYPES = {"local as hnsw": "hnsw", "local as ivf": "ivf"}
"""Find most of what is nearest, not all; whoever is not named here finds it all."""
RECALL = 0.95
"""Asked of them over a test's questions; each was built to find 0.97 of another sample."""
ALL = [*NAMES, *TYPES, *SLOW]
DIMENSION = 16
WORDS = ["stone", "tower", "river", "bridge", "castle", "wall", "gate", "king", "ravens", "crown"]

Model = Mapping[int, Change]


def test_all_indexes_are_found() -> None:
    assert FOUND == ["exact", "local", "milvus"]


class Settled:
    """Has a structure built over whatever is applied, which else waits for a checkpoint."""

    def __init__(self, inner: SearchIndex) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __len__(self) -> int:
        return len(self._inner)

    def apply(self, changes: Sequence[Change]) -> None:
        self._inner.apply(changes)
        self._inner.checkpoint()
        assert not self._inner.is_due()


def _open(name: str, folder: Path, *, dimension: int = DIMENSION) -> SearchIndex:
    if name not in TYPES:
        return open_index(name, folder, dimension=dimension)
    options = {"type": TYPES[name], "exact_below": 1}
    return cast("SearchIndex", Settled(open_index("local", folder, dimension=dimension, **options)))


@pytest.fixture(params=ALL)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def index(name: str, tmp_path: Path) -> Iterator[SearchIndex]:
    opened = _open(name, tmp_path / "index")
    yield opened
    opened.close()


def _upsert(number: int, generator: np.random.Generator, *, sequence: int | None = None) -> Change:
    """Vectors whose products float32 holds exactly, so that ties are ties in every order."""
    words = generator.choice(WORDS, size=int(generator.integers(3, 12)))
    return Change(
        sequence=number if sequence is None else sequence,
        chunk_id=number,
        document_id=number // 3,
        text=" ".join(words),
        heading=str(generator.choice(WORDS)) if number % 2 else "",
        vector=(generator.integers(-2, 3, DIMENSION) / 4).astype(np.float16),
    )


def _upserts(count: int, seed: int = 0) -> list[Change]:
    generator = np.random.default_rng(seed)
    return [_upsert(number, generator) for number in range(1, count + 1)]


def _deletes(chunk_ids: Sequence[int], *, after: int) -> list[Change]:
    return [Change(after + n, chunk_id, 0) for n, chunk_id in enumerate(chunk_ids, start=1)]


def _question(seed: int = 7) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).integers(-2, 3, DIMENSION) / 4).astype(np.float32)


def _model(changes: Sequence[Change]) -> Model:
    model: dict[int, Change] = {}
    for change in changes:
        if change.vector is None:
            model.pop(change.chunk_id, None)
        else:
            model[change.chunk_id] = change
    return model


def _expected_dense(
    model: Model, question: NDArray[np.float32], documents: Sequence[int] | None = None
) -> list[tuple[int, float]]:
    scored = [
        (chunk_id, float(np.float64(change.vector) @ np.float64(question)))
        for chunk_id, change in model.items()
        if documents is None or change.document_id in documents
    ]
    return sorted(scored, key=lambda item: (-item[1], item[0]))


def _pairs(hits: Hits) -> list[tuple[int, float]]:
    return list(zip(hits.chunk_ids.tolist(), hits.scores.tolist(), strict=True))


def _ids(hits: Hits) -> list[int]:
    ids: list[int] = hits.chunk_ids.tolist()
    return ids


def _share_found(hits: Hits, expected: Sequence[tuple[int, float]], limit: int) -> float:
    """Check all but which chunks they are, and return the share that is as near as the nearest."""
    wanted = min(limit, len(expected))
    right = dict(expected)
    assert len(set(_ids(hits))) == len(_ids(hits)) == wanted
    assert _pairs(hits) == sorted(_pairs(hits), key=lambda item: (-item[1], item[0]))
    assert all(right[chunk_id] == score for chunk_id, score in _pairs(hits))
    worst = expected[wanted - 1][1]
    return int(np.count_nonzero(hits.scores >= worst)) / wanted


@pytest.mark.parametrize("limit", [1, 7, 60, 500, 600, 10_000])
def test_dense_agrees_with_brute_force_ties_included(
    name: str, index: SearchIndex, limit: int
) -> None:
    changes = _upserts(500)
    for start in range(0, 500, 90):
        index.apply(changes[start : start + 90])
    shares = []
    for seed in range(60 if name in TYPES else 20):
        question = _question(seed)
        expected = _expected_dense(_model(changes), question)
        hits = index.dense(question, limit)
        shares.append(_share_found(hits, expected, limit))
        assert name in TYPES or _pairs(hits) == expected[:limit]
    assert np.mean(shares) >= RECALL


def test_dense_agrees_with_brute_force_on_unit_vectors(name: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    vectors = generator.standard_normal((2_000, 384)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    stored = vectors.astype(np.float16)
    index = _open(name, tmp_path, dimension=384)
    index.apply([Change(n + 1, n + 1, n, "text", "", stored[n]) for n in range(2_000)])
    shares = []
    for question in vectors[:50]:
        scores = stored.astype(np.float64) @ question.astype(np.float64)
        order = np.lexsort((np.arange(2_000), -scores))[:40]
        hits = index.dense(question, 40)
        assert name in TYPES or _ids(hits) == (order + 1).tolist()
        shares.append(len(np.intersect1d(hits.chunk_ids, order + 1)) / 40)
        np.testing.assert_allclose(hits.scores, scores[hits.chunk_ids - 1], atol=1e-3)
    assert np.mean(shares) >= (RECALL if name in TYPES else 1.0)
    index.close()


def test_results_are_typed_and_fall(index: SearchIndex) -> None:
    index.apply(_upserts(100))
    for hits in (index.dense(_question(), 30), index.lexical("stone tower", 30)):
        assert hits.chunk_ids.dtype == np.int64
        assert hits.scores.dtype == np.float32
        assert len(hits.chunk_ids) == len(hits.scores) == 30
        assert (np.diff(hits.scores) <= 0).all()


def test_ties_fall_to_the_smaller_chunk_id_also_at_the_limit(name: str, index: SearchIndex) -> None:
    if name in TYPES:
        pytest.skip("which of the equals are candidates is not said")
    generator = np.random.default_rng(1)
    order = generator.permutation(np.arange(1, 404)).tolist()
    for repetition in range(10):
        # Real numbers: products are rounded, and not in every place of a block in the same way.
        vector = generator.standard_normal(DIMENSION).astype(np.float16)
        changes = [
            Change(repetition * 1_000 + n, chunk_id, 1, "old wall", "", vector)
            for n, chunk_id in enumerate(order, 1)
        ]
        for start in range(0, 403, 130):
            index.apply(changes[start : start + 130])
        question = (vector + generator.standard_normal(DIMENSION) / 3).astype(np.float32)
        hits = index.dense(question, 25)
        assert _ids(hits) == list(range(1, 26))
        assert len(set(hits.scores.tolist())) == 1
        assert _ids(index.lexical("wall", 25)) == list(range(1, 26))


def test_indexes_agree_where_scores_differ_by_rounding_only(tmp_path: Path) -> None:
    """The same numbers in another order: their sum is the same but for its last digits."""
    generator = np.random.default_rng(2)
    numbers = generator.standard_normal(384) / 20
    changes = [
        Change(n, n, 1, "wall", "", generator.permutation(numbers).astype(np.float16))
        for n in range(1, 401)
    ]
    question = np.full(384, 0.051, dtype=np.float32)
    found = []
    for name in NAMES:
        index = open_index(name, tmp_path / name, dimension=384)
        index.apply(changes)
        found.append(_pairs(index.dense(question, 30)))
        index.close()
    assert found == [found[0]] * len(NAMES)


def test_deleted_chunk_is_not_returned(index: SearchIndex) -> None:
    changes = _upserts(60)
    changes += _deletes([1, 5, 60, 61_000], after=60)
    index.apply(changes)
    model = _model(changes)
    assert len(index) == 57
    assert _pairs(index.dense(_question(), 100)) == _expected_dense(model, _question())
    assert set(_ids(index.lexical(" ".join(WORDS), 100))) == set(model)


def test_chunk_deleted_in_a_later_batch_is_not_returned(index: SearchIndex) -> None:
    changes = _upserts(60)
    index.apply(changes)
    index.apply(_deletes(range(1, 56), after=60))
    assert len(index) == 5
    assert sorted(_ids(index.dense(_question(), 100))) == [56, 57, 58, 59, 60]
    assert sorted(_ids(index.lexical(" ".join(WORDS), 100))) == [56, 57, 58, 59, 60]
    index.apply(_deletes(range(56, 61), after=115))
    assert len(index) == 0
    assert _ids(index.dense(_question(), 100)) == _ids(index.lexical("stone", 100)) == []


def test_vectors_are_given_back_in_the_order_asked(index: SearchIndex) -> None:
    changes = _upserts(60)
    index.apply(changes[:40])
    index.apply(changes[40:])
    index.apply(_deletes([7, 50], after=60))
    wanted = np.array([59, 7, 3, 1_000, 41, 50, 60], dtype=np.int64)

    vectors = index.vectors(wanted)

    model = _model([*changes, *_deletes([7, 50], after=60)])
    nothing = np.zeros(DIMENSION, dtype=np.float16)
    expected = [model[n].vector if n in model else nothing for n in wanted.tolist()]
    assert vectors.dtype == np.float16
    assert np.array_equal(vectors, np.stack([row for row in expected if row is not None]))
    assert index.vectors(np.empty(0, dtype=np.int64)).shape == (0, DIMENSION)


def test_upsert_replaces_text_vector_and_document(index: SearchIndex) -> None:
    first, second = np.eye(2, DIMENSION, dtype=np.float16)
    index.apply([Change(1, 9, 4, "granite", "", first), Change(2, 10, 4, "granite", "", first)])
    index.apply([Change(3, 9, 5, "marble", "", second)])
    assert len(index) == 2
    assert _ids(index.lexical("granite", 5)) == [10]
    assert _ids(index.lexical("marble", 5, documents=np.array([5]))) == [9]
    assert _ids(index.lexical("marble", 5, documents=np.array([4]))) == []
    assert _pairs(index.dense(second.astype(np.float32), 5)) == [(9, 1.0), (10, 0.0)]
    assert _ids(index.dense(second.astype(np.float32), 5, documents=np.array([4]))) == [10]


def test_last_change_of_a_chunk_in_a_batch_counts(index: SearchIndex) -> None:
    vector = np.ones(DIMENSION, dtype=np.float16)
    index.apply(
        [
            Change(1, 1, 1, "early", "", vector),
            Change(2, 2, 1, "gone", "", vector),
            Change(3, 1, 1, "late", "", vector),
            Change(4, 2, 0),
            Change(5, 3, 0),
            Change(6, 3, 1, "back", "", vector),
        ]
    )
    assert index.watermark == 6
    assert _ids(index.lexical("early gone", 5)) == []
    assert _ids(index.lexical("late back", 5)) == [1, 3]


@pytest.mark.parametrize("documents", [[], [4], [4, 90], list(range(0, 400, 100)), [10**12]])
def test_document_filter_is_enforced_inside_the_search(
    index: SearchIndex, documents: list[int]
) -> None:
    changes = _upserts(1_200)
    index.apply(changes)
    model = _model(changes)
    chosen = np.array(documents, dtype=np.int64)
    expected = _expected_dense(model, _question(), documents)
    for limit in (2, 5, 2_000):
        hits = index.dense(_question(), limit, documents=chosen)
        assert _pairs(hits) == expected[:limit]
    allowed = {chunk_id for chunk_id, _ in expected}
    found = _ids(index.lexical(" ".join(WORDS), 2_000, documents=chosen))
    assert set(found) == allowed
    some = index.lexical(" ".join(WORDS), 3, documents=chosen)
    assert _ids(some) == found[:3]


@pytest.mark.parametrize("step", [1, 2, 3, 7])
def test_lexical_filter_of_many_documents_is_complete(index: SearchIndex, step: int) -> None:
    """Common words fill the top of the list with chunks of documents that are not asked for."""
    vector = np.ones(DIMENSION, dtype=np.float16)
    changes = [
        Change(n, n, n, "wall wall" if n <= 5_000 else "a wall among other words", "", vector)
        for n in range(1, 8_001)
    ]
    index.apply(changes)
    chosen = np.arange(2_000, 8_001, step)
    everything = _ids(index.lexical("wall", 8_000))
    allowed = set(chosen.tolist())
    expected = [chunk_id for chunk_id in everything if chunk_id in allowed]
    for limit in (1, 50, 2_000):
        assert _ids(index.lexical("wall", limit, documents=chosen)) == expected[:limit]


def test_lexical_ranks_rare_terms_above_common_ones(index: SearchIndex) -> None:
    vector = np.ones(DIMENSION, dtype=np.float16)
    texts = ["the tower is old"] * 20 + ["the ravens are old"]
    index.apply([Change(n, n, 1, text, "", vector) for n, text in enumerate(texts, 1)])
    assert _ids(index.lexical("tower ravens", 3)) == [21, 1, 2]
    assert _ids(index.lexical("Are there RAVEN'S?", 1)) == [21]


def test_heading_is_searched(index: SearchIndex) -> None:
    vector = np.ones(DIMENSION, dtype=np.float16)
    index.apply(
        [
            Change(1, 1, 1, "Turn the handle to the left.", "Opening the gate", vector),
            Change(2, 2, 1, "Turn the handle to the right.", "Closing the window", vector),
        ]
    )
    assert _ids(index.lexical("gate handle", 2)) == [1, 2]


def test_indexes_agree_on_bm25_scores(tmp_path: Path) -> None:
    changes = _upserts(300)
    opened = [open_index(name, tmp_path / name, dimension=DIMENSION) for name in NAMES]
    for each in opened:
        each.apply(changes)
    for query in ("stone", "tower of the kings", " ".join(WORDS), "nothing such"):
        first, *others = (each.lexical(query, 120) for each in opened)
        for other in others:
            assert len(first.scores) == len(other.scores)
            np.testing.assert_allclose(first.scores, other.scores, atol=1e-3)
            # Scores that differ in the last digit may change places; the sets may not differ.
            assert set(_ids(first)[:100]) <= set(_ids(other))
    for each in opened:
        each.close()


def test_empty_index_answers_with_nothing(index: SearchIndex) -> None:
    assert index.watermark == 0
    assert len(index) == 0
    index.apply([])
    assert index.watermark == 0
    for documents in (None, np.array([1]), np.array([], dtype=np.int64)):
        assert _ids(index.dense(_question(), 5, documents=documents)) == []
        assert _ids(index.lexical("stone", 5, documents=documents)) == []


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_below_one_answers_with_nothing(index: SearchIndex, limit: int) -> None:
    index.apply(_upserts(10))
    assert _ids(index.dense(_question(), limit)) == _ids(index.lexical("stone", limit)) == []


@pytest.fixture(scope="module", params=ALL)
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SearchIndex:
    folder = tmp_path_factory.mktemp("filled")
    index = _open(request.param, folder)
    index.apply(_upserts(30))
    return index


@settings(max_examples=200, deadline=None)
@given(query=st.text(st.characters(), max_size=200))
def test_any_text_is_a_query(filled: SearchIndex, query: str) -> None:
    hits = filled.lexical(query, 5, documents=np.array([1, 2]))
    assert len(hits.chunk_ids) <= 5


@pytest.mark.parametrize(
    "query",
    [
        "",
        "\x00",
        "\ud800",
        "AND OR NOT",
        'text:"stone',
        "chunk_id:[1 TO *]",
        '+-&|!(){}[]^"~*?:\\/' * 5_000,
        "a" * 100_000,
        " ".join(str(n) for n in range(17_000)),
        "a" + "\u0301\u0316" * 50_000,
        "石" * 30_000,
    ],
    ids=lambda query: f"{query[:12]!r}-{len(query)}",
)
def test_hostile_queries_are_only_text(filled: SearchIndex, query: str) -> None:
    stone = _ids(filled.lexical("stone", 50))
    assert _ids(filled.lexical(f"{query} stone", 50)) == stone
    assert set(_ids(filled.lexical(query, 50))) <= set(range(1, 31))


@pytest.mark.parametrize("text", ["\ud800 wall", "a\x00wall", "wall\u0301\u0316 " * 9, ""])
def test_any_text_can_be_indexed(index: SearchIndex, text: str) -> None:
    index.apply([Change(1, 1, 1, text, text, np.ones(DIMENSION, dtype=np.float16))])
    assert len(index) == 1
    assert _ids(index.lexical("wall", 5)) == ([1] if "wall" in text else [])


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("机器学习是人工智能的一个分支。", "人工智能"),
        ("机器学习是人工智能的一个分支。", "学习 是什么"),
        ("吾輩は猫である。名前はまだ無い。", "猫"),
        ("データベースの設計", "データベース"),
        ("학교에서 공부합니다", "학교"),
        ("ทุกคนเกิดมามีอิสระ", "อิสระ"),
        ("សិទ្ធិមនុស្ស", "មនុស្ស"),
        ("विद्या ददाति विनयम्", "विद्या"),
        ("الكِتَابُ الجَدِيد", "الكتاب"),
        ("שָׁלוֹם עולם", "שלום"),
        ("Ein Café in Zürich", "cafe zurich"),
        ("Ein Cafe\u0301", "Café"),
        ("The \ufb01nal report", "final"),
        ("ＡＢＣ Corporation", "abc"),
        ("in\u00adfor\u00adma\u00adtion", "information"),
        ("Straße nach Köln", "strasse"),
        ("running quickly", "runs"),
        ("Общие положения договора", "ДОГОВОРА"),
        ("error_code=E1234", "E1234"),
    ],
)
def test_text_of_any_script_is_found(index: SearchIndex, text: str, query: str) -> None:
    vector = np.ones(DIMENSION, dtype=np.float16)
    index.apply(
        [
            Change(1, 1, 1, "something else entirely 天气 날씨 अन्य", "", vector),
            Change(2, 2, 1, text, "", vector),
        ]
    )
    assert _ids(index.lexical(query, 5)) == [2]


def test_changes_applied_twice_count_once(index: SearchIndex) -> None:
    changes = _upserts(40)
    changes += _deletes([3, 4], after=40)
    index.apply(changes[:20])
    index.apply(changes[:30])
    index.apply(changes[:10])
    assert index.watermark == 30
    index.apply(changes)
    index.apply(changes)
    assert index.watermark == 42
    assert len(index) == 38
    assert _pairs(index.dense(_question(), 50)) == _expected_dense(_model(changes), _question())
    assert set(_ids(index.lexical(" ".join(WORDS), 50))) == set(_model(changes))


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(1, 79), max_size=4))
def test_any_split_into_batches_gives_the_same_results(
    name: str, tmp_path_factory: pytest.TempPathFactory, seed: int, cuts: list[int]
) -> None:
    generator = np.random.default_rng(seed)
    changes = [
        _upsert(int(generator.integers(1, 30)), generator, sequence=sequence)
        if generator.random() < 0.7
        else Change(sequence, int(generator.integers(1, 30)), 0)
        for sequence in range(1, 81)
    ]
    index = _open(name, tmp_path_factory.mktemp("split"))
    edges = [0, *sorted(set(cuts)), 80]
    for start, end in zip(edges, edges[1:], strict=False):
        index.apply(changes[start:end])
    model = _model(changes)
    assert len(index) == len(model)
    assert _pairs(index.dense(_question(), 50)) == _expected_dense(model, _question())
    assert set(_ids(index.lexical(" ".join(WORDS), 50))) == set(model)
    index.close()


def test_searches_never_see_half_a_batch(index: SearchIndex) -> None:
    """Each batch adds a pair of chunks or replaces one; four threads look again and again."""
    vector = np.ones(DIMENSION, dtype=np.float16)
    question = vector.astype(np.float32)
    stop = threading.Event()
    faults: list[list[int]] = []
    looks = [0] * 4

    def look(worker: int) -> None:
        while not stop.is_set():
            found = (
                index.lexical("wall", 1_000) if worker % 2 else index.dense(question, 1_000)
            ).chunk_ids
            looks[worker] += 1
            time.sleep(0.001)  # else the writer waits for the interpreter most of the time
            pairs = np.unique(found // 2, return_counts=True)[1]
            if not (pairs == 2).all():
                faults.append(found.tolist())

    threads = [threading.Thread(target=look, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for sequence in range(1, 25):
        # Every third batch deletes the pair before last, so tombstones come and go too.
        pair = sequence * 2
        batch = [
            Change(sequence * 10 + part, pair + part, sequence, "wall", "", vector)
            for part in (0, 1)
        ]
        if sequence % 3 == 0:
            batch += [Change(sequence * 10 + 2 + part, pair - 4 + part, 0) for part in (0, 1)]
        index.apply(batch)
        if sequence % 6 == 0:
            index.checkpoint()
    stop.set()
    for thread in threads:
        thread.join()
    assert faults == []
    assert min(looks) > 0
    assert len(index) == 48 - 2 * 8


@pytest.mark.parametrize("width", [DIMENSION - 1, DIMENSION + 1, 1])
def test_vector_of_another_dimension_is_refused(index: SearchIndex, width: int) -> None:
    vector = np.ones(width, dtype=np.float16)
    with pytest.raises(InvalidConfiguration, match=rf"\({width},\).*{DIMENSION}"):
        index.apply([Change(1, 1, 1, "wall", "", vector)])
    with pytest.raises(InvalidRequest, match=rf"\({width},\).*{DIMENSION}"):
        index.dense(vector.astype(np.float32), 5)
    assert index.watermark == 0
    assert len(index) == 0


def test_question_that_is_not_finite_is_refused(index: SearchIndex) -> None:
    with pytest.raises(InvalidRequest, match="not finite"):
        index.dense(np.full(DIMENSION, np.nan, dtype=np.float32), 5)
