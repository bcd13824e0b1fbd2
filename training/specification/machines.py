"""The sections `parallelism` and `runtime`: over how many devices, and where they are."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from training.specification.part import Part


class Parallelism(Part):
    """How the work is divided: `replicate * shard * tensor * context * sequence` is the world."""

    nodes: int = Field(default=1, ge=1)
    devices_per_node: int = Field(default=1, ge=1)
    strategy: Literal["auto", "ddp", "fsdp2", "zero3"] = "auto"
    """`auto`: one process alone, copies of a base that fits on a device, otherwise its shards.
    `zero3` is refused: `fsdp2` shards the same."""
    replicate: int | None = Field(default=None, ge=1)
    """Copies of the sharded model; by default one, shared by all devices."""
    shard: int | None = Field(default=None, ge=1)
    """Devices that share one copy of the weights."""
    tensor: int = Field(default=1, ge=1)
    """Devices that share each matrix; all of one node."""
    context: int = Field(default=1, ge=1)
    """Devices that share each sequence, with FSDP2."""
    sequence: int = Field(default=1, ge=1)
    """Only 1: `context` shares sequences without DeepSpeed."""
    pipeline: int = Field(default=1, ge=1)
    """Only 1: the libraries below cannot train in a pipeline."""

    @property
    def world(self) -> int:
        """Processes, one for each device."""
        return self.nodes * self.devices_per_node

    @property
    def data_ranks(self) -> int:
        """Processes that see different rows; the others share theirs."""
        return max(1, self.world // math.prod((self.tensor, self.context, self.sequence)))


class Budget(Part):
    """What a run may take; a plan that is estimated to take more is refused."""

    max_hours: float | None = Field(default=None, gt=0)
    max_cost: float | None = Field(default=None, gt=0)
    """In the currency of `price_per_device_hour`."""
    price_per_device_hour: float | None = Field(default=None, ge=0)


class Runtime(Part):
    """Where it runs."""

    launcher: str = "local"
    """`local`, `slurm`, `kubernetes` or `ray`, with the operator's options."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    accelerator: str | None = None
    """The kind of device that it is planned for, such as `h100-80gb`; by default the one here."""
    memory_gib: float | None = Field(default=None, gt=0)
    """Of a device, instead of what is known of `accelerator`."""
    cpus_per_node: int = Field(default=4, ge=1)
    node_memory_gib: float | None = Field(default=None, gt=0)
    environment: dict[str, str] = Field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    """Names of variables that are passed on and not written anywhere."""
    budget: Budget = Budget()
