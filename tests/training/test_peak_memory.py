"""What a step takes at its peak, measured, against what the plan said before."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pytest

from benched import bench_of
from trained import only_third_parties_warn
from training import peak_memory, smoke
from tuning import chat, pair, write_base, write_rows, write_spec

pytest.importorskip("trl")
pytestmark = [*only_third_parties_warn, pytest.mark.usefixtures("light_training")]
BAR = 0.15
LENGTH, ROWS = 256, 4
PAIRS = {"data.train": {"rows": "pairs.jsonl"}}
TWICE = {"schedule.gradient_checkpointing": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of which a step takes a hundred MiB, so that small change is small."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("peak")
    for name, words in (("base", 384), ("wide", 8192)):
        write_base(folder / name)
        config = transformers.LlamaConfig(
            hidden_size=256, intermediate_size=704, num_hidden_layers=4, num_attention_heads=4,
            num_key_value_heads=2, vocab_size=words, max_position_embeddings=2048,
        )  # fmt: skip
        torch.manual_seed(1)
        transformers.LlamaForCausalLM(config).save_pretrained(folder / name)
    write_rows(folder / "train.jsonl", [chat(f"Question {n}?", "Yes.") for n in range(16)])
    write_rows(folder / "pairs.jsonl", [pair(f"Is it {n}?", "Yes.", "No.") for n in range(16)])
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"base.model": "wide"},
        TWICE,
        {"base.dtype": "bfloat16"},
        {"method.adapter": {"type": "lora", "r": 8, "dora": True}},
        {"method.type": "dpo", **PAIRS},
        {"method.type": "reward", **PAIRS},
        {"method.type": "reward", **PAIRS, "base.model": "wide", **TWICE},
        {"method.type": "reward", **PAIRS, "base.dtype": "bfloat16", **TWICE},
        {"schedule.packing": True, "schedule.rows_per_device": 1, "data.max_length": 2048},
        {"base.attention": "eager"},
        {"method.type": "reward", **PAIRS, "method.adapter": {"type": "lora", "r": 256}},
    ],
    ids=[
        *("float32", "many words", "made twice", "bfloat16", "dora", "pairs"),
        *("rewards", "rewards, many words, made twice", "rewards, bfloat16, made twice"),
        *("packed", "eager", "many weights that are trained"),
    ],
)
def test_a_step_takes_what_was_planned_within_15_percent(
    folder: Path, changes: dict[str, Any]
) -> None:
    given = {
        "data.max_length": LENGTH,
        "schedule.gradient_checkpointing": False,
        "schedule.rows_per_device": ROWS,
        "method.adapter": {"type": "lora", "r": 8, "alpha": 16},
        **changes,
    }
    with bench_of(write_spec(folder / "spec.yaml", given)) as bench:
        assert bench.lock.memory is not None
        ratio = smoke.peak(bench) / bench.lock.memory["total"]
    assert 1 - BAR <= ratio <= 1 + BAR, ratio


def test_what_is_given_back_does_not_count() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(256, 256, bias=False)
    model.device = torch.device("cpu")
    size = model.weight.nbytes
    gone = [torch.ones(1024, 1024)]
    gone.append(gone)
    del gone  # a ring, which is given back whenever it pleases
    with peak_memory.measured(model) as peak:
        gc.collect()
        for _ in range(3):
            torch.ones(1024, 1024)
    assert size + (4 << 20) <= peak.bytes < size + (5 << 20)
