"""Models are found by folder or hub id, and pickled weights are never opened."""

from __future__ import annotations

import pickle  # noqa: TID251 - what is refused has to be made first
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.errors import InvalidConfiguration
from infra.model_hub import NOT_FETCHED, located
from monitoring.grounding.detectors import open_detector
from pair_models import write_pair_model
from retrieval.embedders import open_embedder
from retrieval.rerankers import open_reranker
from tiny_model import write_model

WEIGHTS = "model.safetensors"
SEQUENCE = "BertForSequenceClassification"


class Harmful:
    """Writes a file where it is unpickled."""

    def __init__(self, sign: Path) -> None:
        self._sign = sign

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._sign,)


def test_pickle_of_these_tests_does_harm_where_it_is_opened(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Harmful(tmp_path / "sign")))
    assert (tmp_path / "sign").exists()


def embed(folder: Path) -> object:
    write_model(folder)
    return lambda: open_embedder("onnx", model=str(folder)).embed(["raven"], kind="query")


def embed_by_torch(folder: Path) -> object:
    write_model(folder)
    return lambda: open_embedder("sentence_transformers", model=str(folder)).embed(
        ["raven"], kind="query"
    )


def rerank(folder: Path) -> object:
    write_pair_model(folder, SEQUENCE, ["fits"])
    return lambda: open_reranker("cross_encoder", model=str(folder)).score("raven", ["tower"])


def detect(folder: Path) -> object:
    write_pair_model(folder, SEQUENCE, ["no", "entailment"])
    return lambda: open_detector("cross_encoder", model=str(folder))


@pytest.mark.parametrize("prepare", [embed, embed_by_torch, rerank, detect])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "1_Dense/pytorch_model.bin"])
def test_model_whose_weights_are_a_pickle_alone_is_refused_unopened(
    tmp_path: Path, prepare: Callable[[Path], Callable[[], object]], name: str
) -> None:
    use = prepare(tmp_path / "model")
    planted = tmp_path / "model" / name
    planted.parent.mkdir(exist_ok=True)
    planted.write_bytes(pickle.dumps(Harmful(tmp_path / "sign")))
    if planted.parent == tmp_path / "model":
        (planted.parent / WEIGHTS).unlink()
    with pytest.raises(InvalidConfiguration, match=rf"only '{name}'; pickled weights can run code"):
        use()
    assert not (tmp_path / "sign").exists()


@pytest.mark.parametrize("prepare", [embed_by_torch, rerank])
def test_pickle_beside_safetensors_is_left_alone(
    tmp_path: Path, prepare: Callable[[Path], Callable[[], object]]
) -> None:
    use = prepare(tmp_path / "model")
    for name in ("pytorch_model.bin", "training_args.bin"):
        (tmp_path / "model" / name).write_bytes(pickle.dumps(Harmful(tmp_path / "sign")))
    use()
    assert not (tmp_path / "sign").exists()


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of the hub as its package keeps what it fetched; the hub itself is out of reach."""
    import huggingface_hub.constants as options

    monkeypatch.setattr(options, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(options, "HF_HUB_OFFLINE", True)
    kept = tmp_path / "hub" / "models--acme--raven"
    (kept / "refs").mkdir(parents=True)
    (kept / "refs" / "main").write_text("a" * 40)
    (kept / "snapshots" / ("a" * 40)).mkdir(parents=True)
    return kept / "snapshots" / ("a" * 40)


def test_model_of_the_hub_is_found_where_it_was_fetched(cached: Path) -> None:
    write_model(cached / "whole")
    (cached / WEIGHTS).write_bytes((cached / "whole" / WEIGHTS).read_bytes())
    assert located("acme/raven", extra="embed") == cached
    assert located("acme/raven@main", extra="embed") == cached
    with pytest.raises(InvalidConfiguration, match="Cannot fetch model 'acme/raven@old'"):
        located("acme/raven@old", extra="embed")


def test_model_of_the_hub_without_safetensors_is_refused(cached: Path) -> None:
    (cached / "config.json").write_text("{}")
    with pytest.raises(InvalidConfiguration, match="no weights in safetensors"):
        located("acme/raven", extra="embed")


def test_nothing_that_is_fetched_could_be_a_pickle() -> None:
    from huggingface_hub.utils._paths import filter_repo_objects

    listed = [WEIGHTS, "a/model.safetensors", "config.json", "vocab.txt", "onnx/model.onnx"]
    pickled = ["pytorch_model.bin", "2_Dense/pytorch_model.bin", "rng.pth", "x.pkl", "optimizer.pt"]
    kept = list(filter_repo_objects([*listed, *pickled], ignore_patterns=list(NOT_FETCHED)))
    assert kept == listed[:-1]
