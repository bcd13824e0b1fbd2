"""Weights in fewer bits: what is written, what is left alone, what it takes, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infra.errors import InvalidRequest
from trained import calm, only_third_parties_warn
from training import compressing
from training.base_model import BaseModel, find_base
from training.compressing import compress, stored_bytes
from training.parity import Parity
from training.specification.base import Base
from training.specification.delivery import Compress
from tuning import write_base

pytest.importorskip("transformers")
pytestmark = [*only_third_parties_warn, pytest.mark.usefixtures("light_training")]
ROWS = [list(range(first, first + 40)) for first in (5, 90, 200)]
FOUR = Compress(scheme="w4a16", group_size=32, max_perplexity_ratio=1.2)
EIGHT = Compress(scheme="w8a8", max_perplexity_ratio=1.2)
ALONE = Compress(scheme="int8", max_perplexity_ratio=1.2)
SCHEMES = pytest.mark.parametrize("how", [FOUR, EIGHT, ALONE], ids=lambda how: how.scheme)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return find(calm(write_base(tmp_path_factory.mktemp("compressing") / "whole")))


def find(folder: Path) -> BaseModel:
    asked = Base(model=str(folder))
    return find_base(asked, folder=folder, store=None, checkout=Path)


def made(whole: BaseModel, how: Compress, into: Path, *, dtype: Any = "float32") -> Parity:
    pytest.importorskip(compressing.PACKAGES[how.scheme])
    asked = Base(model=whole.name, dtype=dtype)
    return compress(asked, whole, how, ROWS, into=into, device="cpu")


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@SCHEMES
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_plan_knows_the_bytes_of_every_scheme(
    whole: BaseModel, tmp_path: Path, how: Compress, dtype: str
) -> None:
    found = made(whole, how, tmp_path / "small", dtype=dtype)
    assert 0.9 < found.perplexity_after / found.perplexity_before < 1.1
    written = sum(each.nbytes for each in tensors(tmp_path / "small").values())
    assert written == stored_bytes(whole.shape, how, dtype=dtype)
    assert stored_bytes(whole.shape, None, dtype="float32") == sum(
        each.nbytes for each in tensors(whole.folder).values()
    )


@SCHEMES
def test_what_is_no_linear_module_within_a_layer_is_left_alone(
    whole: BaseModel, tmp_path: Path, how: Compress
) -> None:
    made(whole, how, tmp_path / "small")
    before, after = tensors(whole.folder), tensors(tmp_path / "small")
    alone = [name for name in before if "proj" not in name]
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} < {*alone}
    assert all(before[name].equal(after[name]) for name in alone)


def test_each_weight_is_the_nearest_of_sixteen_that_its_group_has(
    whole: BaseModel, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    made(whole, FOUR, tmp_path / "small")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    model(torch.tensor([ROWS[0]]))  # from here on its weights are numbers again
    read, before = model.state_dict(), tensors(whole.folder)
    for name in [name for name in before if name.endswith("proj.weight")]:
        groups = before[name].unflatten(1, (-1, 32))
        scale = groups.abs().amax(-1, keepdim=True).clamp_min(1e-9) / 7.5
        nearest = (groups / scale).round().clamp(-8, 7) * scale
        assert read[name].allclose(nearest.flatten(1), atol=1e-6), name


@pytest.mark.parametrize("scheme", ["int8", "w8a8"])
def test_what_is_compressed_is_not_compressed_again(
    whole: BaseModel, tmp_path: Path, scheme: Any
) -> None:
    made(whole, Compress(scheme=scheme, max_perplexity_ratio=1.2), tmp_path / "small")
    again = find(tmp_path / "small")
    with pytest.raises(InvalidRequest, match="compressed already"):
        made(again, ALONE, tmp_path / "smaller")
    assert not (tmp_path / "smaller").exists()


def test_a_module_that_groups_do_not_divide_is_named(whole: BaseModel, tmp_path: Path) -> None:
    words = r"'model\.layers\.0\.self_attn\.q_proj' and 11 others .* groups of 128: it has 64 inp"
    with pytest.raises(InvalidRequest, match=words):
        made(whole, Compress(scheme="w4a16"), tmp_path / "small")
