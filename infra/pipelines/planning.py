"""Plans a run: pins what it reads, keeps the pipeline's files, says what would run and why."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from infra.artifacts.publishing import is_kept
from infra.artifacts.refs import Reference
from infra.artifacts.store import ArtifactStore
from infra.errors import Conflict, NotFound
from infra.pipelines import execution, graph, keys, runs
from infra.pipelines.definition import Pipeline, Step
from infra.pipelines.graph import Graph
from infra.pipelines.keys import UNKNOWN
from infra.pipelines.records import Made, Mode, Pin, Run
from infra.pipelines.runs import LOCK, Runs
from infra.pipelines.sources import Project


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would do with one step."""

    step: str
    action: Literal["run", "cached", "perhaps", "skip"]
    """`perhaps`: it depends on whether the outputs of an earlier step change."""
    reason: str


@dataclass(frozen=True, slots=True)
class Plan:
    """A pipeline that is ready to run, tied to what it found."""

    pipeline: Pipeline
    graph: Graph
    pins: Mapping[str, Pin]
    """Of the steps that are to run; the others are left out."""
    root: Path
    """The folder of the pipeline file."""


@dataclass(frozen=True, slots=True)
class Planner:
    """Makes plans, and runs of them."""

    store: ArtifactStore
    runs: Runs
    variables: Mapping[str, str]
    """The environment that steps will be given a part of."""
    folder: Path
    """For files in the making."""

    def plan(self, pipeline: Pipeline, root: Path, *, only: Iterable[str] = ()) -> Plan:
        """Look up what the steps read and are made of; nothing is written.

        Args:
            pipeline: as it was read.
            root: the folder of its file.
            only: the steps to run; they read the newest outputs of the others. All by default.

        Raises:
            InvalidRequest: its parts do not fit together.
            NotFound: an input, a file, a function or a step is not there; near names are suggested.
        """
        found = graph.build(pipeline)
        chosen = set(only) or set(found.order)
        for name in sorted(chosen - set(found.order)):
            raise NotFound("step", name, among=found.order)
        project = Project(root)
        pins = {}
        for name in found.order:
            if name in chosen:
                step = pipeline.steps[name]
                inputs = self._inputs(step, name=name, graph=found, chosen=chosen)
                pins[name] = Pin(inputs, project.sources(name, step))
        return Plan(pipeline, found, pins, root)

    def start(self, plan: Plan, *, mode: Mode, force: bool = False, key: str | None = None) -> Run:
        """Enter a run; the files of the pipeline are kept as the artifact `pipeline/NAME`."""
        return self.runs.create(
            plan.pipeline,
            plan.pins,
            mode=mode,
            snapshot=self._keep_files(plan),
            force=force,
            key=key,
        )

    def forecast(self, plan: Plan, *, force: bool = False) -> list[Forecast]:
        """Say what a run would do now, step by step; nothing is written."""
        made: dict[str, Mapping[str, Made]] = {}
        running: set[str] = set()
        found = []
        for name in plan.graph.order:
            if name not in plan.pins:
                found.append(Forecast(name, "skip", "not asked for"))
                continue
            each, outputs = self._forecast(plan, name, made=made, running=running)
            if force and each.action != "run":
                each = Forecast(name, "run", "forced")
            if each.action == "cached":
                made[name] = outputs
            else:
                running.add(name)
            found.append(each)
        return found

    def _forecast(
        self,
        plan: Plan,
        name: str,
        *,
        made: Mapping[str, Mapping[str, Made]],
        running: set[str],
    ) -> tuple[Forecast, Mapping[str, Made]]:
        step, pin = plan.pipeline.steps[name], plan.pins[name]
        inputs = dict(pin.inputs)
        awaited: dict[str, str] = {}
        for local, artifact in plan.graph.sources[name].items():
            maker = plan.graph.makers[artifact]
            if maker in running:
                awaited[maker] = artifact
                inputs[local] = Made(artifact, UNKNOWN, UNKNOWN)
            elif maker in made:
                outputs = plan.pipeline.steps[maker].outputs.items()
                local_there = next(key for key, each in outputs if each.artifact == artifact)
                inputs[local] = made[maker][local_there]
        parts = keys.parts(step, inputs, sources=pin.sources, environment=self.variables)
        names = {local: each.reference for local, each in inputs.items()} | step.local_names
        last = self.runs.last(plan.pipeline.name, name)
        why = execution.reason(last, parts, names=names)
        if awaited:
            if why:
                return Forecast(name, "run", why), {}
            maker, artifact = next(iter(awaited.items()))
            return Forecast(name, "perhaps", f"if step {maker} changes {artifact}"), {}
        with self.runs.database.read() as connection:
            cached = runs.cached(connection, keys.key(parts))
            gone = [
                each.reference
                for each in (cached.outputs.values() if cached else ())
                if not is_kept(connection, each.digest)
            ]
        if cached is None:
            return Forecast(name, "run", why or "its last outcome was forgotten"), {}
        if gone:
            return Forecast(name, "run", f"output {gone[0]} was collected"), {}
        return Forecast(name, "cached", "nothing changed"), cached.outputs

    def _inputs(self, step: Step, *, name: str, graph: Graph, chosen: set[str]) -> dict[str, Made]:
        """Look up the inputs of a step that no step of the run makes."""
        found = {}
        for local, reference in step.inputs.items():
            maker = graph.makers.get(reference)
            if reference.startswith("./") or maker in chosen:
                continue
            try:
                known = self.store.find(reference)
            except NotFound:
                raise self._missing(
                    reference, where=f"steps.{name}.inputs.{local}", graph=graph
                ) from None
            content = keys.content(self.store.resolve(f"{_name(known)}@{known.digest}"))
            found[local] = Made(str(known), known.digest, content)
        return found

    def _missing(self, reference: str, *, where: str, graph: Graph) -> NotFound:
        maker = graph.makers.get(reference)
        if maker is not None:
            return NotFound(f"artifact for {where} yet, which step {maker!r} makes:", reference)
        known = [*graph.makers, *map(_name, self.store.names())]
        name = reference.partition("@")[0]
        if name in known and name not in graph.makers:
            known = [str(each.reference) for each in self.store.versions(name)]
        return NotFound(f"artifact for {where}", reference, among=known)

    def _keep_files(self, plan: Plan) -> str | None:
        """Store the files that the plan names, and return the digest of the artifact."""
        wanted: dict[str, str] = {}
        for pin in plan.pins.values():
            wanted |= {**pin.sources.code, **pin.sources.digests}
        if not wanted:
            return None
        name = f"pipeline/{plan.pipeline.name}"
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="files-") as folder:
            for path in wanted:
                _link(plan.root / path, Path(folder) / path)
            with self.store.staged({name: Path(folder)}) as staged:
                kept = {each.path: each.digest for each in staged.stored[name].manifest.entries}
                for path, digest in wanted.items():
                    if kept[path] != digest.removesuffix("+x"):
                        raise Conflict(f"{path!r} changed while the run was planned; run it again")
                with self.runs.database.write(lock=LOCK) as connection:
                    return staged.enter(connection)[name].digest


def _name(reference: Reference) -> str:
    return f"{reference.kind}/{reference.name}"


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target, follow_symlinks=True)
    except OSError:  # another file system, or one without links
        shutil.copy(source, target)
