"""What a tuned embedder is judged by: the search that answers, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import planted_words
from planted_words import NAME, write_spec
from retrieval.search import SearchRequest
from service.retrieval_tuning.corpus import open_corpus
from service.retrieval_tuning.gate import by_embedder
from surroundings import no_settings_from_outside
from trained import only_third_parties_warn
from training.retrieval_models.specification import EmbedderTuning, read
from training.retrieval_models.tuning import Question

pytest.importorskip("sentence_transformers")
pytestmark = [*only_third_parties_warn]
QUESTIONS = [
    Question(f"what is {first} of {second} ? {third}", (), str(number))
    for number, (first, second, third) in enumerate(
        zip(planted_words.SAID, planted_words.ASKED, planted_words.SAID[3:] * 2, strict=False)
    )
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gate")
    planted_words.write_embedder(folder / "base")
    planted_words.write_documents(folder / "documents")
    planted_words.write_task(folder)
    return folder


@pytest.fixture(scope="module")
def filled(place: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        no_settings_from_outside(patch, place)
        parts = planted_words.open_parts(place)
        planted_words.fill(parts, place / "documents")
        parts.close()
        yield place


@pytest.mark.parametrize(
    "settings",
    [
        {"smoothing": 0.0},
        {"smoothing": 0.9},
        {"fusion": "rrf"},
        {"smoothing": 0.6, "reranker": "reranking.by_shared_words", "rerank_candidates": 7},
    ],
)
def test_a_gate_orders_documents_as_the_search_that_answers_does(
    filled: Path, settings: dict[str, Any]
) -> None:
    """The model that is judged is the one of the build, so both sides have to be that search."""
    parts = planted_words.open_parts(filled, **settings)
    spec = read(write_spec(filled / "gate.yaml"), "embedder")
    assert isinstance(spec, EmbedderTuning)
    corpus = open_corpus(parts, spec)
    before, after, _ = by_embedder(parts, spec, filled / "base", corpus, QUESTIONS)
    whole = parts.collections.get(NAME)
    for question, *rankings in zip(QUESTIONS, before, after, strict=True):
        request = SearchRequest(question.text, limit=40)
        passages = parts.retriever.search(whole, request).passages
        wanted = list(dict.fromkeys(each.document_id for each in passages))
        assert len(wanted) == 40
        for ranking in rankings:
            assert ranking[:40] == wanted
    parts.close()
