"""A BERT-like encoder as an ONNX graph, straight from its safetensors weights; needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidConfiguration
from infra.plugins import require
from retrieval.embedders._model_folder import EXTRA, ModelFolder

OPSET = 20
IR_VERSION = 10
FUSED = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""
INPUT, OUTPUT, TOKENS = "input_ids", "vectors", "token_vectors"
WEIGHTS = "model.safetensors"
GELU = {"gelu": "Gelu", "gelu_new": "FastGelu", "gelu_pytorch_tanh": "FastGelu"}
IS_OFFSET = {"bert": False, "roberta": True, "xlm-roberta": True}
"""By model type: whether the first position is one past the padding id, as in fairseq."""
POOLING_FLAGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}

Weights: TypeAlias = Mapping[str, NDArray[np.float32]]
Pooling: TypeAlias = Literal["mean", "cls", "max"]
Projection: TypeAlias = Callable[["Graph", str, "Dense"], str]
"""Adds `x @ weight.T + bias` to a graph and returns the name of the result."""


class UnknownArchitecture(InvalidConfiguration):
    """The model is not of the kind that is written here."""


@dataclass(frozen=True, slots=True)
class Encoder:
    """What of a model's configuration decides its graph."""

    layers: int
    heads: int
    epsilon: float
    gelu: str
    """The operator of the activation."""
    first_position: int
    pooling: Pooling


@dataclass(frozen=True, slots=True)
class Dense:
    """One linear layer, as torch keeps it."""

    name: str
    weight: NDArray[np.float32]
    """`(out, in)`."""
    bias: NDArray[np.float32]


@dataclass(slots=True)
class Graph:
    """Nodes and constants as they are added; `model` makes them one."""

    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def constant(self, name: str, value: NDArray[Any]) -> str:
        helper = require("onnx.numpy_helper", extra=EXTRA)
        self.constants.append(helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, operator: str, *inputs: str, name: str, **options: Any) -> str:
        """Add a node with one result, named as the node; an empty input is left out."""
        self._node(operator, inputs, name, results=[name], **options)
        return name

    def split(self, value: str, *, parts: int) -> list[str]:
        """Split the last axis evenly."""
        results = [f"{value}.{part}" for part in range(parts)]
        self._node("Split", (value,), f"{value}.split", results, axis=-1, num_outputs=parts)
        return results

    def model(self, *, dimension: int) -> Any:
        """Return it as an ONNX model: token ids `(texts, tokens)` in, unit rows out.

        A second result, of which nothing is computed unless it is asked for, are the vectors of
        the tokens, as they are pooled.
        """
        helper = require("onnx.helper", extra=EXTRA)
        types = require("onnx", extra=EXTRA).TensorProto
        graph = helper.make_graph(
            self.nodes,
            "encoder",
            [helper.make_tensor_value_info(INPUT, types.INT64, ["texts", "tokens"])],
            [
                helper.make_tensor_value_info(OUTPUT, types.FLOAT, ["texts", dimension]),
                helper.make_tensor_value_info(TOKENS, types.FLOAT, ["texts", "tokens", dimension]),
            ],
            self.constants,
        )
        versions = [helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED, 1)]
        return helper.make_model(graph, opset_imports=versions, ir_version=IR_VERSION)

    def _node(
        self,
        operator: str,
        inputs: tuple[str, ...],
        name: str,
        results: list[str],
        **options: Any,
    ) -> None:
        helper = require("onnx.helper", extra=EXTRA)
        self.nodes.append(helper.make_node(operator, list(inputs), results, name=name, **options))


def describe(folder: ModelFolder) -> Encoder:
    """Read what kind of encoder a model is.

    Raises:
        UnknownArchitecture: not a BERT-like encoder with safetensors weights and plain pooling.
    """
    config = folder.read("config.json", default={})
    kind = config.get("model_type")
    activation = config.get("hidden_act")
    if kind not in IS_OFFSET:
        raise UnknownArchitecture(f"model type {kind!r}")
    if not (folder.path / WEIGHTS).is_file():
        raise UnknownArchitecture(f"weights that are not in one {WEIGHTS}")
    if config.get("position_embedding_type", "absolute") != "absolute":
        raise UnknownArchitecture(f"positions of type {config['position_embedding_type']!r}")
    if activation not in GELU:
        raise UnknownArchitecture(f"activation {activation!r}")
    return Encoder(
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        epsilon=config["layer_norm_eps"],
        gelu=GELU[activation],
        first_position=config["pad_token_id"] + 1 if IS_OFFSET[kind] else 0,
        pooling=_pooling(folder),
    )


def read_weights(path: Path) -> Weights:
    """Read a safetensors file as float32, without the name of the model before each weight."""
    load = require("safetensors.numpy", extra=EXTRA).load_file
    found: dict[str, NDArray[Any]] = load(path)
    table = next((name for name in found if name.endswith("embeddings.word_embeddings.weight")), "")
    prefix = table.removesuffix("embeddings.word_embeddings.weight")
    return {
        name.removeprefix(prefix): value.astype(np.float32, copy=False)
        for name, value in found.items()
        if name.startswith(prefix) and value.dtype.kind != "i"
    }


def write_encoder(encoder: Encoder, weights: Weights, *, projection: Projection) -> Graph:
    """Write the graph of an encoder; every linear layer by `projection`.

    Texts of one run have the same length: there is no mask, so padding cannot change a vector.

    Raises:
        InvalidConfiguration: a weight is missing.
    """
    graph = Graph()
    try:
        hidden = _embedding(graph, encoder, weights)
        for layer in range(encoder.layers):
            hidden = _layer(graph, encoder, _Layer(layer, weights), hidden, projection)
    except KeyError as error:
        raise InvalidConfiguration(
            f"The model holds no weight {error.args[0]!r}; its {WEIGHTS} is not whole"
        ) from error
    graph.add("Identity", hidden, name=TOKENS)
    _pool(graph, hidden, encoder.pooling)
    return graph


def _embedding(graph: Graph, encoder: Encoder, weights: Weights) -> str:
    words = weights["embeddings.word_embeddings.weight"]
    # All tokens are of the first segment, so its row goes into every position's.
    places = weights["embeddings.position_embeddings.weight"]
    segments = weights.get("embeddings.token_type_embeddings.weight", np.zeros((1, 1), np.float32))
    graph.add("Gather", graph.constant("words", words), INPUT, name="word")
    graph.add("Shape", INPUT, name="length", start=1, end=2)
    table = graph.constant("places", (places + segments[0])[encoder.first_position :])
    graph.add("Slice", table, graph.constant("start", np.array([0])), "length", name="place")
    graph.add("Add", "word", "place", name="embedded")
    return graph.add(
        "LayerNormalization",
        "embedded",
        graph.constant("norm.weight", weights["embeddings.LayerNorm.weight"]),
        graph.constant("norm.bias", weights["embeddings.LayerNorm.bias"]),
        name="norm",
        epsilon=encoder.epsilon,
    )


class _Layer:
    """The weights of one layer, by their names within it."""

    def __init__(self, number: int, weights: Weights) -> None:
        self.number = number
        self._weights = weights

    def dense(self, name: str, *sources: str) -> Dense:
        """Return linear layers that read the same input as one."""
        return Dense(
            f"{self.number}.{name}",
            np.concatenate([self.value(f"{source}.weight") for source in sources]),
            np.concatenate([self.value(f"{source}.bias") for source in sources]),
        )

    def value(self, name: str) -> NDArray[np.float32]:
        return self._weights[f"encoder.layer.{self.number}.{name}"]


def _layer(
    graph: Graph, encoder: Encoder, layer: _Layer, hidden: str, projection: Projection
) -> str:
    parts = [f"attention.self.{part}" for part in ("query", "key", "value")]
    joined = projection(graph, hidden, layer.dense("qkv", *parts))
    attended = graph.add(
        "MultiHeadAttention",
        *graph.split(joined, parts=3),
        name=f"{layer.number}.attention",
        domain=FUSED,
        num_heads=encoder.heads,
    )
    mixed = projection(graph, attended, layer.dense("mix", "attention.output.dense"))
    hidden = _add_and_norm(graph, encoder, layer, "attention.output", mixed, hidden)
    wide = projection(graph, hidden, layer.dense("wide", "intermediate.dense"))
    active = graph.add(encoder.gelu, wide, name=f"{layer.number}.active", domain=FUSED)
    narrow = projection(graph, active, layer.dense("narrow", "output.dense"))
    return _add_and_norm(graph, encoder, layer, "output", narrow, hidden)


def _add_and_norm(graph: Graph, encoder: Encoder, layer: _Layer, place: str, *values: str) -> str:
    """Two operators, not the fused SkipLayerNormalization, which takes five times as long."""
    name = f"{layer.number}.{place}.norm"
    return graph.add(
        "LayerNormalization",
        graph.add("Add", *values, name=f"{layer.number}.{place}.sum"),
        graph.constant(f"{name}.weight", layer.value(f"{place}.LayerNorm.weight")),
        graph.constant(f"{name}.bias", layer.value(f"{place}.LayerNorm.bias")),
        name=name,
        epsilon=encoder.epsilon,
    )


def _pool(graph: Graph, hidden: str, pooling: Pooling) -> None:
    if pooling == "cls":
        graph.add("Gather", hidden, graph.constant("first", np.array(0)), name="pooled", axis=1)
    else:
        operator = "ReduceMean" if pooling == "mean" else "ReduceMax"
        axes = graph.constant("axes", np.array([1]))
        graph.add(operator, hidden, axes, name="pooled", keepdims=0)
    graph.add("LpNormalization", "pooled", name=OUTPUT, p=2, axis=-1)


def _pooling(folder: ModelFolder) -> Pooling:
    modules = folder.modules()
    names = [name for name, _ in modules]
    if names[:2] not in (["Transformer"], ["Transformer", "Pooling"]) or names[2:] not in (
        [],
        ["Normalize"],
    ):
        raise UnknownArchitecture(f"the modules {', '.join(names)}")
    if modules[0][1] != Path():
        raise UnknownArchitecture(f"an encoder in the folder {str(modules[0][1])!r}")
    if len(modules) == 1:
        return "mean"
    config = folder.read(f"{modules[1][1]}/config.json", default={})
    if not config.get("include_prompt", True):
        raise UnknownArchitecture("pooling that leaves the prompt out")
    modes = _pooling_modes(config)
    if len(modes) == 1 and modes[0] in ("mean", "cls", "max"):
        return cast("Pooling", modes[0])
    raise UnknownArchitecture(f"pooling by {', '.join(modes)}")


def _pooling_modes(config: Mapping[str, Any]) -> list[str]:
    """Read either of the two ways to say it: one name or several, or a flag for each."""
    if stated := config.get("pooling_mode"):
        return [stated] if isinstance(stated, str) else list(stated)
    flags = [name for name, is_set in config.items() if name.startswith("pooling_") and is_set]
    return [POOLING_FLAGS.get(flag, flag) for flag in flags] or ["mean"]
