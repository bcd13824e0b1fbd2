r"""Memory of one process in training, from the shapes of the model alone.

Symbols: P parameters of the base, E those of embeddings and head, N trained parameters of rank r,
M those of modules that are trained whole; L layers, h hidden and f intermediate size, k the size of
keys and values, V the vocabulary; t tokens on a device at once; w bytes of a number; T and S
devices that share a matrix and a copy of the weights.

- weights: (P - E) w / (T S) + E w / S; with NF4 0.516 bytes a weight (0.5625 if its scales are
  whole), and E in w. Sharded, two layers and the head (V h w) are whole at a time; where matrices
  are shared as well, shards are made once a process has read its part of each.
- adapter: N (4 + 4 + 8), whole in every process: float32 weights, gradients and the two moments of
  Adam (a byte each with the 8-bit optimiser); and their copies in the arithmetic's precision.
  M (w + w + 2 w); what adapters hold and do not train; and V h w where trained tokens are put into
  a copy of the embedding.
- activations, kept of every layer: t (12 h + 4 f + 2 k + 7 r) w / T, or 6 h in float32, where norms
  make no copies, and 2 k for the tokens of all processes where sequences are shared; and
  t (2 h + 4 f) w / T, or 2 f in float32, on the way back through one. DoRA keeps what base and
  adapter put out of each of its modules, 2 t w for each output. With gradient checkpointing only
  the inputs of the layers, t h w L, and on the way back one layer whole. Eager attention keeps its
  matrix, too: t x length x heads x (w + 4), or 4 in float32. PyTorch's keeps the mask that rows of
  several lengths and packs need, t x length x w, and has keys and values of every head then.
- logits: trl takes 4,096 tokens by 32,768 words at a time, in a buffer that is as large for a small
  vocabulary; on processors, which have no kernel for it, with seven float32 copies of what is in it
  and a byte on the way back. Or all at once, t V (w + 8).
  They are gone when the way back through the layers begins, so that the larger of both counts.
  Where answers are compared, the pass of the base keeps nothing. A model of rewards has none, and
  no head.
- 1.25 GiB for the context of CUDA and its libraries, and 8 % lost between allocations.

The numbers of values a layer keeps were counted with PyTorch's hooks for saved tensors on Llama
layers with LoRA on every linear module; the way of counting is that of Korthikanti and others,
https://arxiv.org/abs/2205.05198.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training.adapter_size import AdapterSize
from training.model_shape import ModelShape

CONTEXT_BYTES = 1.25 * 2**30
FRAGMENTATION = 1.08
TILE_TOKENS, TILE_WORDS = 4096, 32_768
TILE_COPIES_BYTES = 7 * 4 + 1
Loss = Literal["tiled", "scored", "whole"]
"""How logits become a loss: in tiles of tokens and words; not at all, where one number is a text's
reward; or all at once."""
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
QUANTIZED = {
    ("nf4", True): 0.516,
    ("nf4", False): 0.5625,
    ("int8", True): 1.0,
    ("int8", False): 1.0,
}


@dataclass(frozen=True, slots=True)
class Load:
    """What one process holds and does."""

    adapter: AdapterSize
    rows: int
    length: int
    """Tokens of a row, at most."""
    dtype: str
    quantization: tuple[str, bool] | None = None
    """Method, and whether its scales are quantised."""
    shard: int = 1
    tensor: int = 1
    context: int = 1
    checkpointing: bool = False
    loss: Loss = "tiled"
    eager: bool = False
    masked: bool = False
    """Whether PyTorch's attention is given a mask: of rows of other lengths, or of one pack."""
    optimizer_bytes: int = 8
    """Of both moments of a parameter."""
    is_cpu: bool = False


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of one process at the peak of a step."""

    weights: int
    adapter: int
    activations: int
    logits: int
    overhead: int

    @property
    def total(self) -> int:
        return self.weights + self.adapter + self.activations + self.logits + self.overhead


def estimate(shape: ModelShape, load: Load) -> Memory:
    """Return what a step takes at its peak; the formulas are in this module's docstring."""
    weights = _weights(shape, load)
    adapter = _adapter(load)
    kept, passing = _activations(shape, load)
    logits = _logits(shape, load)
    # Logits are gone when the way back through the layers begins.
    activations = kept + max(0.0, passing - logits)
    if load.is_cpu:
        overhead = 0.0
    else:
        used = weights + adapter + activations + logits
        overhead = CONTEXT_BYTES + (FRAGMENTATION - 1) * used
    return Memory(*(round(each) for each in (weights, adapter, activations, logits, overhead)))


def _weights(shape: ModelShape, load: Load) -> float:
    width = BYTES[load.dtype]
    inner = shape.parameters - shape.embedding_parameters
    ends = shape.embedding_parameters - (shape.head_parameters if load.loss == "scored" else 0)
    a_weight = QUANTIZED[load.quantization] if load.quantization else width
    whole = inner * a_weight / load.tensor + ends * width
    if load.shard == 1:
        return whole
    layer = inner / max(1, shape.layers) * a_weight / load.tensor
    in_shards = whole / load.shard + 2 * layer + shape.vocabulary * shape.hidden * width
    return in_shards if load.tensor == 1 else max(whole, in_shards)


def _adapter(load: Load) -> float:
    size, width = load.adapter, BYTES[load.dtype]
    copies = 0 if load.dtype == "float32" else width
    trained = size.trained * (8 + load.optimizer_bytes + copies)
    as_base = size.trained_as_base * (2 * width + min(2 * width, load.optimizer_bytes))
    return trained + as_base + size.held_bytes + size.copied * width


def _activations(shape: ModelShape, load: Load) -> tuple[float, float]:
    """Return what is kept of all layers, and what one takes on the way back."""
    width = BYTES[load.dtype]
    tokens = load.rows * load.length / load.context
    values = shape.kv_heads * shape.head_size
    norms = 6 if load.dtype == "float32" else 12
    kept = (
        norms * shape.hidden
        + 4 * shape.intermediate
        + 2 * values * load.context
        + 7 * load.adapter.rank
    )
    layer = tokens * (kept + load.adapter.kept_outputs / max(1, shape.layers)) * width
    is_half = load.dtype != "float32"
    if load.eager:
        layer += tokens * load.length * shape.heads * (4 + width * is_half)
    if load.masked:
        repeated = 2 * (shape.heads - shape.kv_heads) * shape.head_size
        layer += tokens * (load.length + repeated) * width
    back = tokens * (2 * shape.intermediate) * width
    if is_half:
        back = tokens * (2 * shape.hidden + 4 * shape.intermediate) * width
    if load.checkpointing:
        inputs = shape.layers * tokens * shape.hidden * width
        return inputs, (layer + back) / load.tensor
    return shape.layers * layer / load.tensor, back / load.tensor


def _logits(shape: ModelShape, load: Load) -> float:
    tokens = load.rows * load.length / load.context
    if load.loss == "tiled":
        tile = min(tokens, TILE_TOKENS)
        copies = TILE_COPIES_BYTES * min(shape.vocabulary, TILE_WORDS) if load.is_cpu else 0
        return tile * (TILE_WORDS * BYTES[load.dtype] + copies)
    if load.loss == "scored":
        return 0.0
    return tokens * shape.vocabulary * (BYTES[load.dtype] + 8)
