"""From lengths, model and devices to what a run comes to: mesh, batches, memory, time, money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from training import packing
from training.adapter_size import DEFAULT_RANK, AdapterSize
from training.base_model import BaseModel
from training.batching import MOST_ROWS, Batches, Indivisible, derive
from training.lengths import Lengths
from training.memory import Load, Loss, Memory, estimate
from training.preflight import Derived, Facts
from training.preflight.devices import FULL
from training.problems import Problem
from training.spec import FineTuning
from training.topology import Topology, choose
from training.usage import operations

UTILISATION = 0.4
"""Of a device's arithmetic, that training with adapters reaches; benchmarks are to better it."""
GOOD_ROWS = 4
"""At once on a device, from which recomputing activations to hold more of them gains nothing."""
LOSSES: dict[str, Loss] = {
    "sft": "tiled", "dpo": "tiled", "kto": "tiled", "reward": "scored",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a run comes to."""

    derived: Derived
    checkpointing: bool = False
    problems: tuple[Problem, ...] = ()


def size(facts: Facts, lengths: Mapping[str, Lengths]) -> Sizes:
    """Work out what follows from the rows; what cannot be is a problem, and the rest stays out."""
    spec = facts.spec
    train = lengths.get("data.train")
    if train is None or not train.kept:
        return Sizes(Derived(lengths))
    sequences, mean = _sequences(spec, lengths)
    if facts.base is None:
        return Sizes(Derived(lengths))
    try:
        whole = _fit(facts, facts.base, _copies(facts), sequences=sequences, mean=mean)
        topology = choose(spec.parallelism, fits=_fits(facts, whole[1]))
        batches, memory, checkpointing = (
            whole
            if topology.shard == topology.tensor == topology.context == 1
            else _fit(facts, facts.base, topology, sequences=sequences, mean=mean)
        )
    except Indivisible as error:
        key = (
            "schedule.rows_per_step" if spec.schedule.rows_per_step else "schedule.tokens_per_step"
        )
        return Sizes(Derived(lengths), problems=(Problem("batches", key, str(error)),))
    hours = _hours(facts, facts.base, batches, checkpointing=checkpointing)
    price = spec.runtime.budget.price_per_device_hour
    cost = None if hours is None or price is None else hours * price * spec.parallelism.world
    return Sizes(Derived(lengths, topology, batches, memory, hours, cost), checkpointing)


def _sequences(spec: FineTuning, lengths: Mapping[str, Lengths]) -> tuple[int, float]:
    """Return how many sequences an epoch has, and their mean length."""
    train = lengths["data.train"]
    rows, tokens = float(train.kept), float(train.tokens)
    for number, replay in enumerate(spec.data.replay):
        older = lengths.get(f"data.replay.{number}")
        if older is not None and older.kept:
            rows += replay.ratio * train.kept
            tokens += replay.ratio * train.kept * older.mean
    if spec.schedule.packing:
        packed = rows / train.kept * train.packs
        return max(1, round(packed)), tokens / packed
    return round(rows), tokens / rows


def _copies(facts: Facts) -> Topology:
    return Topology("ddp", facts.spec.parallelism.data_ranks, 1, 1, 1, 1)


def _fit(
    facts: Facts, base: BaseModel, topology: Topology, *, sequences: int, mean: float
) -> tuple[Batches, Memory, bool]:
    """Return the largest batch that fits, and whether it needs gradient checkpointing.

    Where nothing fits, the smallest.
    """
    asked = facts.spec.schedule.gradient_checkpointing
    # Packs that are read at once become one, whose mask grows by the square of its tokens.
    is_one = facts.spec.schedule.packing and packing.is_masked(facts.spec.base, facts.machine)
    ways = (False, True) if asked == "auto" else (bool(asked),)
    found = []
    for checkpointing in ways:
        most = 1 if is_one else MOST_ROWS
        while True:
            batches = derive(
                facts.spec.schedule,
                data_ranks=topology.data_ranks,
                sequences=sequences,
                mean_tokens=mean,
                most_rows=most,
            )
            load = _load(facts, topology, rows=batches.rows_per_device, checkpointing=checkpointing)
            memory = estimate(base.shape, load)
            if _fits(facts, memory) or most == 1:
                break
            most = max(1, most // 2)
        found.append((batches, memory, checkpointing))
        share = batches.rows_per_device * batches.accumulation
        if _fits(facts, memory) and batches.rows_per_device >= min(GOOD_ROWS, share):
            break
    return found[-1]


def _load(facts: Facts, topology: Topology, *, rows: int, checkpointing: bool) -> Load:
    spec = facts.spec
    quantization = spec.base.quantization
    at_once = rows * (2 if spec.method.type in {"dpo", "reward"} else 1)
    is_masked = packing.is_masked(spec.base, facts.machine) and topology.context == 1
    return Load(
        adapter=facts.adapter or AdapterSize(DEFAULT_RANK, 0),
        rows=at_once,
        length=spec.data.max_length,
        dtype=spec.base.dtype,
        quantization=(quantization.method, quantization.double) if quantization else None,
        shard=topology.shard,
        tensor=topology.tensor,
        context=topology.context * topology.sequence,
        checkpointing=checkpointing,
        loss=LOSSES[spec.method.type],
        eager=spec.base.attention == "eager",
        masked=is_masked
        and spec.base.attention != "eager"
        and (spec.schedule.packing or at_once > 1),
        optimizer_bytes=2 if spec.schedule.optimizer == "adamw_8bit" else 8,
        is_cpu=bool(facts.machine and facts.machine.is_cpu),
    )


def _fits(facts: Facts, memory: Memory) -> bool:
    machine = facts.machine
    if machine is None or machine.device_memory is None:
        return True
    processes = facts.spec.parallelism.devices_per_node if machine.is_cpu else 1
    return memory.total * processes <= FULL * machine.device_memory


def _hours(facts: Facts, base: BaseModel, batches: Batches, *, checkpointing: bool) -> float | None:
    """Return the hours of a run; `training.usage` says what its operations are."""
    if facts.machine is None or facts.machine.tflops is None:
        return None
    each = operations(base.shape, facts.spec.method.type, twice=checkpointing)
    speed = facts.spec.parallelism.world * UTILISATION * facts.machine.tflops * 1e12
    return batches.steps * batches.tokens_per_step * each / speed / 3600
