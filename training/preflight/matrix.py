"""Parts that do not work together: packing, attention, sharding, quantisation, precision."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from training import packing, splitting
from training.preflight import Check, Derived, Facts, Silent
from training.problems import Problem
from training.spec import FineTuning
from training.specification.base import FLASH
from training.specification.method import Lora

CHECK = "matrix"

Said = tuple[str, str]


def _packing(facts: Facts) -> Iterable[Said]:
    spec = facts.spec
    if not spec.schedule.packing:
        return
    if spec.method.type != "sft":
        yield "schedule.packing", f"{spec.method.type} compares answers one by one; only sft packs"
    if packing.is_masked(spec.base, facts.machine):
        yield from _packing_by_mask(facts)
    if spec.parallelism.context > 1:
        yield "parallelism.context", "sequences that are shared cannot be packed; take one of both"


def _packing_by_mask(facts: Facts) -> Iterable[Said]:
    spec = facts.spec
    kind = None if facts.base is None else facts.base.config.model_type
    if kind is not None and kind not in packing.MASKED:
        yield (
            "schedule.packing",
            f"without FlashAttention rows of one pack would see each other in a {kind}; use it, "
            "with base.dtype bfloat16 on GPUs, or do not pack",
        )
    if spec.parallelism.world > 1 and spec.parallelism.strategy != "ddp":
        yield (
            "schedule.packing",
            "without FlashAttention several devices pack by strategy ddp alone; take that, or do "
            "not pack",
        )
    if (spec.schedule.rows_per_device or 1) > 1:
        yield (
            "schedule.rows_per_device",
            f"without FlashAttention {spec.schedule.rows_per_device} packs at once would be one; "
            "make it 1, or leave it out",
        )


def _attention(facts: Facts) -> Iterable[Said]:
    base, parallelism, machine = facts.spec.base, facts.spec.parallelism, facts.machine
    if base.attention in FLASH:
        if base.dtype == "float32":
            yield "base.dtype", f"{base.attention} knows no float32; use bfloat16"
        if machine is not None and (machine.is_cpu or machine.has_flash_attention is False):
            yield "base.attention", f"{base.attention} is not installed on this machine; use sdpa"
    if parallelism.context > 1 and base.attention not in {"auto", "sdpa"}:
        yield "base.attention", f"context {parallelism.context} needs sdpa, not {base.attention}"


def _quantization(facts: Facts) -> Iterable[Said]:
    spec, machine = facts.spec, facts.machine
    if spec.base.quantization is None:
        return
    if machine is not None and machine.is_cpu:
        yield "base.quantization", "quantised weights are trained on GPUs only"
    if not isinstance(spec.method.adapter, Lora):
        yield "base.quantization", f"quantised weights take LoRA, not {spec.method.adapter.type!r}"
    if spec.parallelism.tensor > 1:
        yield "parallelism.tensor", "quantised weights cannot be shared matrix by matrix"


def _sharding(facts: Facts) -> Iterable[Said]:
    spec = facts.spec
    each = spec.parallelism
    if each.pipeline > 1:
        yield (
            "parallelism.pipeline",
            "training in a pipeline needs another trainer, such as Megatron, run by 'ragstone "
            "launch'; here it is 1",
        )
    if each.context > 1 and each.strategy == "ddp":
        yield "parallelism.context", "sharing by context needs fsdp2, not ddp"
    if each.tensor > 1 and each.strategy == "ddp":
        yield "parallelism.tensor", "sharing matrices needs fsdp2, not ddp"
    if each.tensor > each.devices_per_node:
        yield (
            "parallelism.tensor",
            f"{each.tensor} devices share a matrix and a node has {each.devices_per_node}",
        )


def _sequences(facts: Facts) -> Iterable[Said]:
    where = "parallelism.context"
    if facts.spec.parallelism.context == 1:
        return
    if facts.spec.schedule.compile:
        yield "schedule.compile", "sequences that are shared are not compiled; drop it, or context"
    if facts.base is not None and not facts.base.shape.attends_causally:
        kind = facts.base.config.model_type
        yield where, f"of a {kind} not all layers see all that was before; shard it instead"


def _copies(facts: Facts) -> Iterable[Said]:
    each = facts.spec.parallelism
    if each.strategy != "ddp":
        return
    if (each.shard or 1) > 1:
        what = f"ddp copies the base whole and does not divide it by {each.shard}; use fsdp2"
        yield "parallelism.shard", what
    if each.replicate not in {None, each.data_ranks}:
        yield (
            "parallelism.replicate",
            f"ddp makes a copy for each of {each.data_ranks} devices, not {each.replicate}; leave "
            "it out, or shard: fsdp2",
        )


def _world(facts: Facts) -> Iterable[Said]:
    each = facts.spec.parallelism
    shared = each.tensor * each.context * each.sequence
    if each.world % shared:
        yield (
            "parallelism",
            f"{each.world} devices cannot be divided by tensor x context x sequence, {shared}",
        )
    elif each.replicate is not None and each.shard is not None:
        product = each.replicate * each.shard * shared
        if product != each.world:
            yield (
                "parallelism",
                f"replicate x shard x tensor x context x sequence is {product}, and "
                f"{each.nodes} x {each.devices_per_node} devices are {each.world}",
            )
    elif (each.replicate or each.shard) and each.world // shared % (
        each.replicate or each.shard or 1
    ):
        yield (
            "parallelism",
            f"{each.world // shared} devices cannot be divided by {each.replicate or each.shard}",
        )


def _split(facts: Facts) -> Iterable[Said]:
    tensor, where = facts.spec.parallelism.tensor, "parallelism.tensor"
    if tensor == 1:
        return
    if facts.spec.schedule.compile:
        yield "schedule.compile", "matrices that are shared are not compiled; drop it, or tensor"
    if facts.base is None:
        return
    shape = facts.base.shape
    if not shape.split:
        kind = facts.base.config.model_type
        yield where, f"transformers knows no way to split a {kind}; shard it instead"
    for count, what in ((shape.heads, "heads"), (shape.kv_heads, "heads of keys and values")):
        if count % tensor:
            yield where, f"{tensor} devices cannot share {count} {what}"
    first = next(splitting.indivisible(shape.split, shape.linear, tensor), None)
    if first is not None:
        yield where, f"{first[0]!r} {first[1]}; shard the base instead"


def _method(facts: Facts) -> Iterable[Said]:
    spec: FineTuning = facts.spec
    adapter = spec.method.adapter
    targets = getattr(adapter, "targets", ())
    if isinstance(targets, tuple) and "lm_head" in targets and spec.method.type != "reward":
        yield (
            "method.adapter.targets",
            "an adapter on 'lm_head' cannot be trained with the loss in chunks; leave it out",
        )
    machine = facts.machine
    if machine is not None and machine.is_cpu:
        if spec.base.dtype == "float16":
            yield "base.dtype", "processors do not train in float16; use float32 or bfloat16"
        if spec.schedule.optimizer == "adamw_8bit":
            yield "schedule.optimizer", "adamw_8bit runs on GPUs only; use adamw"


RULES: tuple[Callable[[Facts], Iterable[Said]], ...] = (
    _packing,
    _attention,
    _quantization,
    _sharding,
    _sequences,
    _copies,
    _world,
    _split,
    _method,
)


class _Matrix(Silent):
    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def problems(self, _: Derived) -> Iterable[Problem]:
        for rule in RULES:
            for where, what in rule(self._facts):
                yield Problem(CHECK, where, what)


def build(facts: Facts) -> Check:
    return _Matrix(facts)
