"""The judged collections, the measures and the benchmark's quick form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import environments, judged, retrieval_quality
from benchmarks.judged import Entry, Judged
from benchmarks.options import Options
from retrieval.embedders.hashing import HashingEmbedder
from tiny_model import write_model

SIZES = {  # documents, questions, judgements
    "adi": (82, 35, 170),
    "cranfield": (1400, 225, 1837),
    "med": (1033, 30, 696),
    "npl": (11429, 93, 2083),
    "scifact": (5183, 300, 339),
}


@pytest.mark.parametrize("name", judged.NAMES)
def test_a_collection_is_read_whole(shared_data: Path, name: str) -> None:
    collection = judged.load(name, shared_data)
    judgements = sum(len(found) for found in collection.judgements.values())
    assert (len(collection.documents), len(collection.questions), judgements) == SIZES[name]
    assert set(collection.questions) == set(collection.judgements)


def test_training_questions_are_not_test_questions(shared_data: Path) -> None:
    training = judged.load("scifact", shared_data, split="train")
    test = judged.load("scifact", shared_data)
    assert len(training.questions) == 809
    assert not set(training.questions) & set(test.questions)


def test_measures_are_those_of_the_definition() -> None:
    collection = Judged(
        "tiny", (Entry("a", "", "a"),), {"1": "x", "2": "y"}, {"1": {"a": 1, "b": 1}, "2": {"a": 1}}
    )
    found = {"1": {"c": 3.0, "a": 2.0, "b": 1.0}}
    values = retrieval_quality.evaluate(collection, found, found)
    ideal = 1 + 1 / np.log2(3)
    assert values["nDCG@10"] == pytest.approx([100 * (1 / np.log2(3) + 0.5) / ideal, 0])
    assert values["R@100"] == pytest.approx([100, 0])
    assert values["RR@10"] == pytest.approx([50, 0])


def test_interval_holds_the_mean_and_narrows_with_more_questions() -> None:
    chance = np.random.default_rng(3)
    few, many = (chance.normal(1.0, 2.0, size=size) for size in (25, 2500))
    low, high = retrieval_quality.interval([few])
    assert low < few.mean() < high
    narrow_low, narrow_high = retrieval_quality.interval([many])
    assert narrow_high - narrow_low < (high - low) / 5
    assert narrow_low == pytest.approx(many.mean() - 1.96 * many.std() / 50, abs=0.02)


def test_equal_systems_have_an_interval_of_nothing() -> None:
    assert retrieval_quality.interval([np.zeros(10), np.zeros(5)]) == (0.0, 0.0)


def test_vectors_are_read_back_only_for_the_same_texts_and_model(tmp_path: Path) -> None:
    embedder = HashingEmbedder(64, 256)
    texts = ["one", "two words", "three more words"]
    first = judged.stored_vectors(embedder, texts, tmp_path)
    np.testing.assert_array_equal(first, embedder.embed(texts, kind="document"))
    (path,) = tmp_path.iterdir()
    np.save(path, first + 1)
    np.testing.assert_array_equal(judged.stored_vectors(embedder, texts, tmp_path), first + 1)
    other = HashingEmbedder(32, 256)
    assert judged.stored_vectors(other, texts, tmp_path).shape == (3, 32)
    assert judged.stored_vectors(embedder, texts[:2], tmp_path).shape == (2, 64)


def test_quick_form_measures_every_system_and_says_that_the_peer_is_missing(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options_of_reranker = {
        "model": write_model(tmp_path / "model"),
        "cache": str(tmp_path / "cache"),
    }
    monkeypatch.setenv("RAGSTONE_RETRIEVAL__RERANKER_OPTIONS", json.dumps(options_of_reranker))
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    options = Options(
        folder=scratch,
        quick=True,
        environments=tmp_path / "environments",
        embedder="hashing",
        data=shared_data,
    )
    rows = retrieval_quality.run(options)
    systems = {*retrieval_quality.SYSTEMS} - {retrieval_quality.OURS}
    for name in retrieval_quality.QUICK_NAMES:
        here = [
            row for row in rows if row.metric == f"{name} nDCG@10" and "published" not in row.note
        ]
        reranked = [row for row in rows if row.metric == f"{name} nDCG@10, reranked"]
        assert [row.peer_name for row in reranked] == ["RRF"]
        assert {row.peer_name for row in here} == systems | {retrieval_quality.PEER}
        for row in here:
            assert row.ours is not None
            assert 20 < row.ours.median <= 100
            assert (row.peer is None) == (row.note == environments.NOT_INSTALLED)
    assert any(row.note.startswith("published") for row in rows)
    assert not (Path.cwd() / ".ragstone").exists()
