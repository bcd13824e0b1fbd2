"""Grids of up to 512 processes: who reads which rows, and who shares what with whom."""

from __future__ import annotations

from typing import Any

import pytest

from meshed import as_rank, mesh_of
from training import meshes, splitting
from training.batching import derive
from training.specification.machines import Parallelism
from training.specification.schedule import Schedule
from training.topology import choose

torch = pytest.importorskip("torch")
loading = pytest.importorskip("accelerate.data_loader")
SIZES = [
    (1, 2, 1, 1), (2, 2, 1, 1), (1, 1, 1, 2), (2, 1, 2, 2), (2, 4, 2, 4), (4, 16, 1, 8),
    (8, 8, 4, 2), (1, 512, 1, 1), (512, 1, 1, 1), (1, 64, 1, 8), (2, 16, 8, 2),
]  # fmt: skip
"""Copies, shards, processes that share sequences, and matrices."""
ROWS, ROWS_PER_DEVICE = 4096, 4


def rows_of(mesh: Any, number: int, world: int) -> list[int]:
    """Return the rows that a process reads first."""
    loader = loading.prepare_data_loader(
        torch.utils.data.DataLoader(list(range(ROWS)), batch_size=ROWS_PER_DEVICE),
        num_processes=world, process_index=number, torch_device_mesh=mesh.grid,
        put_on_device=False,
    )  # fmt: skip
    return [int(row) for row in next(iter(loader))]


def members(group: Any) -> list[int]:
    return sorted(torch.distributed.get_process_group_ranks(group.get_group()))


@pytest.mark.parametrize("sizes", SIZES)
def test_processes_read_rows_and_share_parts_by_their_place_in_the_grid(
    sizes: tuple[int, int, int, int],
) -> None:
    topology = mesh_of(sizes)
    replicate, shard, context, tensor = sizes
    world = replicate * shard * context * tensor
    readers = context * tensor
    for number in sorted({0, 1, tensor % world, readers % world, world // 2, world - 1}):
        with as_rank(number, world):
            mesh = meshes.build(topology, "cpu")
            if not topology.is_shared:
                assert mesh is None, "copies need no grid"
                continue
            assert mesh is not None
            first = number // tensor * tensor
            assert members(mesh.tensor) == list(range(first, first + tensor))
            base = number // (readers * shard) * readers * shard + number % readers
            assert members(mesh.shard) == [base + readers * each for each in range(shard)]
            begin = number // readers * ROWS_PER_DEVICE
            assert rows_of(mesh, number, world) == list(range(begin, begin + ROWS_PER_DEVICE))
            assert mesh.get_mesh("fsdp") is mesh.shard
            assert mesh.get_mesh("tp") is mesh.tensor


@pytest.mark.parametrize("sizes", SIZES)
def test_a_step_learns_from_as_many_tokens_on_any_grid(sizes: tuple[int, int, int, int]) -> None:
    replicate, shard, context, tensor = sizes
    world = replicate * shard * context * tensor
    asked = Parallelism(
        nodes=max(1, world // 8), devices_per_node=min(world, 8), strategy="fsdp2",
        replicate=replicate, shard=shard, context=context, tensor=tensor,
    )  # fmt: skip
    found = choose(asked, fits=False)
    assert found == mesh_of(sizes)
    assert found.data_ranks * found.readers == world
    schedule = Schedule(tokens_per_step=2**20, epochs=1)
    batches = derive(schedule, data_ranks=found.data_ranks, sequences=10_000, mean_tokens=512.0)
    assert batches.tokens_per_step == 2**20
    share = batches.rows_per_device * batches.accumulation
    assert share * found.data_ranks == batches.rows_per_step == 2048


def test_a_plan_says_which_matrix_cannot_be_shared() -> None:
    plan = {"layers.*.up": "colwise", "layers.*.down": "rowwise"}
    linear = {"layers.0.up": (6, 12), "layers.0.down": (12, 6), "head": (6, 7)}
    assert list(splitting.indivisible(plan, linear, 4)) == []
    assert list(splitting.indivisible(plan, linear, 5)) == [
        ("layers.0.up", "has 12 to share by 5"), ("layers.0.down", "has 12 to share by 5"),
    ]  # fmt: skip
    plan = {"head": "colwise_gather_output", "layers.*.experts": "packed_colwise"}
    assert [path for path, _ in splitting.indivisible(plan, linear, 4)] == [
        "layers.*.experts", "head",
    ]  # fmt: skip
