"""The quick form of tuning an embedder on judged questions, with a model of a few kilobytes."""

from __future__ import annotations

from pathlib import Path

import pytest

import planted_words
from benchmarks import tuned_retrieval
from benchmarks.options import Options
from trained import only_third_parties_warn

pytest.importorskip("sentence_transformers")
pytest.importorskip("trl")
pytestmark = [*only_third_parties_warn, pytest.mark.usefixtures("light_training")]


def test_a_collection_is_asked_before_and_after_its_embedder_is_tuned(
    tmp_path: Path, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted_words.write_embedder(tmp_path / "base")
    for name, value in {
        "EMBEDDER": "sentence_transformers",
        "EMBEDDER_OPTIONS": f'{{"model": "{tmp_path / "base"}", "device": "cpu"}}',
        "CHUNK_TOKENS": "32",
        "CHUNK_OVERLAP_TOKENS": "0",
    }.items():
        monkeypatch.setenv(f"RAGSTONE_RETRIEVAL__{name}", value)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    rows = tuned_retrieval.run(Options(folder=scratch, quick=True, data=shared_data))
    by_words, by_meaning = [
        next(row for row in rows if row.metric == f"test questions: nDCG@10 of {system}")
        for system in ("BM25", "dense")
    ]
    assert by_words.ours == by_words.peer
    assert by_meaning.ours != by_meaning.peer
    assert any(row.metric == "training questions held out: ndcg@10" for row in rows)
    assert not (Path.cwd() / ".ragstone").exists()
