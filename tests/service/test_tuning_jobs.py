"""Tuning of embedders and rerankers as jobs: launched, followed, their verdict as the result."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import planted_words
from infra.settings import load_settings
from lost_machines import lose
from migrated import put_schema
from planted_words import write_spec
from service.retrieval_tuning.forgetting import of_jobs
from service.wiring import Components
from surroundings import no_settings_from_outside
from waiting import until

SETTINGS = '[retrieval]\nembedder = "hashing"\nchunk_tokens = 16\nchunk_overlap_tokens = 0\n'


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Components]:
    """A collection, questions about it, and a worker."""
    no_settings_from_outside(monkeypatch, tmp_path)
    (tmp_path / "ragstone.toml").write_text(SETTINGS)
    put_schema(tmp_path / ".ragstone" / "ragstone.db")
    opened = Components(load_settings())
    planted_words.fill(opened, planted_words.write_documents(tmp_path / "documents"))
    planted_words.write_task(tmp_path)
    opened.worker.start()
    yield opened
    opened.worker.stop()
    for job in opened.jobs.list(limit=100):
        lose("train", job.id)  # a training outlives its job, unless that came to its end
    opened.close()


@pytest.mark.thorough
def test_a_tuning_is_a_job_whose_result_is_its_verdict(parts: Components, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("trl")
    planted_words.write_embedder(tmp_path / "vectors")
    changes = {
        "base.model": str(tmp_path / "vectors"), "serve": "sentence_transformers", "device": "cpu",
        "schedule": {"steps": 1, "batch": 2, "learning_rate": 1e-9},
    }  # fmt: skip
    spec = write_spec(tmp_path / "spec.yaml", changes)
    left = of_jobs(parts) / "job-of-long-ago"
    left.mkdir(parents=True)
    job = parts.jobs.start("train_embedder", {"spec": str(spec)})
    done = parts.jobs.wait(job.id, timeout_seconds=400)
    assert done.state == "succeeded", (done.error, parts.jobs.logs(job.id))
    assert done.result["verdict"] in {"inconclusive", "underpowered"}
    assert done.result["digest"] is None
    assert parts.artifacts.names("model") == []
    assert parts.runs.get(done.result["run"]).state == "finished"
    assert [each.name for each in of_jobs(parts).iterdir()] == [job.id]
    assert Path(done.result["model"]) == of_jobs(parts).absolute() / job.id / "model"


@pytest.mark.thorough
def test_a_tuning_whose_machine_is_lost_is_launched_again(
    parts: Components, tmp_path: Path
) -> None:
    pytest.importorskip("sentence_transformers")
    pytest.importorskip("trl")
    planted_words.write_cross_encoder(tmp_path / "scores")
    changes = {
        "base.model": str(tmp_path / "scores"), "candidates": 4,
        "negatives": {"per_question": 1, "margin": None, "last_rank": 5},
        "schedule": {"steps": 1, "batch": 2, "learning_rate": 1e-9},
    }  # fmt: skip
    spec = write_spec(tmp_path / "spec.yaml", changes)
    job = parts.jobs.start("train_reranker", {"spec": str(spec)})

    def is_watched() -> bool:  # before, nobody could tell the loss from a program that cannot start
        return any(each.message.startswith("watching ") for each in parts.jobs.logs(job.id))

    until(is_watched, seconds=120)
    assert lose("train reranker", job.id)
    done = parts.jobs.wait(job.id, timeout_seconds=400)
    told = [each.message for each in parts.jobs.logs(job.id)]
    assert done.state == "succeeded", (done.error, told)
    assert [each for each in told if each.startswith("launched again: ")]
    assert done.result["verdict"] in {"inconclusive", "underpowered", "fail"}
    assert (Path(done.result["model"]) / "config.json").exists()
    assert parts.artifacts.names("model") == []


def test_a_job_that_names_no_whole_path_or_a_wrong_specification_is_refused_at_once(
    parts: Components, tmp_path: Path
) -> None:
    other = write_spec(tmp_path / "other.yaml", {"matryoshka": [8]})
    asked = [("train_embedder", "spec.yaml"), ("train_reranker", str(other))]
    jobs = [parts.jobs.start(name, {"spec": spec}) for name, spec in asked]
    until(lambda: all(parts.jobs.get(job.id).is_finished for job in jobs))
    whole, wrong = (str(parts.jobs.get(job.id).error) for job in jobs)
    assert "name all of it" in whole
    assert "matryoshka: there is no such key" in wrong
    assert not of_jobs(parts).exists()
