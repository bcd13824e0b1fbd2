"""What a run comes to: batches, packs, mesh, memory, time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from training.adapter_size import AdapterSize
from training.batching import Indivisible, derive
from training.lengths import Measured, packs
from training.memory import Load, estimate
from training.model_shape import measure
from training.specification.machines import Parallelism
from training.specification.schedule import Schedule
from training.topology import choose


def test_tokens_of_a_step_decide_its_rows() -> None:
    asked = Schedule(tokens_per_step=8192, epochs=3, rows_per_device=2)
    found = derive(asked, data_ranks=4, sequences=1000, mean_tokens=100.0)
    assert found.rows_per_step == 80  # 81.92, of which 4 x 2 is a divisor
    assert (found.rows_per_device, found.accumulation) == (2, 10)
    assert found.steps == 39  # 13 for each epoch


@pytest.mark.parametrize("most", [1, 3, 16])
@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_batches_make_up_a_step_exactly(ranks: int, most: int) -> None:
    for rows in range(ranks, 200, ranks):
        asked = Schedule(rows_per_step=rows, steps=10)
        found = derive(asked, data_ranks=ranks, sequences=1000, mean_tokens=1.0, most_rows=most)
        assert found.rows_per_device * found.accumulation * ranks == rows
        assert found.rows_per_device <= most


def test_a_step_that_cannot_be_shared_is_refused() -> None:
    with pytest.raises(Indivisible, match="10 rows cannot be shared by 4"):
        derive(Schedule(rows_per_step=10, epochs=1), data_ranks=4, sequences=9, mean_tokens=1.0)
    with pytest.raises(Indivisible, match="no multiple of 3"):
        derive(
            Schedule(rows_per_step=8, rows_per_device=3, epochs=1),
            data_ranks=1,
            sequences=9,
            mean_tokens=1.0,
        )


@pytest.mark.parametrize("seed", range(5))
def test_packs_hold_every_row_and_few_are_half_empty(seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(1, 100, 1000).tolist()
    found = packs(lengths, 128)
    least = -(-sum(lengths) // 128)
    assert least <= found <= 1.05 * least + sum(length > 64 for length in lengths) / 2
    assert packs([128] * 3 + [1], 128) == 4


def test_rows_over_the_limit_are_cut_or_left_out() -> None:
    for drops, kept, tokens in ((True, 1, 8), (False, 2, 18)):
        measured = Measured(max_length=10, drops_longer=drops)
        measured.add(1, 8, 4)
        measured.add(2, 20, 3)
        measured.add(3, 20, 0)
        found = measured.result()
        assert (found.kept, found.tokens, found.longer) == (kept, tokens, 2)
        assert found.empty == (0 if drops else 1)


@pytest.mark.parametrize("world", [1, 2, 8, 16, 512])
@pytest.mark.parametrize("fits", [True, False])
def test_every_mesh_multiplies_out_to_the_world(world: int, fits: bool) -> None:
    for devices in (1, 2, 8):
        if world % devices:
            continue
        for tensor in (1, 2, 4):
            if tensor > devices:
                continue
            asked = Parallelism(nodes=world // devices, devices_per_node=devices, tensor=tensor)
            found = choose(asked, fits=fits)
            product = found.replicate * found.shard * found.tensor
            assert product * found.context * found.sequence == world
            assert found.data_ranks * tensor == world


def llama(**sizes: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.LlamaConfig(
        **{
            "hidden_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 8,
            "num_key_value_heads": 2,
            "intermediate_size": 704,
            "vocab_size": 1000,
            **sizes,
        }
    )


def test_a_shape_counts_what_the_model_and_its_adapter_have() -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    config = llama()
    shape = measure(config)
    model = transformers.AutoModelForCausalLM.from_config(config)
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())
    for targets in ("all-linear", ("q_proj", "v_proj")):
        adapted = peft.get_peft_model(
            transformers.AutoModelForCausalLM.from_config(config),
            peft.LoraConfig(r=8, target_modules=targets if targets == "all-linear" else [*targets]),
        )
        trained = sum(each.numel() for each in adapted.parameters() if each.requires_grad)
        assert shape.lora_parameters(targets, 8) == trained


def test_a_shape_says_whether_layers_can_be_shared_and_see_all_that_was_before() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = llama().to_dict()
    found = measure(llama())
    assert found.attends_causally
    assert found.split["model.layers.*.self_attn.q_proj"] == "colwise"
    assert found.split["model.layers.*.mlp.down_proj"] == "rowwise"
    names = ("hidden_size", "num_hidden_layers", "vocab_size", "intermediate_size")
    same = {name: sizes[name] for name in (*names, "num_attention_heads", "num_key_value_heads")}
    windowed = transformers.MistralConfig(**same, sliding_window=64)
    assert not measure(windowed).attends_causally
    assert not measure(transformers.GPT2Config(n_layer=1, n_embd=64, n_head=2)).split


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("sizes", [{}, {"hidden_size": 512}, {"intermediate_size": 2048}])
def test_activations_are_estimated_within_15_percent(dtype: str, sizes: dict[str, int]) -> None:
    torch, peft = pytest.importorskip("torch"), pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    config, rows, length, rank = llama(**sizes), 2, 128, 8
    model = peft.get_peft_model(
        transformers.AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype)),
        peft.LoraConfig(r=rank, target_modules="all-linear"),
    )
    weights = {each.untyped_storage().data_ptr() for each in model.parameters()}
    kept: dict[int, Any] = {}

    def keep(saved: Any) -> Any:
        storage = saved.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return saved

    ids = torch.randint(0, 1000, (rows, length))
    inner = model.base_model.model.model
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved),
        torch.autocast("cpu", torch.bfloat16, enabled=dtype != "float32"),
    ):
        inner(input_ids=ids, use_cache=False)
    counted = sum(storage.nbytes() for storage in kept.values())
    shape = measure(config)
    trained = shape.lora_parameters("all-linear", rank)
    width = 4 if dtype == "float32" else 2
    load = Load(AdapterSize(rank, trained), rows=rows, length=length, dtype=dtype, is_cpu=True)
    found = estimate(shape, load)
    copies = 0 if dtype == "float32" else trained * width
    assert found.activations + copies == pytest.approx(counted, rel=0.15)


def test_sharding_and_quantising_make_it_less() -> None:
    shape = measure(llama())
    whole = Load(AdapterSize(8, 10_000), rows=1, length=64, dtype="bfloat16")
    plain = estimate(shape, whole)
    changes: tuple[dict[str, Any], ...] = (
        {"shard": 8},
        {"tensor": 2},
        {"quantization": ("nf4", True)},
    )
    for change in changes:
        less = estimate(
            shape, Load(**{name: getattr(whole, name) for name in Load.__slots__} | change)
        )
        assert less.weights < plain.weights
