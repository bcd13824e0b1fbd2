"""An adapter becomes part of its base's weights, if the sum says what both said side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.errors import InvalidRequest
from infra.plugins import require
from training import adapted_model, exhaustion, parity, verification
from training.base_model import BaseModel
from training.parity import Bounds, Parity, Row
from training.specification.base import Base

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.25, "float16": 0.05}
"""How far a logit may be off, by the precision of the sum: each weight is rounded once more."""


def merge(
    asked: Base, base: BaseModel, adapter: Path, rows: Sequence[Row], *, into: Path, device: str
) -> Parity:
    """Write the merged model as safetensors, read it back, and compare it with base and adapter.

    The base is taken without quantisation, in its precision: a sum of quantised weights would be
    another model.

    Args:
        asked: how the base is loaded.
        base: the model that the adapter was trained on.
        adapter: its folder.
        rows: of tokens, that both are asked.
        into: a folder that does not exist.
        device: where both are asked.

    Raises:
        InvalidRequest: the base is stored in fewer bits, or a weight of the sum is no number.
        Unsound: a weight of the adapter is missing, fits nowhere, or is no number.
        Unlike: the merged model says something else.
    """
    peft = require("peft", extra="finetune")
    if getattr(base.config, "quantization_config", None) is not None:
        raise InvalidRequest(
            f"{base.name!r} is stored in fewer bits, to which nothing can be added; name the model "
            "that it was made of"
        )
    plain = asked.model_copy(update={"quantization": None})
    model = adapted_model.load_base(plain, base.folder, device=device)
    try:
        model = peft.PeftModel.from_pretrained(model, adapter)
        verification.require_whole(model, adapter)
        before = parity.ask(parity.of_model(model), rows)
        merged = model.merge_and_unload(safe_merge=True)
    except (ValueError, KeyError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise InvalidRequest(f"{str(adapter)!r} cannot be merged: {first}") from error
    save(merged, base, into)
    del model, merged
    adapted_model.let_go()
    again = adapted_model.load_base(plain, into, device=device)
    found = parity.compare(before, parity.ask(parity.of_model(again), rows))
    return found.check(Bounds(TOLERANCE[asked.dtype]), what="The merged model")


def save(model: Any, base: BaseModel, into: Path) -> None:
    """Write a model with the tokenizer of its base.

    Raises:
        StorageFailed: files could not be written.
    """
    with exhaustion.storing(into, "run it again"):
        model.save_pretrained(into)
        base.tokenizer.save_pretrained(into)
