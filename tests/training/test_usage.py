"""What a training uses of its devices: arithmetic by the shapes of its model, memory as held."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from training import spec, usage
from training.accelerators import GIB, KNOWN, Device, machine_for, recognised
from training.base_model import BaseModel
from training.callbacks import Pace, Progress, Watch
from training.model_shape import measure
from training.sentinel import Sentinel
from training.specification.schedule import Abort
from tuning import write_base, write_spec

transformers = pytest.importorskip("transformers")
SIZES = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 128, "vocab_size": 1000,
}  # fmt: skip


def test_a_token_is_multiplied_by_all_weights_but_those_that_are_looked_up() -> None:
    tied, apart = (
        measure(transformers.LlamaConfig(**SIZES, tie_word_embeddings=is_tied))
        for is_tied in (True, False)
    )
    assert apart.parameters - tied.parameters == 1000 * 64
    assert usage.operations(apart, "sft") == usage.operations(tied, "sft") == 4 * tied.parameters
    assert usage.operations(tied, "sft", twice=True) == 6 * tied.parameters
    assert usage.operations(tied, "dpo") == 6 * tied.parameters
    inner = tied.parameters - tied.embedding_parameters
    assert usage.operations(apart, "reward") == usage.operations(tied, "reward") == 4 * inner


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("Mixtral", {"num_local_experts": 8}),
        ("Qwen3Moe", {"num_experts": 8, "moe_intermediate_size": 128}),
        (
            "DeepseekV3",
            {"n_routed_experts": 8, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 128}
            | {"first_k_dense_replace": 0, "n_shared_experts": 1, "num_key_value_heads": 4},
        ),
    ],
)
def test_a_token_is_multiplied_by_those_experts_alone_that_it_is_led_to(
    kind: str, sizes: dict[str, int]
) -> None:
    config = getattr(transformers, f"{kind}Config")
    some, all_of_them = (
        measure(config(**SIZES | sizes, num_experts_per_tok=used)) for used in (2, 8)
    )
    an_expert, layers = 3 * 64 * 128, 2
    assert all_of_them.idle_parameters == 0
    assert some.idle_parameters == layers * 6 * an_expert
    left_out = usage.operations(all_of_them, "sft") - usage.operations(some, "sft")
    assert left_out == 4 * some.idle_parameters


def after(tokens: float, seconds: float = 1.0) -> Progress:
    return Progress(1, 9, 0.5, 0.0, 0.0, {}, tokens, seconds)


@pytest.mark.parametrize("devices", [1, 2])
def test_the_share_of_arithmetic_is_of_all_devices_and_told_where_a_data_sheet_says(
    tmp_path: Path, devices: int
) -> None:
    write_base(tmp_path / "base")
    base = BaseModel("base", tmp_path / "base", None)
    changes = {
        "runtime": {"accelerator": "h100-80gb"},
        "parallelism": {"devices_per_node": devices},
    }
    read = spec.read(write_spec(tmp_path / "spec.yaml", changes))
    if machine_for(read.runtime).devices:
        pytest.skip("there are GPUs here, of a kind of their own")
    each = usage.operations(base.shape, "sft")
    found = usage.watched(read, base)(after(1e6))
    assert found["mfu"] == pytest.approx(1e6 * each / (devices * 989e12))
    unknown = spec.read(write_spec(tmp_path / "spec.yaml", {"runtime": {"device": "cpu"}}))
    assert list(usage.watched(unknown, base)(after(1e6))) == ["memory_gib"]


@pytest.mark.parametrize(
    ("runtime", "name", "tflops"),
    [
        ({"launcher": "slurm"}, "NVIDIA L4", 121),
        ({"launcher": "slurm", "accelerator": "h100-80gb"}, "NVIDIA L4", 121),
        ({"launcher": "slurm", "accelerator": "h100-80gb"}, "Nobody's 1", 989),
        ({"launcher": "slurm"}, "Nobody's 1", None),
        ({"launcher": "slurm", "device": "cpu"}, "NVIDIA L4", None),
    ],
)
def test_the_device_that_trains_counts_more_than_the_one_that_was_named(
    tmp_path: Path, runtime: dict[str, str], name: str, tflops: float | None
) -> None:
    write_base(tmp_path / "base")
    base = BaseModel("base", tmp_path / "base", None)
    read = spec.read(write_spec(tmp_path / "spec.yaml", {"runtime": runtime}))
    found = usage.watched(read, base, device=Device(name, 22 * GIB))(after(1e6))
    share = None if tflops is None else 1e6 * usage.operations(base.shape, "sft") / (tflops * 1e12)
    assert found.get("mfu") == pytest.approx(share)


@pytest.mark.parametrize("resumed", [0, 4])
def test_the_share_of_arithmetic_is_of_steps_and_not_of_evaluations_and_checkpoints(
    tmp_path: Path, resumed: int
) -> None:
    write_base(tmp_path / "base")
    base = BaseModel("base", tmp_path / "base", None)
    read = spec.read(write_spec(tmp_path / "spec.yaml", {"runtime": {"launcher": "slurm"}}))
    used = usage.watched(read, base, device=Device("NVIDIA L4", 22 * GIB))
    shares: list[float | None] = []
    now = 0.0
    watch = Watch(Sentinel(Abort()), lambda told: shares.append(used(told).get("mfu")))
    watch.pace = Pace(lambda: now)
    trainer = watch.as_callback()
    args = transformers.TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    state = transformers.TrainerState(
        global_step=resumed, max_steps=9, is_local_process_zero=True, is_world_process_zero=True
    )
    told = {"args": args, "state": state, "control": transformers.TrainerControl()}
    trainer.on_train_begin(**told)
    for number in range(1, 5):
        now += 2.0
        state.global_step = resumed + number
        logs = {"loss": 0.5, "num_tokens": 1000.0 * state.global_step}
        trainer.on_log(**told, logs=logs)
        now += 300.0
        if number % 2:
            trainer.on_log(**told, logs={"eval_loss": 0.5})
            trainer.on_evaluate(**told)
        else:
            (tmp_path / f"checkpoint-{state.global_step}").mkdir()
            trainer.on_save(**told, model=linear())
    share = 1000 / 2.0 * usage.operations(base.shape, "sft") / 121e12
    told_first = [] if resumed == 0 else [None]  # whose tokens are not told apart from those before
    assert shares == [*told_first, *(pytest.approx(share) for _ in range(4 - len(told_first)))]


def linear() -> Any:
    return pytest.importorskip("torch").nn.Linear(2, 1)


def test_memory_is_what_the_process_has_held_at_most() -> None:
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 64 << 20 < usage.peak() < whole, "transformers is imported"


@pytest.mark.parametrize(
    ("name", "gib", "key"),
    [
        ("NVIDIA H100 80GB HBM3", 79.2, "h100-80gb"),
        ("NVIDIA H100 PCIe", 79.6, "h100pcie-80gb"),
        ("NVIDIA H200", 139.8, "h200-141gb"),
        ("NVIDIA A100-SXM4-40GB", 39.4, "a100-40gb"),
        ("NVIDIA A100 80GB PCIe", 79.3, "a100-80gb"),
        ("NVIDIA A10", 22.0, "a10-24gb"),
        ("NVIDIA A10G", 22.1, "a10g-24gb"),
        ("NVIDIA L40S", 44.4, "l40s-48gb"),
        ("NVIDIA L4", 22.0, "l4-24gb"),
        ("NVIDIA GeForce RTX 4090", 23.6, "rtx4090-24gb"),
        ("NVIDIA GeForce RTX 5090", 31.4, None),
    ],
)
def test_a_device_is_known_by_its_drivers_name_and_its_memory(
    name: str, gib: float, key: str | None
) -> None:
    found = recognised(name, int(gib * GIB))
    assert found == (None if key is None else KNOWN[key])
