"""A reranker from its specification to the answers of one collection, and back by its alias."""

from __future__ import annotations

import json
import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import planted_words
from infra.errors import NotFound
from infra.settings import load_settings
from planted_words import NAME, write_spec
from retrieval.search import SearchRequest
from service import retrieval_tuning
from service.rerankers import FOLLOWED_SECONDS, Rerankers
from service.wiring import Components
from surroundings import no_settings_from_outside
from trained import only_third_parties_warn
from training.retrieval_models.planning import plan
from training.retrieval_models.specification import read
from training.retrieval_models.tuning import Outcome, tune
from tuning import write_rows

pytest.importorskip("sentence_transformers")
pytest.importorskip("trl")
pytestmark = [*only_third_parties_warn, pytest.mark.usefixtures("light_training")]
STORED = {"options": {"model": "model/judge@production", "device": "cpu"}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reranking")
    planted_words.write_cross_encoder(folder / "base")
    write_rows(folder / "rows.jsonl", planted_words.write_versions(folder / "documents"))
    return folder


@pytest.fixture(scope="module")
def parts(place: Path) -> Iterator[Components]:
    with pytest.MonkeyPatch.context() as patch:
        no_settings_from_outside(patch, place)
        opened = Components(
            load_settings(
                data_folder=place / "data",
                retrieval={
                    "embedder": "hashing", "chunk_tokens": 32, "chunk_overlap_tokens": 0,
                    "smoothing": 0.0, "rerank_candidates": 2, "rerankers": {NAME: STORED},
                },
            )
        )  # fmt: skip
        planted_words.fill(opened, place / "documents")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def tuned(parts: Components, place: Path) -> Outcome:
    base = {**parts.settings.model_dump()["retrieval"], "rerankers": {}}
    plain = Components(load_settings(data_folder=place / "data", retrieval=base))
    try:
        return run(plain, place, place / "run")
    finally:
        plain.close()


def run(parts: Components, place: Path, folder: Path, **changes: Any) -> Outcome:
    around = retrieval_tuning.around(parts, place, note=lambda _: None)
    return tune(read(_spec(folder, **changes), "reranker"), folder, around)


def _spec(folder: Path, **changes: Any) -> Path:
    values = {
        "base.model": "base", "candidates": 2, "register": {"name": "judge"},
        "negatives": {"per_question": 1, "margin": None, "last_rank": 5},
        "schedule": {"epochs": 10, "batch": 10, "learning_rate": 0.003},
    }  # fmt: skip
    return write_spec(folder.with_suffix(".yaml"), {**values, **changes})


def found(parts: Components) -> list[str]:
    request = SearchRequest("what is saida saidb saidc ?", limit=2)
    passages = parts.retriever.search(parts.collections.get(NAME), request).passages
    return [each.text.split()[0] for each in passages]


def test_a_reranker_learns_which_of_two_passages_is_meant_and_is_registered(
    tuned: Outcome, parts: Components
) -> None:
    assert tuned.verdict == "pass"
    gates = {gate["metric"]: gate for gate in tuned.gates}
    assert gates["ndcg@10"]["before"] < 0.75
    assert gates["ndcg@10"]["after"] == 1.0
    assert tuned.model == "model/judge@v1"
    facts = parts.artifacts.resolve("model/judge@candidate").metadata["retrieval"]
    assert facts["kind"] == "reranker"


def test_a_collection_has_its_reranker_by_an_alias_that_is_promoted_and_rolled_back(
    tuned: Outcome, parts: Components, place: Path
) -> None:
    with pytest.raises(NotFound, match="model/judge"):
        found(parts)
    parts.artifacts.tag(tuned.model, "production")
    assert found(parts) == ["valid", "void"]

    now = [0.0]
    chosen = parts.settings.retrieval.rerankers
    rerankers = Rerankers(parts, chosen, clock=lambda: now[0])
    first = rerankers.of(NAME)
    other = parts.artifacts.put(place / "base", "model/judge")
    parts.artifacts.tag(str(other), "production")
    assert rerankers.of(NAME) is first, "an alias is not looked up for every search"
    now[0] += FOLLOWED_SECONDS
    second = rerankers.of(NAME)
    assert second is not first
    parts.artifacts.roll_back("model/judge", "production")
    now[0] += FOLLOWED_SECONDS
    third = rerankers.of(NAME)
    assert (
        third.score("x", ["valid"]) == first.score("x", ["valid"]) != second.score("x", ["valid"])
    )
    parts.artifacts.untag("model/judge", "production")
    now[0] += FOLLOWED_SECONDS
    assert rerankers.of(NAME) is third, "a search does not fail for an alias that is gone"
    assert rerankers.of("another") is parts.reranker


@pytest.fixture(scope="module")
def broken(parts: Components, place: Path, tuned: Outcome) -> str:
    """A version whose files do not say what kind of model they are of."""
    folder = Path(shutil.copytree(place / "base", place / "broken"))
    config = json.loads((folder / "config.json").read_text())
    del config["model_type"]
    (folder / "config.json").write_text(json.dumps(config))
    return str(parts.artifacts.put(folder, "model/judge"))


def test_an_alias_that_is_moved_to_a_broken_model_breaks_no_search(
    tuned: Outcome, broken: str, parts: Components, place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts.artifacts.tag(tuned.model, "production")
    now = [0.0]
    rerankers = Rerankers(parts, parts.settings.retrieval.rerankers, clock=lambda: now[0])
    kept = rerankers.of(NAME)
    parts.artifacts.tag(broken, "production")
    for _ in range(2):
        now[0] += FOLLOWED_SECONDS
        assert rerankers.of(NAME) is kept
    told = [each.getMessage() for each in caplog.records if each.name == "service.rerankers"]
    assert len(told) == 1, "it is not loaded again and again"
    assert told[0].startswith(f"reranker {parts.artifacts.find(tuned.model).pinned} is kept: ")
    assert kept.score("x", ["valid"]) is not None
    other = parts.artifacts.put(place / "base", "model/judge")
    parts.artifacts.tag(str(other), "production")
    now[0] += FOLLOWED_SECONDS
    assert rerankers.of(NAME) is not kept


def test_others_search_with_the_known_reranker_while_one_tries_the_next(
    tuned: Outcome, broken: str, parts: Components
) -> None:
    parts.artifacts.tag(tuned.model, "production")
    now = [0.0]
    rerankers = Rerankers(parts, parts.settings.retrieval.rerankers, clock=lambda: now[0])
    kept = rerankers.of(NAME)
    parts.artifacts.tag(broken, "production")
    now[0] += FOLLOWED_SECONDS
    meanwhile = []

    class Searching(logging.Handler):
        """Searches when it is told that the next one cannot be taken."""

        def emit(self, record: logging.LogRecord) -> None:
            thread = threading.Thread(target=lambda: meanwhile.append(rerankers.of(NAME)))
            thread.start()
            thread.join(timeout=20)
            assert not thread.is_alive(), record.getMessage()

    handler, log = Searching(), logging.getLogger("service.rerankers")
    log.addHandler(handler)
    try:
        assert rerankers.of(NAME) is kept
    finally:
        log.removeHandler(handler)
    assert meanwhile == [kept]


def test_rerankers_also_learn_the_order_of_lists(
    tuned: Outcome, parts: Components, place: Path, tmp_path: Path
) -> None:
    parts.artifacts.tag(tuned.model, "production")
    outcome = run(
        parts, place, tmp_path / "run", register=None, loss="lambda",
        **{"base.model": str(place / "base")},
    )  # fmt: skip
    assert outcome.last_loss < 0.8 * outcome.first_loss
    # The one in use is right already, and nothing can be gained.
    assert {gate["metric"]: gate["before"] for gate in outcome.gates}["ndcg@10"] == 1.0
    assert outcome.verdict != "pass"


def test_a_model_that_makes_vectors_is_no_base_of_a_reranker(
    parts: Components, place: Path, tmp_path: Path
) -> None:
    planted_words.write_embedder(tmp_path / "vectors")
    spec = read(_spec(tmp_path / "run", **{"base.model": str(tmp_path / "vectors")}), "reranker")
    problems = plan(spec, retrieval_tuning.surroundings(parts, place)).problems
    assert [str(each) for each in problems] == [
        f"base.model: '{tmp_path / 'vectors'}' turns texts into vectors; a reranker is tuned from "
        "a cross-encoder"
    ]
