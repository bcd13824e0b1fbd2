"""The Milvus index on Milvus Lite: the laws in short, restarts, crashes, and a whole service."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from infra.errors import InvalidConfiguration
from infra.settings import load_settings
from retrieval.indexes import Change, Hits, SearchIndex, open_index
from retrieval.search import SearchRequest
from retrieval.sources.folder import walk
from service.wiring import Components

pytest.importorskip("milvus_lite", reason="the extra `milvus` is not installed")

DIMENSION = 16
WORDS = ["stone", "tower", "river", "bridge", "castle", "wall", "gate", "king"]
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def index(tmp_path: Path) -> Iterator[SearchIndex]:
    opened = open_index("milvus", tmp_path / "index", dimension=DIMENSION)
    yield opened
    opened.close()


def _changes(count: int, seed: int = 0) -> list[Change]:
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((count, DIMENSION)).astype(np.float16)
    return [
        Change(
            sequence=number,
            chunk_id=number,
            document_id=number // 3,
            text=" ".join(generator.choice(WORDS, size=6)),
            heading="机器学习" if number % 5 == 0 else "",
            vector=vectors[number - 1],
        )
        for number in range(1, count + 1)
    ]


def _question() -> NDArray[np.float32]:
    return np.random.default_rng(7).standard_normal(DIMENSION).astype(np.float32)


def _pairs(hits: Hits) -> list[tuple[int, float]]:
    return list(zip(hits.chunk_ids.tolist(), hits.scores.tolist(), strict=True))


def _assert_same(index: SearchIndex, changes: Sequence[Change], folder: Path) -> None:
    exact = open_index("exact", folder, dimension=DIMENSION)
    exact.apply(changes)
    assert len(index) == len(exact)
    for documents in (None, np.array([2, 5, 6, 9]), np.array([], dtype=np.int64)):
        for limit in (1, 10, 500):
            mine = index.dense(_question(), limit, documents=documents)
            assert _pairs(mine) == _pairs(exact.dense(_question(), limit, documents=documents))
        for query in ("tower of the kings", "学习", "nothing such", " ".join(WORDS)):
            mine = index.lexical(query, 500, documents=documents)
            theirs = exact.lexical(query, 500, documents=documents)
            assert set(mine.chunk_ids.tolist()) == set(theirs.chunk_ids.tolist())
            if documents is None:  # with a filter, Milvus Lite counts words in what it lets pass
                np.testing.assert_allclose(mine.scores, theirs.scores, atol=1e-3)


def test_it_finds_what_the_exact_index_finds(index: SearchIndex, tmp_path: Path) -> None:
    changes = _changes(120)
    gone = [Change(120 + n, chunk_id, 0) for n, chunk_id in enumerate((1, 7, 120, 999), 1)]
    replaced = [Change(125, 30, 2, "marble", "", changes[3].vector)]
    for part in (changes[:50], changes[40:], gone, replaced):
        index.apply(part)
    assert index.watermark == 125
    _assert_same(index, [*changes, *gone, *replaced], tmp_path / "exact")


def test_ties_at_the_limit_fall_to_the_smaller_chunk_id(index: SearchIndex) -> None:
    vector = np.ones(DIMENSION, dtype=np.float16)
    index.apply([Change(n, 200 - n, 1, "wall", "", vector) for n in range(1, 200)])
    assert index.dense(vector.astype(np.float32), 5).chunk_ids.tolist() == [1, 2, 3, 4, 5]
    assert index.lexical("wall", 5).chunk_ids.tolist() == [1, 2, 3, 4, 5]


def test_a_long_question_is_asked_by_its_rarest_words(index: SearchIndex) -> None:
    index.apply([*_changes(40), Change(41, 41, 1, "zebra", "", _changes(1)[0].vector)])
    question = " ".join([*map(str, range(1_500)), *WORDS, "zebra"])
    assert index.lexical(question, 1).chunk_ids.tolist() == [41]


def test_hybrid_search_is_one_request_and_keeps_the_filter(index: Any) -> None:
    index.apply(_changes(60))
    chosen = np.array([2, 5, 6])
    hits = index.hybrid("stone tower", _question(), limit=9, documents=chosen)
    assert set((hits.chunk_ids // 3).tolist()) == {2, 5, 6}
    best_dense = index.dense(_question(), 1, documents=chosen).chunk_ids[0]
    assert best_dense in hits.chunk_ids[:3]
    assert (np.diff(hits.scores) <= 0).all()
    nothing = np.array([], dtype=np.int64)
    assert len(index.hybrid("", _question(), limit=3, documents=nothing).chunk_ids) == 0
    assert len(index.hybrid("", _question(), limit=3).chunk_ids) == 3


def test_another_dimension_or_an_unknown_option_is_refused(tmp_path: Path) -> None:
    open_index("milvus", tmp_path / "index", dimension=DIMENSION).close()
    with pytest.raises(InvalidConfiguration, match=f"{DIMENSION}.*not 8"):
        open_index("milvus", tmp_path / "index", dimension=8)
    with pytest.raises(InvalidConfiguration, match=r"url.*there are uri"):
        open_index("milvus", tmp_path / "index", dimension=8, url="http://127.0.0.1:1")


WRITER = """
import os, signal, sys
from pathlib import Path
import numpy as np
from retrieval.indexes import Change, open_index

folder, dies = Path(sys.argv[1]), sys.argv[2]
index = open_index("milvus", folder, dimension=16)
print(index.watermark, len(index), flush=True)
vectors = np.random.default_rng(0).standard_normal((90, 16)).astype(np.float16)
changes = [Change(n, n, n // 3, f"wall {n}", "", vectors[n - 1]) for n in range(1, 91)]
changes += [Change(91, 4, 0), Change(92, 5, 0)]
if dies == "kill":
    index.apply(changes[:60])
    index._store_watermark = lambda watermark: os.kill(os.getpid(), signal.SIGKILL)
index.apply(changes)
index.checkpoint()
found = index.dense(vectors[80].astype(np.float32), 3).chunk_ids.tolist()
print(index.watermark, len(index), found, flush=True)
os._exit(0)
"""


def test_a_batch_cut_short_by_kill_9_is_applied_again_and_changes_nothing(tmp_path: Path) -> None:
    """Milvus Lite keeps its file for one process, so each look is a process of its own."""

    def run(dies: str) -> list[str]:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", WRITER, str(tmp_path / "index"), dies],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        )
        return done.stdout.splitlines()

    assert run("kill") == ["0 0"]
    restarted, finished = run("live")
    assert restarted == "60 88"  # everything of the second batch but its watermark
    assert finished.startswith("92 88 [81, ")
    assert run("live")[0] == "92 88"


def test_a_service_on_milvus_finds_and_forgets(
    tmp_path: Path, open_components: Callable[[Any], Components]
) -> None:
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "a.txt").write_text("Ravens live at the Tower of London.")
    (folder / "b.txt").write_text("A stone bridge crosses the river.")
    parts = open_components(
        load_settings(
            data_folder=tmp_path / "data",
            retrieval={"embedder": "hashing", "index": "milvus"},
        )
    )
    into = parts.collections.create("castles", parts.recipe())
    list(parts.ingester.ingest(into, walk([folder])))
    [found] = parts.search(into, SearchRequest("Where do ravens live?", limit=1)).passages
    assert "Ravens" in found.text
    parts.documents.delete(into, found.document_id)
    left = parts.search(into, SearchRequest("Where do ravens live?", limit=5)).passages
    assert [passage.text for passage in left] == ["A stone bridge crosses the river."]
    parts.delete_collection("castles")
