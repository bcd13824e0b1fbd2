"""Weights of linear modules as whole numbers with scales, in files that vLLM serves by itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.plugins import require
from training import calibrated_rounding
from training.base_model import BaseModel
from training.merging import save
from training.model_shape import HEADS
from training.specification.delivery import FOUR_BITS, Compress


def write(
    model: Any, whole: BaseModel, how: Compress, rows: Sequence[Sequence[int]], into: Path
) -> None:
    """Write a model as `compressed-tensors` has it; its weights are replaced on the way.

    With eight bits, a scale is that of the largest weight of an output, and each weight is the
    number nearest to it. With four, what rows bring decides. Embeddings, the head and norms stay.

    Args:
        model: of transformers, whole.
        whole: where it is from.
        how: `w8a8`, a scale an output, or `w4a16`, a scale a group of inputs.
        rows: of tokens, that it is asked for four bits.
        into: a folder that does not exist.

    Raises:
        InvalidRequest: layers of it cannot be asked one after the other.
    """
    quantization = require("compressed_tensors.quantization", extra="export")
    compressors = require("compressed_tensors.compressors", extra="export")
    utils = require("compressed_tensors.quantization.utils", extra="export")
    group, paths = how.inputs_a_scale, [*whole.shape.targeted("all-linear")]
    known = {} if group is None else calibrated_rounding.round_all(model, paths, rows, group)
    scheme = _scheme(how, quantization)
    config = quantization.QuantizationConfig(
        config_groups={"linear": scheme}, ignore=[f"re:.*{name}$" for name in HEADS]
    )
    quantization.apply_quantization_config(model, config)
    for path, module in model.named_modules():
        if not utils.is_module_quantized(module):
            continue
        groups = module.weight.detach().float().unflatten(1, (-1, group or module.in_features))
        largest, _ = utils.calculate_qparams(*groups.aminmax(dim=-1), scheme.weights)
        module.weight_scale.data.copy_(known.get(path, largest))
        compressors.compress_module(module)
    written = compressors.ModelCompressor.from_pretrained_model(model)
    save(model, whole, into)
    written.update_config(str(into))


def _scheme(how: Compress, quantization: Any) -> Any:
    """Return what `compressed-tensors` calls it; activations are rounded while they are asked."""
    arguments = quantization.QuantizationArgs
    if how.scheme == FOUR_BITS:
        groups = {"strategy": "group", "group_size": how.inputs_a_scale}
        weights, activations = arguments(num_bits=4, symmetric=True, **groups), None
    else:
        weights = arguments(num_bits=8, symmetric=True, strategy="channel")
        activations = arguments(num_bits=8, symmetric=True, strategy="token", dynamic=True)
    return quantization.QuantizationScheme(
        targets=["Linear"], weights=weights, input_activations=activations
    )
