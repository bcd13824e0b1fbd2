"""How many processes become one distributed program: torchrun, ranks, a meeting point."""

from __future__ import annotations

from collections.abc import Sequence

from infra.errors import InvalidRequest
from training.launchers import Spec

PORT = 29_500
"""Where processes meet on a node that is theirs alone; the port that torch uses by default."""


def on_one_node(spec: Spec, *, torchrun: Sequence[str]) -> list[str]:
    """Return the command of a run that has one node."""
    if spec.nodes > 1:
        raise InvalidRequest(
            f"The run {spec.name!r} wants {spec.nodes} nodes, and this launcher has one; use "
            "`slurm` or `kubernetes`",
            parameter="nodes",
        )
    if spec.processes_per_node == 1:
        return list(spec.command)
    count = str(spec.processes_per_node)
    standalone = ["--standalone", "--nproc-per-node", count]
    return [*torchrun, *standalone, *started_by_torchrun(spec)]


def on_each_node(spec: Spec, *, torchrun: Sequence[str]) -> list[str]:
    """Return the command that each node starts; torchrun reads the rest from `meeting`."""
    if spec.processes_per_node == 1:
        return list(spec.command)
    return [*torchrun, *started_by_torchrun(spec)]


def started_by_torchrun(spec: Spec) -> list[str]:
    """Return the command as torchrun takes it, which replaces $local_rank and the like."""
    program, *arguments = spec.command
    return ["--no-python", program, *(each.replace("$", "$$") for each in arguments)]


def meeting(spec: Spec) -> dict[str, str]:
    """Return what all nodes know alike, in torchrun's variables and in those of torch.distributed.

    MASTER_ADDR, MASTER_PORT and the node's number (RANK, PET_NODE_RANK) are the launcher's to add.
    """
    if spec.processes_per_node > 1:
        return {"PET_NNODES": str(spec.nodes), "PET_NPROC_PER_NODE": str(spec.processes_per_node)}
    if spec.nodes > 1:
        return {"WORLD_SIZE": str(spec.nodes), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    return {}


def number_variable(spec: Spec) -> str:
    """Return the name of the variable that tells a node which one it is."""
    return "PET_NODE_RANK" if spec.processes_per_node > 1 else "RANK"
