"""What a specification can say and no run carries out: meshes, suites of what nobody can ask."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from training.judging import has_suites
from training.memory import BYTES
from training.preflight import Check, Derived, Facts, Silent
from training.preflight.devices import FULL
from training.problems import Problem
from training.spec import FineTuning
from training.specification.method import Lora
from training.topology import Topology, untrained

CHECK = "runnable"


def not_run_yet(spec: FineTuning) -> Iterator[tuple[str, str]]:
    """Return each key that asks for what is not done yet, with what to do instead."""
    if spec.serve is not None and spec.serve.canary is not None:
        what = "a run moves no traffic; take it out, and give the route a canary in the settings"
        yield "serve.canary", what
    if spec.sweep is not None:
        yield "sweep", "a run is of one specification; start it with 'ragstone train sweep'"


def not_asked(facts: Facts, mesh: Topology | None) -> Iterator[tuple[str, str]]:
    """Return what suites cannot be asked of: they are asked as a server is, in one process.

    It is the first one, after all others have let go of the base.
    """
    spec = facts.spec
    if not has_suites(spec):
        return
    if spec.method.type == "reward":
        yield "evaluate", "a model of rewards answers no suite; take suites and regressions out"
        return
    if mesh is not None and mesh.is_divided and not _fits_whole(facts):
        yield (
            "evaluate",
            "one process asks suites, and one device does not surely hold this base whole in "
            f"{spec.base.dtype}; ask by hand what serves it",
        )
    yield from _not_plain(
        spec.method.adapter,
        "suites are asked of LoRA, not of",
        "suites are asked of plain LoRA; drop it, or evaluate.suites and regressions",
    )


def _fits_whole(facts: Facts) -> bool:
    """Whether one device surely holds the base as suites are asked of it."""
    memory = None if facts.machine is None else facts.machine.device_memory
    if facts.base is None or memory is None:
        return False
    return facts.base.shape.parameters * BYTES[facts.spec.base.dtype] <= FULL * memory


def not_sharded_yet(spec: FineTuning, mesh: Topology) -> Iterator[tuple[str, str]]:
    """Return what a sharded base cannot have, whether shards were asked for or chosen.

    It is sharded while it is loaded and an adapter is put on it afterwards, whole in each process.
    """
    if not mesh.is_shared:
        return
    if spec.base.quantization is not None:
        method = spec.base.quantization.method
        what = f"fsdp2 shards no {method} weights here; use ddp, or drop base.quantization"
        yield "parallelism.strategy", what
    if spec.method.type != "sft":
        what = f"{spec.method.type} was not tried on a sharded base; use ddp, or a smaller base"
        yield "method.type", what
    yield from _not_plain(
        spec.method.adapter,
        "on a sharded base only LoRA is trained, not",
        "needs whole weights of the base, and this one is sharded; drop it, or use ddp",
    )


def _not_plain(adapter: Any, only: str, what: str) -> Iterator[tuple[str, str]]:
    """Return where an adapter is more, or something else, than plain LoRA."""
    if not isinstance(adapter, Lora):
        yield "method.adapter.type", f"{only} {adapter.type!r}"
        return
    for name in ("dora", "modules_to_save", "trainable_tokens"):
        if getattr(adapter, name):
            yield f"method.adapter.{name}", what


class _Runnable(Silent):
    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def problems(self, derived: Derived) -> Iterable[Problem]:
        spec, mesh = self._facts.spec, derived.topology
        said = [
            *not_run_yet(spec),
            *untrained(spec.parallelism),
            *not_asked(self._facts, mesh),
        ]
        if mesh is not None:
            said += not_sharded_yet(spec, mesh)
        return [Problem(CHECK, where, what) for where, what in said]


def build(facts: Facts) -> Check:
    return _Runnable(facts)
