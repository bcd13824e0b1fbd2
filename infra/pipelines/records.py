"""What can be read about pipeline runs: their state, what was pinned, how each step came out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import Row

from infra.jobs.processes import Process
from infra.pipelines import graph
from infra.pipelines.definition import Pipeline
from infra.pipelines.graph import Graph
from infra.pipelines.sources import Sources

Mode = Literal["foreground", "jobs", "external"]
RunState = Literal["running", "succeeded", "failed", "cancelled"]
StepState = Literal[
    "waiting",
    "queued",
    "running",
    "succeeded",
    "cached",
    "failed",
    "blocked",
    "cancelled",
    "skipped",
]
OPEN = ("waiting", "queued", "running")
PASSED = ("succeeded", "cached", "skipped")


@dataclass(frozen=True, slots=True)
class Made:
    """An artifact as a step reads or makes it."""

    reference: str
    """For people, such as `dataset/faq@v3`."""
    digest: str
    content: str
    """Digest of its files alone: equal where only the lineage differs."""


@dataclass(frozen=True, slots=True)
class Pin:
    """What a step was tied to when its run began."""

    inputs: Mapping[str, Made]
    """Those that no other step of the run makes, by local name."""
    sources: Sources


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A step of a run as it stood when it was read."""

    run_id: str
    name: str
    state: StepState
    reason: str
    """Why it ran, or did not."""
    key: str | None
    parts: Mapping[str, Any] | None
    """What the key is the hash of; read by `Runs.last` alone."""
    inputs: Mapping[str, str]
    """References, by local name."""
    outputs: Mapping[str, Made]
    result: Any
    """What its function returned."""
    error: str | None
    fence: int
    failures: int
    work: str | None
    job_id: str | None
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def is_finished(self) -> bool:
        return self.state not in OPEN


@dataclass(frozen=True, slots=True)
class Fixed:
    """What a run began with; it never changes."""

    pipeline: Pipeline
    pins: Mapping[str, Pin]
    graph: Graph


@dataclass(frozen=True, slots=True)
class Run:
    """A run of a pipeline as it stood when it was read."""

    id: str
    fixed: Fixed
    key: str | None
    mode: Mode
    state: RunState
    snapshot: str | None
    force: bool
    process: Process | None
    created_at: datetime
    finished_at: datetime | None
    steps: Mapping[str, StepRecord]
    """In the order they run."""

    @property
    def pipeline(self) -> Pipeline:
        return self.fixed.pipeline

    @property
    def pins(self) -> Mapping[str, Pin]:
        return self.fixed.pins

    @property
    def graph(self) -> Graph:
        return self.fixed.graph

    @property
    def is_finished(self) -> bool:
        return self.state != "running"

    @property
    def is_abandoned(self) -> bool:
        """Whether the process that ran it in the foreground is gone."""
        return not self.is_finished and self.process is not None and self.process.is_gone

    def ready(self) -> list[str]:
        """Return the waiting steps that need nothing more."""
        return [
            name
            for name, step in self.steps.items()
            if step.state == "waiting"
            and all(self.steps[each].state in PASSED for each in self.graph.needs[name])
        ]

    def inputs(self, name: str) -> dict[str, Made]:
        """Return what a step reads; those that it needs must have succeeded."""
        found = dict(self.pins[name].inputs)
        for local, artifact in self.graph.sources[name].items():
            if local not in found:
                maker = self.graph.makers[artifact]
                outputs = self.pipeline.steps[maker].outputs
                made = next(key for key, each in outputs.items() if each.artifact == artifact)
                found[local] = self.steps[maker].outputs[made]
        return found


def write_pins(pins: Mapping[str, Pin]) -> dict[str, Any]:
    """Return pins as JSON."""
    return {name: asdict(pin) for name, pin in pins.items()}


def read_fixed(row: Row[Any]) -> Fixed:
    pipeline = Pipeline.model_validate(row.definition)
    pins = {
        name: Pin(_read_made(pin["inputs"]), Sources(**pin["sources"]))
        for name, pin in row.pins.items()
    }
    return Fixed(pipeline, pins, graph.build(pipeline))


def read_run(row: Row[Any], fixed: Fixed, steps: list[Row[Any]]) -> Run:
    return Run(
        id=row.id,
        fixed=fixed,
        key=row.key,
        mode=row.mode,
        state=row.state,
        snapshot=row.snapshot,
        force=row.force,
        process=Process.parse(row.process) if row.process else None,
        created_at=row.created_at,
        finished_at=row.finished_at,
        steps={step.name: read_step(step) for step in steps},
    )


def read_step(row: Row[Any]) -> StepRecord:
    return StepRecord(
        run_id=row.run_id,
        name=row.name,
        state=row.state,
        reason=row.reason,
        key=row.key,
        parts=row._mapping.get("parts"),
        inputs=row.inputs or {},
        outputs=_read_made(row.outputs or {}),
        result=row.result,
        error=row.error,
        fence=row.fence,
        failures=row.failures,
        work=row.work,
        job_id=row.job_id,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )


def _read_made(value: Mapping[str, Any]) -> dict[str, Made]:
    return {name: Made(**made) for name, made in value.items()}
