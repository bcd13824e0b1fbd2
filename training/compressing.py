"""A whole model with weights of eight or four bits, if it still says nearly the same."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from infra.errors import InvalidRequest
from infra.plugins import require
from training import adapted_model, calibrated_rounding, compressed_weights, merging, parity
from training.base_model import BaseModel
from training.memory import BYTES
from training.model_shape import ModelShape
from training.parity import Bounds, Parity, Samples
from training.specification.base import Base
from training.specification.delivery import FOUR_BITS, Compress

TORCHAO = "torchao"
PACKAGES: Mapping[str, str] = {
    "int8": TORCHAO,
    "w8a8": "compressed_tensors",
    "w4a16": "compressed_tensors",
}
"""By scheme, what writes it; whoever reads it needs the same."""


def compress(
    asked: Base,
    whole: BaseModel,
    how: Compress,
    rows: Samples,
    *,
    into: Path,
    device: str,
) -> Parity:
    """Write a compressed model as safetensors, read it back, and compare it with the whole one.

    Args:
        asked: how the whole one is loaded.
        whole: with all its weights, such as a merged one.
        how: in how many bits what is stored.
        rows: that both are asked, and others, for whose inputs weights of four bits are rounded.
        into: a folder that does not exist.
        device: where both are asked.

    Raises:
        InvalidRequest: it has no such form, or no rows are left to round it for.
        MissingDependency: what writes the form is not installed.
        Unlike: perplexity grew by more.
    """
    require(PACKAGES[how.scheme], extra="export")
    for _, what in refused(whole, how):
        raise InvalidRequest(f"{whole.name!r} cannot be stored in {how.scheme}: {what}")
    if how.scheme == FOUR_BITS and not rows.learned:
        raise InvalidRequest(
            f"Weights in {FOUR_BITS} are rounded for rows of 'data.train', and its "
            f"{len(rows.compared)} are those that the forms are compared by; give it more, or "
            "'data.eval'"
        )
    plain = asked.model_copy(update={"quantization": None})
    model = adapted_model.load_base(plain, whole.folder, device=device)
    before = parity.ask(parity.of_model(model), rows.compared)
    with redirect_stderr(io.StringIO()):  # both packages draw bars, whoever looks or nobody
        if PACKAGES[how.scheme] == TORCHAO:
            del model
            adapted_model.let_go()
            _write_by_torchao(whole, plain, into, device=device)
        else:
            compressed_weights.write(model, whole, how, rows.learned, into)
            del model
        adapted_model.let_go()
        again = _load(into, plain, device)
        after = parity.ask(parity.of_model(again), rows.compared)
    found = parity.compare(before, after)
    bounds = Bounds(perplexity_ratio=how.max_perplexity_ratio)
    return found.check(bounds, what=f"The model in {how.scheme}")


def refused(whole: BaseModel, how: Compress) -> Iterator[tuple[str, str]]:
    """Return why a model has no such form, as far as its configuration says: key and reason."""
    if getattr(whole.config, "quantization_config", None) is not None:
        yield "scheme", "its weights are compressed already; give the model that it was made of"
    if whole.shape.idle_parameters:
        yield (
            "scheme",
            "its experts are packed, not linear modules, and would stay whole; serve it as it is",
        )
    if not whole.shape.targeted("all-linear"):
        yield "scheme", "it has no linear modules"
    group = how.inputs_a_scale
    odd = [] if group is None else _odd(whole.shape, group)
    if odd:
        path, inputs = odd[0]
        more = f" and {len(odd) - 1} others" if len(odd) > 1 else ""
        yield (
            "group_size",
            f"{path!r}{more} cannot be divided into groups of {group}: it has {inputs} inputs",
        )


def is_missing(how: Compress) -> bool:
    """Whether what writes the form is not installed here."""
    return find_spec(PACKAGES[how.scheme]) is None


def stored_bytes(shape: ModelShape, how: Compress | None, *, dtype: str) -> int:
    """Return what the weights of a model take on disk; None: as they are.

    Each linear module but the head has its weights in eight or four bits and its scales in the
    precision of the rest. With four bits two numbers say its size; torchao writes scales in float32
    and a byte for where zero is.
    """
    width, linear = BYTES[dtype], shape.targeted("all-linear").values()
    if how is None:
        return shape.parameters * width
    left = shape.parameters - sum(ins * outs for ins, outs in linear)
    if how.scheme == FOUR_BITS:
        group = how.inputs_a_scale or 1
        small = sum(ins * outs // 2 + outs * ins // group * width + 16 for ins, outs in linear)
    else:
        scale = 4 + 1 if PACKAGES[how.scheme] == TORCHAO else width
        small = sum(ins * outs + outs * scale for ins, outs in linear)
    return left * width + small


def device_bytes(shape: ModelShape, how: Compress, *, dtype: str) -> int:
    """Return what one device holds at the peak of a compression: the whole model, and its work."""
    whole = stored_bytes(shape, None, dtype=dtype)
    if how.scheme == FOUR_BITS:
        return whole + calibrated_rounding.working_bytes(shape, dtype=dtype)
    return whole


def _odd(shape: ModelShape, group: int) -> list[tuple[str, int]]:
    linear = shape.targeted("all-linear")
    return [(path, inputs) for path, (inputs, _) in linear.items() if inputs % group]


def _write_by_torchao(whole: BaseModel, asked: Base, into: Path, *, device: str) -> None:
    torchao = require("torchao.quantization", extra="export")
    transformers = require("transformers", extra="finetune")
    config = transformers.TorchAoConfig(torchao.Int8WeightOnlyConfig())
    merging.save(_load(whole.folder, asked, device, quantization_config=config), whole, into)


def _load(folder: Path, asked: Base, device: str, **options: Any) -> Any:
    transformers = require("transformers", extra="finetune")
    torch = require("torch", extra="finetune")
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=getattr(torch, asked.dtype),
        device_map=device,
        local_files_only=True,
        **options,
    )
