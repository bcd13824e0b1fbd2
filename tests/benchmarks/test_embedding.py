"""The embedding benchmark: chunks of the right length, scores that are known, every row there."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from benchmarks import embedding
from benchmarks.judged import Entry, Judged
from benchmarks.options import Options
from retrieval.embedders import open_embedder

EYE = np.eye(3, dtype=np.float32)


def collection(**relevant: int) -> Judged:
    documents = tuple(Entry(name, "", name) for name in "abc")
    return Judged("letters", documents, {"q": "a question"}, {"q": relevant})


def test_chunks_are_cut_to_200_to_250_tokens() -> None:
    embedder = open_embedder("hashing")
    texts = ["one two " * 20, *(f"word{number} " * 300 for number in range(30))]
    chunks = embedding.cut_chunks(embedder, texts, count=20)
    lengths = [len(embedder.token_spans(chunk)) for chunk in chunks]
    assert len(chunks) == 20
    assert min(lengths) >= 200
    assert max(lengths) < 250
    assert len(set(lengths)) > 5


def test_score_is_100_where_the_relevant_document_is_first() -> None:
    assert embedding.score(collection(b=1), EYE, EYE[1:2]) == pytest.approx(100)


def test_score_falls_by_the_logarithm_of_the_rank() -> None:
    question = np.array([[0.9, 0.5, 0.1]], dtype=np.float32)
    found = embedding.score(collection(b=1), EYE, question)
    assert found == pytest.approx(100 / np.log2(3))


@pytest.mark.model
@pytest.mark.slow
def test_quick_run_measures_every_precision(tmp_path: Path, shared_data: Path) -> None:
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    rows = embedding.run(Options(folder=tmp_path, quick=True, repeats=1, data=shared_data))
    metrics = [row.metric for row in rows]
    for title in embedding.EMBEDDERS:
        for what in ("documents", "one question p50", "process start to first vector"):
            assert f"{what}, {title}" in metrics
    (cosine,) = [row for row in rows if row.metric == f"adi, {embedding.OURS}" and row.note]
    assert "0.99" in cosine.note
    assert all(row.ours is not None for row in rows)
