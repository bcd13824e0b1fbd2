"""An embedder from its specification to a new build and back, and what must never be registered."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import planted_words
from infra.artifacts.gc import Policy
from infra.errors import Conflict, InvalidRequest
from planted_words import NAME, question, write_spec
from retrieval.collections import Collection
from retrieval.receipts import Asked
from retrieval.search import SearchRequest
from retrieval.sources.folder import walk
from service import retrieval_tuning, stored_models
from service.retrieval_tuning import forgetting
from service.retrieval_tuning.corpus import open_corpus
from service.wiring import Components
from surroundings import no_settings_from_outside
from trained import only_third_parties_warn
from training.finetune import AskedToGo
from training.retrieval_models import tuning
from training.retrieval_models.specification import read
from training.retrieval_models.tuning import Outcome, tune
from training.run_folder import write_json
from training.sentinel import Aborted
from training.spec import as_json

pytest.importorskip("sentence_transformers")
pytest.importorskip("trl")
pytestmark = [*only_third_parties_warn, pytest.mark.usefixtures("light_training")]
ASKED = planted_words.DOCUMENTS[7]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuning")
    planted_words.write_embedder(folder / "base")
    planted_words.write_documents(folder / "documents")
    planted_words.write_task(folder)
    return folder


@pytest.fixture(scope="module")
def parts(place: Path) -> Iterator[Components]:
    with pytest.MonkeyPatch.context() as patch:
        no_settings_from_outside(patch, place)
        opened = planted_words.open_parts(place)
        planted_words.fill(opened, place / "documents")
    yield opened
    opened.close()


def run(parts: Components, place: Path, folder: Path, /, **changes: Any) -> Outcome:
    around: dict[str, Any] = {
        name: changes.pop(name) for name in ("tell", "note") if name in changes
    }
    given = {key.replace("__", "."): value for key, value in changes.items()}
    spec = read(write_spec(folder.with_suffix(".yaml"), given), "embedder")
    made = retrieval_tuning.around(parts, place, note=lambda _: None)
    return tune(spec, folder, replace(made, **around))


def models(parts: Components) -> list[str]:
    return [str(each) for each in parts.artifacts.names("model")]


def found(parts: Components, whole: Collection) -> list[str]:
    request = SearchRequest(question(ASKED), limit=3, mode="dense")
    passages = parts.retriever.search(whole, request).passages
    return [Path(each.source).stem for each in passages]


def test_an_embedder_learns_a_vocabulary_passes_its_gate_and_is_rolled_out_and_back(
    parts: Components, place: Path, tmp_path: Path
) -> None:
    wanted = "-".join(str(topic) for topic in ASKED)
    whole = parts.collections.get(NAME)
    assert found(parts, whole)[0] != wanted
    steps: list[Any] = []
    outcome = run(parts, place, tmp_path / "run", tell=steps.append)
    planned = json.loads((tmp_path / "run" / "lock.json").read_text())["batches"]["steps"]
    assert [each.step for each in steps] == list(range(1, planned + 1))
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"lock.json", "outcome.json", "model"}, "nothing that quotes a document"
    assert_registered(parts, outcome, tmp_path / "laid")

    recipe = parts.recipe(
        embedder="sentence_transformers",
        embedder_options={"model": "model/planted@candidate", "device": "cpu"},
    )
    digest = parts.artifacts.find(outcome.model).digest
    assert recipe.embedder_options == {"model": f"model/planted@{digest}", "device": "cpu"}
    begun = parts.builds.start(whole, recipe)
    for _ in parts.builder.fill(whole, begun):
        pass
    swapped = parts.builds.swap(whole, evaluate=parts.evaluate)
    assert swapped.live.id == begun.id
    assert found(parts, parts.collections.get(NAME))[0] == wanted
    assert_kept_while_used(parts, place, outcome, wanted=wanted)

    parts.builds.rollback(parts.collections.get(NAME))
    assert found(parts, parts.collections.get(NAME))[0] != wanted
    parts.builds.retire(whole, begun.id)
    assert not list(stored_models.used(parts))


def assert_registered(parts: Components, outcome: Outcome, folder: Path) -> None:
    """Hold what is stored of a model that passed against what it was made from and of."""
    assert outcome.verdict == "pass"
    assert outcome.model == "model/planted@v1"
    gates = {gate["metric"]: gate for gate in outcome.gates}
    assert set(gates) == {"ndcg@10", "recall@10", "mrr@10"}
    assert gates["ndcg@10"]["before"] < 0.3
    assert gates["ndcg@10"]["after"] > 0.9
    assert gates["ndcg@10"]["low"] > 0
    stored = parts.artifacts.resolve("model/planted@candidate")
    facts = stored.metadata["retrieval"]
    assert facts["collection"] == NAME
    assert set(facts) >= {"base.model", "data.train", "data.collection", "counts", "packages"}
    names = {entry.path for entry in stored.entries}
    assert {"model.safetensors", "modules.json", "tokenizer.json", "README.md"} <= names
    laid = parts.artifacts.checkout(outcome.model, folder)
    card = (laid / "README.md").read_text()
    assert "Verdict: **pass**" in card
    assert not any(word in card for word in [*planted_words.ASKED, *planted_words.SAID])
    assert outcome.run is not None
    assert parts.runs.get(outcome.run).state == "finished"


def assert_kept_while_used(
    parts: Components, place: Path, outcome: Outcome, *, wanted: str
) -> None:
    """Expire a model that a build needs, and find with it as another process would.

    To whom only the database and the store are left.
    """
    digest = parts.artifacts.find(outcome.model).digest
    shutil.rmtree(parts.settings.data_folder / "models")
    again = planted_words.open_parts(place)
    try:
        assert found(again, again.collections.get(NAME))[0] == wanted
        assert list(stored_models.used(again)) == [digest]
        parts.artifacts.untag("model/planted", "candidate")
        parts.artifacts.expire(outcome.model)
        policy = Policy(grace=timedelta(0), trash=timedelta(0))
        for _ in range(2):
            again.artifacts.gc(policy, roots=lambda: stored_models.used(again))
        shutil.rmtree(parts.settings.data_folder / "models")
        options = {"model": f"model/planted@{digest}", "device": "cpu"}
        assert stored_models.located(again, options)
    finally:
        again.close()


def test_a_run_on_shuffled_answers_is_stopped_by_its_gate(
    parts: Components, place: Path, tmp_path: Path
) -> None:
    planted_words.write_task(tmp_path, shuffled=True)
    before = models(parts)
    outcome = run(
        parts, place, tmp_path / "run", data__train={"rows": str(tmp_path / "rows.jsonl")},
        schedule__epochs=4, register={"name": "shuffled"},
    )  # fmt: skip
    assert outcome.verdict in {"fail", "inconclusive", "underpowered"}
    assert outcome.digest is None
    assert models(parts) == before
    assert (Path(outcome.model) / "model.safetensors").is_file()
    assert run(
        parts, place, tmp_path / "run", data__train={"rows": str(tmp_path / "rows.jsonl")},
        schedule__epochs=4, register={"name": "shuffled"}, tell=pytest.fail,
    ) == outcome  # fmt: skip


@pytest.mark.thorough
def test_a_run_that_was_asked_to_go_goes_on_to_the_same_weights(
    parts: Components, place: Path, tmp_path: Path
) -> None:
    import os
    import signal

    changes: dict[str, Any] = {
        "schedule__epochs": None, "schedule__steps": 6, "schedule__saving": {"every_steps": 2},
        "register": None,
    }  # fmt: skip
    whole = run(parts, place, tmp_path / "whole", **changes)

    def ask(progress: Any) -> None:
        if progress.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(AskedToGo):
        run(parts, place, tmp_path / "broken", tell=ask, **changes)
    notes: list[str] = []
    steps: list[int] = []
    resumed = run(
        parts, place, tmp_path / "broken", note=notes.append,
        tell=lambda progress: steps.append(progress.step), **changes,
    )  # fmt: skip
    assert notes[:2] == ["going on with the rows of its beginning", "going on after step 4"]
    assert steps == [5, 6]
    assert resumed.last_loss == pytest.approx(whole.last_loss, abs=1e-6)
    assert _weights(resumed) == pytest.approx(_weights(whole), abs=1e-6)
    with pytest.raises(Conflict, match="of a run with another spec"):
        run(parts, place, tmp_path / "broken", seed=5, **changes)


def test_a_run_that_was_stopped_does_not_go_on_with_passages_of_an_erased_document(
    parts: Components, place: Path, tmp_path: Path
) -> None:
    whole = parts.collections.get(NAME)
    _add_late(parts, whole, tmp_path)
    changes: dict[str, Any] = {
        "schedule__epochs": None, "schedule__steps": 4, "schedule__saving": {"every_steps": 1},
        "register": None,
    }  # fmt: skip

    def stop(progress: Any) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(parts, place, tmp_path / "run", tell=stop, **changes)
    kept = {tuning.MATERIAL, "checkpoints", "lock.json"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == kept
    spec = read(tmp_path / "run.yaml", "embedder")
    (late,) = open_corpus(parts, spec).named("late.txt")
    below = parts.settings.data_folder / "tuning"
    for name in ("quotes", "other"):
        shutil.copytree(tmp_path / "run", below / name)
    receipt = parts.erasure.erase(parts.documents, whole, [late], asked=Asked("test"))
    assert receipt.removed["tunings"] == 2, "where runs are by default, what is quoted goes at once"
    for folder in (tmp_path / "run", below / "quotes"):
        with pytest.raises(Conflict, match="is not what it was when this run began"):
            run(parts, place, folder, tell=pytest.fail, **changes)
        assert {path.name for path in folder.iterdir()} == {"lock.json"}


def test_a_document_that_is_erased_while_a_run_is_planned_is_not_quoted_by_it(
    parts: Components, place: Path, tmp_path: Path
) -> None:
    whole = parts.collections.get(NAME)
    _add_late(parts, whole, tmp_path)
    spec = read(write_spec(tmp_path / "spec.yaml", {}), "embedder")
    late = list(open_corpus(parts, spec).named("late.txt"))

    def erase(*_: int) -> None:
        if late:
            parts.erasure.erase(parts.documents, whole, [late.pop()], asked=Asked("test"))

    around = retrieval_tuning.around(parts, place, note=lambda _: None, told=erase)
    with pytest.raises(Conflict, match="is not what it was when this run began"):
        tune(spec, tmp_path / "run", around)
    assert late == []
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lock.json"]


def test_a_run_whose_documents_are_all_there_keeps_what_it_goes_on_with(
    parts: Components, tmp_path: Path
) -> None:
    spec = read(write_spec(tmp_path / "spec.yaml", {}), "embedder")
    folder = parts.settings.data_folder / "tuning" / "kept"
    digests = {"data.collection": open_corpus(parts, spec).digest}
    write_json(
        folder / "lock.json", {"kind": "embedder", "spec": as_json(spec), "digests": digests}
    )
    write_json(folder / tuning.MATERIAL, {})
    assert forgetting.forget(parts) == 0
    assert (folder / tuning.MATERIAL).exists()
    write_json(folder / "lock.json", {"kind": "embedder"})
    assert forgetting.forget(parts) == 1, "whose it is, nobody knows"
    assert not (folder / tuning.MATERIAL).exists()
    (folder / "checkpoints" / "step-4").mkdir(parents=True)  # by a run that was going on meanwhile
    assert forgetting.forget(parts) == 1
    assert [path.name for path in folder.iterdir()] == ["lock.json"]
    assert forgetting.forget(parts) == 0


def test_a_loss_that_is_no_number_ends_a_run_and_registers_nothing(
    parts: Components, place: Path, tmp_path: Path
) -> None:
    before = models(parts)
    with pytest.raises(Aborted):
        run(parts, place, tmp_path / "run", schedule__learning_rate=1.0,
            schedule__max_grad_norm=1e9, scale=1e38)  # fmt: skip
    assert models(parts) == before
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lock.json"]


def test_files_that_say_otherwise_than_the_model_are_not_registered(
    parts: Components, place: Path, tmp_path: Path
) -> None:
    spec = read(
        write_spec(tmp_path / "spec.yaml", {"schedule.epochs": None, "schedule.steps": 2}),
        "embedder",
    )
    around = retrieval_tuning.around(parts, place, note=lambda _: None)

    def damaged(spec: Any, folder: Path, probes: Any) -> Any:
        planted_words.write_embedder(tmp_path / "other", seed=9)
        shutil.copy(tmp_path / "other" / "model.safetensors", folder)
        return around.read_back(spec, folder, probes)

    with pytest.raises(Aborted, match="says otherwise than what was trained"):
        tune(spec, tmp_path / "run", replace(around, read_back=damaged))
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.thorough
@pytest.mark.parametrize(
    "changes",
    [
        {"loss": "cached_multiple_negatives", "forward_batch": 8},
        {"matryoshka": [16]},
        {"negatives": {"per_question": 0}},
        {"lora": {"r": 4, "alpha": 8}, "schedule__learning_rate": 0.02},
    ],
    ids=["cached", "matryoshka", "in batch", "lora"],
)
def test_every_loss_and_low_rank_weights_make_it_smaller(
    parts: Components, place: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    outcome = run(parts, place, tmp_path / "run", schedule__epochs=8, register=None, **changes)
    assert outcome.last_loss < 0.8 * outcome.first_loss
    names = {path.name for path in Path(outcome.model).iterdir()}
    assert "model.safetensors" in names
    assert not any("adapter" in name for name in names)


def test_low_rank_weights_are_merged_into_a_model_that_onnx_runtime_computes(
    parts: Components, place: Path, tmp_path: Path
) -> None:
    from retrieval.embedders import open_embedder

    outcome = run(
        parts, place, tmp_path / "run", schedule__epochs=2, register=None,
        lora={"r": 4, "alpha": 8}, serve="onnx",
    )  # fmt: skip
    texts = [question(topics) for topics in planted_words.DOCUMENTS[:4]]
    plain = open_embedder("sentence_transformers", model=outcome.model)
    graph = open_embedder(
        "onnx", model=outcome.model, precision="float32", cache=str(tmp_path / "cache")
    )
    assert plain.identity == graph.identity
    assert np.allclose(
        plain.embed(texts, kind="query"), graph.embed(texts, kind="query"), atol=1e-5
    )
    base = open_embedder("sentence_transformers", model=str(place / "base"))
    assert not np.allclose(base.embed(texts, kind="query"), plain.embed(texts, kind="query"))


def test_a_pickle_never_becomes_a_stored_model(parts: Components, tmp_path: Path) -> None:
    import torch

    folder = Path(planted_words.write_embedder(tmp_path / "model"))
    torch.save({"weights": 1}, folder / "pytorch_model.bin")
    with pytest.raises(InvalidRequest, match="can run code"):
        parts.artifacts.put(folder, "model/pickled")


def test_a_stored_base_is_a_parent_of_what_is_made_from_it(
    parts: Components, place: Path, tmp_path: Path
) -> None:
    from infra.datasets.datasets import Datasets

    base = parts.artifacts.put(place / "base", "model/base")
    rows = Datasets(parts.artifacts).put(place / "rows.jsonl", "questions")
    outcome = run(
        parts, place, tmp_path / "run", base__model="model/base@v1", register={"name": "child"},
        data__train={"rows": "dataset/questions@v1"}, base__digest=base.digest,
    )  # fmt: skip
    parents = parts.artifacts.resolve(outcome.model).parents
    assert {(each.role, each.digest) for each in parents} == {
        ("base", base.digest), ("train", rows.digest),
    }  # fmt: skip
    assert json.loads((tmp_path / "run" / "outcome.json").read_text())["model"] == outcome.model
    assert tuning.MATERIAL not in {path.name for path in (tmp_path / "run").iterdir()}


def _add_late(parts: Components, whole: Collection, folder: Path) -> None:
    (folder / "late").mkdir()
    (folder / "late" / "late.txt").write_text("the part of nobody")
    assert list(parts.ingester.ingest(whole, walk([folder / "late"])))


def _weights(outcome: Outcome) -> Any:
    from safetensors.numpy import load_file

    found = load_file(Path(outcome.model) / "model.safetensors")
    return np.concatenate([found[name].ravel() for name in sorted(found)])
