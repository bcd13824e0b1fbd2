"""Weights in fewer bits: what is written, what is left alone, what it takes, what is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from infra.errors import InvalidRequest
from tiny_llm import write_adapter
from trained import calm, only_third_parties_warn
from training import calibrated_rounding, compressing, merging, peak_memory
from training.base_model import BaseModel, find_base
from training.compressing import compress, stored_bytes
from training.model_shape import measure
from training.parity import Parity, Samples
from training.specification.base import Base
from training.specification.delivery import Compress
from tuning import write_base

pytest.importorskip("transformers")
pytestmark = [*only_third_parties_warn, pytest.mark.usefixtures("light_training")]
ROWS = [list(range(first, first + 40)) for first in (5, 90, 200)]
SAMPLES = Samples(ROWS, [list(range(first, first + 60)) for first in (30, 120)])
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


Small = Callable[..., tuple[Path, Parity]]


@pytest.fixture(scope="module")
def small(whole: BaseModel, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """Gives the folder of a form, made once, and how it compares with the model."""
    folder = tmp_path_factory.mktemp("forms")

    @cache
    def form(how: Compress, dtype: Any = "float32") -> tuple[Path, Parity]:
        into = folder / f"{how.scheme}-{dtype}"
        return into, made(whole, how, into, dtype=dtype)

    return form


def made(whole: BaseModel, how: Compress, into: Path, *, dtype: Any = "float32") -> Parity:
    pytest.importorskip(compressing.PACKAGES[how.scheme])
    asked = Base(model=whole.name, dtype=dtype)
    return compress(asked, whole, how, SAMPLES, into=into, device="cpu")


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@SCHEMES
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_plan_knows_the_bytes_of_every_scheme(
    whole: BaseModel, small: Small, how: Compress, dtype: str
) -> None:
    folder, found = small(how, dtype)
    assert 0.9 < found.perplexity_after / found.perplexity_before < 1.1
    written = sum(each.nbytes for each in tensors(folder).values())
    assert written == stored_bytes(whole.shape, how, dtype=dtype)
    assert stored_bytes(whole.shape, None, dtype="float32") == sum(
        each.nbytes for each in tensors(whole.folder).values()
    )


@SCHEMES
def test_what_is_no_linear_module_within_a_layer_is_left_alone(
    whole: BaseModel, small: Small, how: Compress
) -> None:
    before, after = tensors(whole.folder), tensors(small(how, "float32")[0])
    alone = [name for name in before if "proj" not in name]
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"} < {*alone}
    assert all(before[name].equal(after[name]) for name in alone)


def test_each_weight_is_one_of_sixteen_that_its_group_has(small: Small) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    folder, _ = small(FOUR, "float32")
    model = AutoModelForCausalLM.from_pretrained(folder)
    model(torch.tensor([ROWS[0]]))  # from here on its weights are numbers again
    read, stored = model.state_dict(), tensors(folder)
    names = [name for name in read if name.endswith("proj.weight")]
    assert len(names) == 14
    for name in names:
        scale = stored[f"{name}_scale"].unsqueeze(-1)
        steps = read[name].unflatten(1, (-1, FOUR.group_size)) / scale
        assert steps.allclose(steps.round(), atol=1e-3), name
        assert -8 <= steps.round().min() < -5, name
        assert 5 < steps.round().max() <= 7, name


def test_without_rows_each_weight_is_rounded_for_itself() -> None:
    import torch

    torch.manual_seed(0)
    weight = torch.randn(24, 64)
    found, scales = calibrated_rounding.rounded(weight, torch.zeros(64, 64), 32)
    steps = (weight.unflatten(1, (2, 32)) / scales.unsqueeze(-1)).round().clamp(-8, 7)
    assert found.allclose((steps * scales.unsqueeze(-1)).flatten(1))


def test_weights_of_four_bits_want_rows_beside_those_that_are_compared(
    whole: BaseModel, tmp_path: Path
) -> None:
    few = Samples(SAMPLES.compared, [])
    with pytest.raises(InvalidRequest, match=f"its {len(few.compared)} are those that the forms"):
        compress(Base(model=whole.name), whole, FOUR, few, into=tmp_path / "small", device="cpu")


def test_a_model_whose_layers_do_not_follow_each_other_is_refused() -> None:
    import torch

    class Twice(torch.nn.Module):
        device = torch.device("cpu")

        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList([torch.nn.Sequential(torch.nn.Linear(32, 32))])

        def forward(self, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
            states = input_ids.float().expand(1, 32)
            return self.layers[0](self.layers[0](states))

    with pytest.raises(InvalidRequest, match="1 layers were called 2 times, not once each"):
        calibrated_rounding.round_all(Twice(), ["layers.0.0"], [[1]], 32)


def test_rows_have_what_goes_together_make_good_for_roundings() -> None:
    import torch

    torch.manual_seed(0)
    weight, mixed = torch.randn(48, 128), torch.randn(128, 128) * torch.linspace(0.05, 1, 128)
    inputs = torch.randn(1000, 128) @ mixed

    def error(moments: torch.Tensor) -> float:
        found, _ = calibrated_rounding.rounded(weight, moments, 32)
        return float(((weight - found) @ inputs.T).square().sum())

    assert error(inputs.T @ inputs) < 0.85 * error(torch.zeros(128, 128))


def test_rows_make_four_bits_say_more_nearly_the_same(whole: BaseModel, tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    found = []
    many = [[*range(at, at + 60)] for at in range(4, 300)]
    for name, learned in (("a token", [[4]]), ("rows", many)):
        asked = Base(model=whole.name, dtype="float32")
        rows = Samples(ROWS, learned)
        found.append(compress(asked, whole, FOUR, rows, into=tmp_path / name, device="cpu"))
    by_a_token, by_rows = (each.max_difference for each in found)
    assert by_rows < 0.9 * by_a_token


def test_a_plan_knows_what_rounding_holds_at_its_peak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    monkeypatch.setattr(calibrated_rounding, "ROWS", 16)
    monkeypatch.setattr(calibrated_rounding, "ROW_TOKENS", 64)
    for hidden, intermediate in ((128, 1024), (512, 512)):
        torch.manual_seed(0)
        config = LlamaConfig(
            hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, vocab_size=384,
        )  # fmt: skip
        model, shape = LlamaForCausalLM(config), measure(config)
        paths = [*shape.targeted("all-linear")]
        with peak_memory.measured(model) as found:
            calibrated_rounding.round_all(model, paths, [[*range(5, 69)]] * 16, 32)
        known = compressing.device_bytes(shape, FOUR, dtype="float32")
        assert found.bytes / known == pytest.approx(1, abs=0.15), (hidden, intermediate)


@pytest.mark.parametrize("how", [ALONE, EIGHT], ids=lambda how: how.scheme)
def test_what_is_compressed_is_neither_compressed_again_nor_added_to(
    whole: BaseModel, small: Small, tmp_path: Path, how: Compress
) -> None:
    again = find(small(how, "float32")[0])
    with pytest.raises(InvalidRequest, match="compressed already"):
        made(again, ALONE, tmp_path / "smaller")
    assert not (tmp_path / "smaller").exists()
    adapter = write_adapter(tmp_path / "adapter", whole.folder, "Z")
    with pytest.raises(InvalidRequest, match="stored in fewer bits, to which nothing can be added"):
        merging.merge(
            Base(model=again.name), again, adapter, ROWS, into=tmp_path / "sum", device="cpu"
        )


def test_a_module_that_groups_do_not_divide_is_named(whole: BaseModel, tmp_path: Path) -> None:
    words = r"'model\.layers\.0\.self_attn\.q_proj' and 11 others .* groups of 128: it has 64 inp"
    with pytest.raises(InvalidRequest, match=words):
        made(whole, Compress(scheme="w4a16"), tmp_path / "small")
