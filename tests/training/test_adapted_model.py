"""How a base is loaded: its attention, and what shared matrices keep."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshed import as_rank, mesh_of
from training import meshes
from training.accelerators import has_flash_attention
from training.adapted_model import attention_of, load_base
from training.specification.base import FLASH, Base


def test_flash_attention_is_chosen_only_where_it_runs() -> None:
    pytest.importorskip("transformers")
    auto, plain = Base(model="m"), Base(model="m", dtype="float32")
    here = FLASH[0] if has_flash_attention() else None
    assert attention_of(auto, device="cuda:0") == here
    assert attention_of(auto, device="cpu") is None
    assert attention_of(plain, device="cuda:0") is None
    assert attention_of(Base(model="m", attention="eager"), device="cuda:0") == "eager"


def test_embeddings_that_are_the_head_as_well_stay_one_matrix_where_matrices_are_shared(
    tmp_path: Path,
) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        vocab_size=32, tie_word_embeddings=True,
    )  # fmt: skip
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path)
    with as_rank(1, 2):
        mesh = meshes.build(mesh_of((1, 1, 1, 2)), "cpu")
        model = load_base(Base(model="m", dtype="float32"), tmp_path, device="cpu", mesh=mesh)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert tuple(model.lm_head.weight.shape) == (32, 16)
    assert tuple(model.model.layers[0].mlp.up_proj.weight.shape) == (8, 16)
