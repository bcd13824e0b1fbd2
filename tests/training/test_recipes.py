"""The recipes: each is planned, over a model of its real sizes and a dataset of the store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.artifacts.store import open_store
from infra.datasets.datasets import Datasets
from migrated import open_migrated
from training import spec
from training.accelerators import GIB, KNOWN, Machine
from training.planning import Places, Plan, plan
from tuning import chat, pair, write_base

RECIPES = sorted((Path(spec.__file__).parent / "recipes").glob("*.yaml"))
SIZES: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-0.5B-Instruct": {
        "model_type": "qwen2", "hidden_size": 896, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "intermediate_size": 4864,
        "vocab_size": 151_936, "max_position_embeddings": 32_768, "tie_word_embeddings": True,
    },
    "meta-llama/Llama-3.1-8B-Instruct": {
        "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14_336,
        "vocab_size": 128_256, "max_position_embeddings": 131_072,
    },
    "meta-llama/Llama-3.1-70B-Instruct": {
        "model_type": "llama", "hidden_size": 8192, "num_hidden_layers": 80,
        "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 28_672,
        "vocab_size": 128_256, "max_position_embeddings": 131_072,
    },
}  # fmt: skip
"""As the published configurations of these models have them."""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("recipes")
    write_base(folder / "base")
    database = open_migrated(folder / "ragstone.db")
    store = open_store(folder / "store", database)
    datasets = Datasets(store)
    answers = [chat(f"What is case {n}?", f"It is number {n}. " * 40) for n in range(600)]
    datasets.put({"train": answers[:500], "validation": answers[500:]}, "dataset/support")
    datasets.put(
        [chat(f"Of old: {n}?", f"Known for long, {n}.") for n in range(60)], "dataset/general"
    )
    pairs = [pair(f"What is case {n}?", f"It is number {n}. " * 40, "No.") for n in range(600)]
    datasets.put({"train": pairs[:500], "validation": pairs[500:]}, "dataset/preferences")
    yield Places(folder, store, datasets, Path)
    database.close()


def planned(recipe: Path, places: Places) -> Plan:
    asked = spec.read(recipe)
    described = places.folder / recipe.stem
    if not described.exists():
        described.mkdir()
        for path in (places.folder / "base").iterdir():
            if path.suffix == ".json":
                (described / path.name).write_bytes(path.read_bytes())
        (described / "config.json").write_text(json.dumps(SIZES[asked.base.model]))
    base = asked.base.model_copy(update={"described_by": recipe.stem})
    device = KNOWN[str(asked.runtime.accelerator)]
    memory = int(device.memory_gib * GIB)
    here = Machine(1, memory, device.bfloat16_tflops, is_cpu=False, has_flash_attention=True)
    return plan(
        asked.model_copy(update={"base": base}),
        places,
        machine=here if asked.runtime.launcher == "local" else None,
    )


def test_there_are_recipes_for_every_size() -> None:
    assert len(RECIPES) == 6
    assert {spec.read(path).base.model for path in RECIPES} == set(SIZES)
    assert {spec.read(path).parallelism.world for path in RECIPES} == {1, 8, 16}


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_sound_and_its_step_fits(recipe: Path, places: Places) -> None:
    found = planned(recipe, places)
    found.require_sound()
    lock, asked = found.lock, spec.read(recipe)
    assert lock.batches is not None
    assert lock.topology is not None
    assert lock.memory is not None
    step = lock.batches["rows_per_device"] * lock.batches["accumulation"]
    assert step * lock.batches["data_ranks"] == lock.batches["rows_per_step"]
    if asked.schedule.rows_per_step is None:
        wanted = asked.schedule.tokens_per_step
        assert lock.batches["tokens_per_step"] == pytest.approx(wanted, rel=0.15)
    assert lock.memory["total"] < KNOWN[str(asked.runtime.accelerator)].memory_gib * GIB
    assert lock.hours is not None
    assert lock.topology["shard"] <= asked.parallelism.devices_per_node, "shards stay in a node"
    assert any("neither its digest nor its weights" in note for note in found.notes)


def test_the_first_lines_of_a_recipe_are_its_command() -> None:
    for recipe in RECIPES:
        head = recipe.read_text().partition("\n#\n")[0]
        assert head.endswith(f"train run training/recipes/{recipe.name}"), recipe.name
        asked = spec.read(recipe)
        if asked.parallelism.world > 1:
            assert f"--on {asked.runtime.launcher}" in head
            assert f"--processes {asked.parallelism.devices_per_node} " in head
            assert (f"--nodes {asked.parallelism.nodes} " in head) == (asked.parallelism.nodes > 1)


def test_seventy_billion_weights_do_not_fit_on_one_device(places: Places) -> None:
    recipe = next(path for path in RECIPES if path.name == "llama3.1-70b-two-nodes.yaml")
    asked = spec.read(recipe)
    alone = asked.model_copy(update={"parallelism": type(asked.parallelism)()})
    described = asked.base.model_copy(update={"described_by": recipe.stem})
    planned(recipe, places)
    found = plan(alone.model_copy(update={"base": described}), places)
    (problem,) = found.problems
    assert problem.where == "schedule.rows_per_device"
    assert "GiB" in problem.what


def test_long_rows_of_seventy_billion_weights_fit_where_matrices_are_shared_not_sharded(
    places: Places,
) -> None:
    recipe = next(path for path in RECIPES if "long-rows" in path.name)
    asked = spec.read(recipe)
    assert asked.parallelism.tensor == asked.parallelism.devices_per_node
    planned(recipe, places).require_sound()
    described = asked.base.model_copy(update={"described_by": recipe.stem})
    sharded = asked.parallelism.model_copy(update={"tensor": 1, "shard": 8})
    found = plan(asked.model_copy(update={"parallelism": sharded, "base": described}), places)
    assert [problem.where for problem in found.problems] == ["schedule.rows_per_device"]
