"""What an adapter adds to its base, counted on no device and held against the real one."""

from __future__ import annotations

from typing import Any

import pytest

from infra.errors import InvalidRequest
from trained import only_third_parties_warn
from training import adapted_model, adapter_size
from training.base_model import BaseModel
from training.specification.base import Base
from training.specification.method import Lora, Method, Osf, Peft
from tuning import write_base

pytest.importorskip("peft")
pytestmark = only_third_parties_warn
VERA = {"peft_type": "VERA", "r": 8, "target_modules": ["q_proj", "o_proj"]}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseModel:
    return BaseModel("base", write_base(tmp_path_factory.mktemp("sizes") / "base"), None)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "adapter",
    [
        Lora(r=4),
        Lora(r=4, targets=("q_proj", "v_proj"), dora=True),
        Lora(r=4, modules_to_save=("lm_head",)),
        Lora(r=4, trainable_tokens=(5, 6, 7)),
        Osf(type="osf", effective_rank=16),
        Peft(type="peft", config=VERA),
    ],
    ids=["lora", "dora", "modules", "tokens", "osf", "vera"],
)
def test_as_many_numbers_are_trained_as_the_real_adapter_has(
    base: BaseModel, adapter: Any, dtype: str
) -> None:
    method = Method(adapter=adapter)
    found = adapter_size.measure(method, base, dtype=dtype)
    assert found is not None
    asked = Base(model="base", dtype=dtype)  # type: ignore[arg-type]
    model = adapted_model.load_base(asked, base.folder, device="cpu")
    before = sum(each.nbytes for each in (*model.parameters(), *model.buffers()))
    real = adapted_model.attach(model, method, seed=1)
    trained = [each for each in real.parameters() if each.requires_grad]
    held = [each for each in real.parameters() if not each.requires_grad] + list(real.buffers())
    wide = sum(each.numel() for each in trained if each.element_size() == 4)
    assert found.trained == wide
    assert found.trained_as_base == sum(each.numel() for each in trained) - wide
    assert found.held_bytes == max(0, sum(each.nbytes for each in held) - before)
    assert found.is_whole == isinstance(adapter, Lora)


def test_what_peft_does_not_take_is_told(base: BaseModel) -> None:
    for config in ({"peft_type": "NOPE"}, {**VERA, "target_modules": ["q_prj"]}):
        method = Method(adapter=Peft(type="peft", config=config))
        with pytest.raises(InvalidRequest, match="peft"):
            adapter_size.measure(method, base, dtype="float32")
