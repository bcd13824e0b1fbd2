"""How a base is loaded: which attention it gets, and when rows may be packed."""

from __future__ import annotations

from typing import Any

import pytest

from infra.errors import InvalidRequest
from training.accelerators import has_flash_attention
from training.adapted_model import attention_of, check_packing
from training.specification.base import FLASH, Base


def test_flash_attention_is_chosen_only_where_it_runs() -> None:
    pytest.importorskip("transformers")
    auto, plain = Base(model="m"), Base(model="m", dtype="float32")
    here = FLASH[0] if has_flash_attention() else None
    assert attention_of(auto, device="cuda:0") == here
    assert attention_of(auto, device="cpu") is None
    assert attention_of(plain, device="cuda:0") is None
    assert attention_of(Base(model="m", attention="eager"), device="cuda:0") == "eager"


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_rows_are_not_packed_where_they_would_see_each_other(attention: Any) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=8,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
    )
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    with pytest.raises(InvalidRequest, match=f"'{attention}', with which rows of one pack"):
        check_packing(model)
    model.config._attn_implementation = FLASH[0]
    check_packing(model)
