"""Rows of one pack say what each says alone, and where they would see each other are not packed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infra.errors import InvalidRequest
from infra.settings import load_settings
from service.models import tuning
from service.wiring import Components
from trained import only_third_parties_warn, write_task
from training import packing, parity
from training.accelerators import Machine
from training.finetune import finetune
from training.spec import read
from training.specification.base import FLASH, Base

transformers = pytest.importorskip("transformers")
pytestmark = only_third_parties_warn
SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "pad_token_id": 0,
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "sliding_window": 3,
}  # fmt: skip
ROWS = ([5, 6, 7, 8, 9, 10], [20, 21, 22], [40, 41, 42, 43, 44])


def tiny(kind: str, attention: str, **sizes: Any) -> Any:
    config = transformers.AutoConfig.for_model(kind, **(sizes or SIZES))
    return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", packing.MASKED)
def test_a_pack_says_what_its_rows_say_alone(kind: str, attention: str) -> None:
    torch = pytest.importorskip("torch")
    model = tiny(kind, attention).eval()
    packing.check(model, rows_at_once=1)
    assert not model.training
    ids = torch.tensor([sum(ROWS, [])])
    places = torch.tensor([[place for row in ROWS for place in range(len(row))]])
    with torch.no_grad():
        packed = model(input_ids=ids, position_ids=places, use_cache=False).logits[0].numpy()
    alone = np.concatenate(parity.of_model(model)(ROWS))
    assert np.abs(packed - alone).max() < 1e-5
    mixed = parity.of_model(model)([sum(ROWS, [])])[0]
    assert np.abs(mixed - alone).max() > 1e-3, "what is not kept apart differs"


def test_rows_that_would_see_each_other_are_not_packed() -> None:
    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2}
    opt = tiny("opt", "sdpa", **sizes, ffn_dim=32, word_embed_proj_dim=32, num_attention_heads=2)
    with pytest.raises(InvalidRequest, match="'sdpa' rows of one pack see each other in this opt"):
        packing.check(opt.train(), rows_at_once=1)
    assert opt.training
    with pytest.raises(InvalidRequest, match="see each other in this mamba"):
        packing.check(tiny("mamba", "eager", **sizes, state_size=4), rows_at_once=1)


def test_a_model_whose_logits_are_no_numbers_is_not_said_to_mix_rows() -> None:
    torch, model = pytest.importorskip("torch"), tiny("llama", "sdpa")
    torch.nn.init.constant_(model.lm_head.weight, float("nan"))
    with pytest.raises(InvalidRequest, match="logits are no numbers; with DoRA"):
        packing.check(model, rows_at_once=1)


def test_packs_that_a_mask_would_make_one_are_asked_one_by_one() -> None:
    model = tiny("llama", "sdpa")
    with pytest.raises(InvalidRequest, match="2 packs at once would be one"):
        packing.check(model, rows_at_once=2)
    model.config._attn_implementation = FLASH[0]
    packing.check(model, rows_at_once=2)


def test_a_mask_is_taken_where_there_will_be_no_flash_attention() -> None:
    gpu = Machine(1, 1, 1.0, is_cpu=False, has_flash_attention=True)
    auto = Base(model="m")
    assert not packing.is_masked(auto, gpu)
    assert not packing.is_masked(auto, None)
    assert packing.is_masked(auto, replace(gpu, has_flash_attention=False))
    assert packing.is_masked(auto, replace(gpu, is_cpu=True))
    assert packing.is_masked(Base(model="m", dtype="float32"), gpu)
    assert packing.is_masked(Base(model="m", attention="sdpa"), gpu)
    assert not packing.is_masked(Base(model="m", attention=FLASH[0]), None)


@pytest.mark.usefixtures("light_training")
def test_a_packed_run_has_the_losses_of_the_same_rows_one_by_one(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    parts = Components(load_settings(data_folder=tmp_path / "data"))
    losses: dict[str, list[float]] = {"packed": [], "single": []}
    whole = {"schedule.steps": 3, "data.eval": {"rows": "eval.jsonl"}, "data.max_length": 2048}
    for name, rows, packed in (("packed", 1, True), ("single", 64, False)):
        spec = write_task(
            tmp_path, {**whole, "schedule.rows_per_step": rows, "schedule.packing": packed}
        )
        around = tuning.around(parts, tmp_path, note=lambda _: None)
        tell = losses[name]
        ended = finetune(
            read(spec),
            tmp_path / name,
            replace(around, smokes=packed, tell=lambda told, tell=tell: tell.append(told.loss)),
        )
        losses[name].append(ended.eval_loss_after or 0.0)
    parts.close()
    lock = json.loads((tmp_path / "packed" / "lock.json").read_text())
    assert lock["batches"]["rows_per_device"] == 1
    assert len(losses["packed"]) == 4
    assert losses["packed"] == pytest.approx(losses["single"], abs=1e-4)
