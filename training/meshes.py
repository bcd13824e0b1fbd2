"""The processes of a training as a grid: which parts of the base and which rows each one has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.plugins import require
from training.topology import Topology

ROW_AXES = ("dp_replicate", "dp_shard", "cp", "tp")
"""As accelerate's data loaders know them: processes that differ in the last two share their rows.
"""


@dataclass(frozen=True, slots=True)
class Mesh:
    """Groups of processes, for one training; transformers takes it for a grid of its own."""

    topology: Topology
    grid: Any
    """All processes, by `ROW_AXES`."""
    shard: Any
    """Those that hold the parts of one copy of the base."""
    tensor: Any
    """Those that share each matrix."""
    context: Any
    """Those that share each sequence."""
    device: Any

    def get_mesh(self, axes: str | tuple[str, ...]) -> Any:
        """Return the group of an axis, by transformers' name for it."""
        return {"fsdp": self.shard, "tp": self.tensor}[axes] if isinstance(axes, str) else self.grid


def build(topology: Topology, device: str) -> Mesh | None:
    """Return the grid of processes that share a base; all of them must call it.

    None where each has a base of its own, alone or as one of `ddp`'s copies.

    Args:
        topology: of which the product is the number of processes.
        device: of this process.
    """
    if not topology.is_shared:
        return None
    torch = require("torch", extra="finetune")
    place = torch.device(device)
    grid = torch.distributed.init_device_mesh(place.type, topology.grid, mesh_dim_names=ROW_AXES)
    # peft takes the matrices of a group of any other name for parts that are multiplied as parts.
    shard = torch.distributed.DeviceMesh.from_group(
        grid.get_group("dp_shard"), place.type, mesh_dim_names=("fsdp",)
    )
    return Mesh(topology, grid, shard, grid["tp"], grid["cp"], place)


def from_lock(planned: Mapping[str, Any] | None) -> Topology:
    """Return the topology that was planned."""
    return Topology(**planned) if planned else Topology("single", 1, 1, 1, 1, 1)


def placed(model_class: Any, mesh: Mesh) -> Any:
    """Return a model's class whose weights are loaded into a grid.

    transformers makes a grid from its own sizes, which know no copies of shards.
    """

    class Placed(model_class):  # type: ignore[misc]
        @classmethod
        def prepare_distribute_model(cls, asked: Any, device_map: Any = None) -> Any:
            del device_map
            return asked, mesh.device, mesh

    Placed.__name__, Placed.__qualname__ = model_class.__name__, model_class.__qualname__
    Placed.__module__ = model_class.__module__
    return Placed
