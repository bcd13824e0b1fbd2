"""Late interaction behind a whole search: spans, filters, readers, floors and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from infra.contracts import Access, Passage, Readers
from infra.errors import InvalidConfiguration
from infra.settings import load_settings
from retrieval.rerankers import open_reranker
from retrieval.search import SearchRequest
from retrieval.sources.folder import walk
from service.app import create_app
from service.wiring import Components
from tiny_model import write_model

OURS, THEIRS = "ours", "theirs"
WORDS = ("stone", "tower", "raven", "king", "wall")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("late")
    return {"model": write_model(folder / "model"), "cache": str(folder / "cache")}


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, model: dict[str, str]) -> Iterator[Components]:
    """Two tenants with a long document each; another embedder than the reranker's."""
    folder = tmp_path_factory.mktemp("documents")
    retrieval = {
        "embedder": "hashing", "chunk_tokens": 16, "chunk_overlap_tokens": 0,
        "reranker": "late_interaction", "reranker_options": model, "rerank_candidates": 12,
    }  # fmt: skip
    opened = Components(load_settings(data_folder=folder / "data", retrieval=retrieval))
    whole = opened.collections.create("towers", opened.recipe())
    for tenant in (OURS, THEIRS):
        texts = folder / tenant
        texts.mkdir()
        lines = [
            f"Part {number} of {tenant}: the {word} {other}, number {number}."
            for number, (word, other) in enumerate(zip(WORDS * 4, WORDS[1:] * 5, strict=True))
        ]
        (texts / "long.txt").write_text("\n\n".join(lines), encoding="utf-8")
        sources = [replace(each, readers=Readers(tenant)) for each in walk([texts])]
        for _ in opened.ingester.ingest(whole, sources):
            pass
    yield opened
    opened.close()


def search(parts: Components, text: str, **how: Any) -> list[Passage]:
    result = parts.retriever.search(parts.collections.get("towers"), SearchRequest(text, **how))
    return list(result.passages)


@pytest.mark.parametrize(
    "how", [{}, {"neighbours": 1}, {"diversity": 0.4}, {"neighbours": 2, "diversity": 0.4}]
)
def test_every_passage_is_what_is_stored_at_its_span_and_of_the_reader_s_tenant(
    parts: Components, how: dict[str, Any]
) -> None:
    found = search(parts, "stone tower wall", limit=5, access=Access(OURS), **how)
    assert len(found) >= 2
    for one in found:
        stored = parts.documents.read_text(
            one.document_id, one.document_version, one.start_char, one.end_char
        )
        assert stored == one.text
        assert THEIRS not in one.text
        assert one.scores["rerank"] == one.score
    assert len({one.chunk_id for one in found}) == len(found)


def test_it_reorders_what_the_fusion_found_and_a_request_may_leave_it_out(
    parts: Components,
) -> None:
    asked = {"text": "king raven stone", "limit": 12, "access": Access(OURS)}
    read, plain = search(parts, **asked), search(parts, **asked, rerank=False)
    assert {one.chunk_id for one in read} == {one.chunk_id for one in plain}
    assert [one.chunk_id for one in read] != [one.chunk_id for one in plain]
    assert not any("rerank" in one.scores for one in plain)
    assert [one.score for one in read] == sorted((one.score for one in read), reverse=True)


def test_a_floor_is_held_against_the_score_that_is_told(parts: Components) -> None:
    everything = search(parts, "stone tower", limit=12)
    floor = everything[3].score
    kept = search(parts, "stone tower", limit=12, min_score=floor)
    assert kept == [one for one in everything if one.score >= floor]
    assert 4 <= len(kept) < len(everything)


def test_a_model_without_vectors_of_tokens_is_refused_before_it_is_used(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", hidden_act="silu")
    with pytest.raises(InvalidConfiguration, match=r"vectors of tokens, it has activation 'silu'"):
        open_reranker("late_interaction", model=model, cache=str(tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


def test_a_service_does_not_start_with_a_reranker_that_cannot_rank(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", model_type="mpnet")
    retrieval = {
        "embedder": "hashing", "index": "exact", "reranker": "late_interaction",
        "reranker_options": {"model": model},
    }  # fmt: skip
    settings = load_settings(data_folder=tmp_path / "data", retrieval=retrieval)
    with (
        pytest.raises(InvalidConfiguration, match="model type 'mpnet'"),
        TestClient(create_app(Components(settings))),
    ):
        pass
