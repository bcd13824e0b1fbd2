"""Lays out the folder a step runs in: its code, its inputs, and room for its outputs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.artifacts.store import ArtifactStore
from infra.errors import Conflict, InvalidRequest, NotFound, RagstoneError
from infra.jobs.external import Command
from infra.pipelines.definition import Step
from infra.pipelines.graph import places_of
from infra.pipelines.parameters import put_places
from infra.pipelines.records import Made, Run
from infra.pipelines.sources import OWN_PROGRAM

PASSED_ON = ("HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR", "TZ")
"""Variables that every program gets, and that are not part of what a step depends on."""
MAX_RESULT_BYTES = 65_536
ENTRY = Path(__file__).with_name("entry.py")


class StepFailed(RagstoneError):
    """A step's program failed, took too long, or did not leave what it should."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What steps run in."""

    folder: Path
    """Holds a folder for each run."""
    programs: Mapping[str, tuple[str, ...]]
    """What `ragstone` and `python` in a command stand for."""
    variables: Mapping[str, str]
    """The environment that variables are taken from."""
    own_variables: Mapping[str, str] = field(default_factory=dict)
    """What the program `ragstone` gets besides: where its data is."""


@dataclass(frozen=True, slots=True)
class Workplace:
    """The folder of one try of one step.

    `files` is where its program runs; `state` is kept by `infra.jobs.external`.
    """

    folder: Path

    @property
    def files(self) -> Path:
        return self.folder / "files"

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def lay_out(self, store: ArtifactStore, run: Run, *, name: str, project: Path) -> None:
        """Fill the folder, which does not exist yet; a program may start in it afterwards.

        Args:
            store: of the inputs.
            run: with what is pinned.
            name: of the step.
            project: holds the files of the pipeline.

        Raises:
            NotFound: an input is gone.
            StorageFailed: the disk is full, or an input is damaged.
        """
        step, pin = run.pipeline.steps[name], run.pins[name]
        (self.files / "inputs").mkdir(parents=True)
        for path in pin.sources.code:
            _copy(project / path, self.files / path)
        for local, files in pin.sources.local.items():
            for inside, path in files.items():
                _copy(project / path, self.files / "inputs" / local / inside)
        for local, made in run.inputs(name).items():
            store.checkout(exact(made), self.files / "inputs" / local)
        for output in step.outputs.values():
            # A name with an ending is a file; then only the folder around it is made.
            place = self.files / output.path
            (place.parent if place.suffix else place).mkdir(parents=True, exist_ok=True)
        if step.python:
            module, _, function = step.python.partition(":")
            places = places_of(step, references(run, name))
            call = {
                "module": module,
                "function": function,
                "paths": {
                    key.partition(".")[2]: place
                    for key, place in places.items()
                    if not key.startswith("references.")
                },
                "values": put_places(step.arguments, places, where=f"steps.{name}.with"),
            }
            (self.folder / "call.json").write_text(json.dumps(call), encoding="utf-8")

    def command(self, run: Run, name: str, *, around: Surroundings) -> Command:
        """Return the program of a step, with the variables it is allowed to see."""
        step = run.pipeline.steps[name]
        wanted = {*PASSED_ON, *step.environment, *step.secrets}
        variables = {name: value for name, value in around.variables.items() if name in wanted}
        if step.python:
            words = (*around.programs["python"], "-P", str(ENTRY), "../call.json", "../result.json")
            return Command(words, folder=self.files, environment=variables)
        places = places_of(step, references(run, name))
        filled: list[str] = put_places(list(step.run), places, where="run")
        if filled[0] == OWN_PROGRAM:
            variables |= around.own_variables
        words = (*around.programs.get(filled[0], filled[:1]), *filled[1:])
        return Command(words, folder=self.files, environment=variables)

    def left(self, step: Step) -> dict[str, Path]:
        """Return what the step left, by artifact.

        Raises:
            StepFailed: nothing is at a declared place.
        """
        found: dict[str, Path] = {}
        for output in step.outputs.values():
            place = self.files / output.path
            empty = not any(each.is_file() for each in place.rglob("*")) if place.is_dir() else None
            if empty or not place.exists():
                raise StepFailed(
                    f"it left nothing at {output.path!r}, from where {output.artifact!r} is taken"
                )
            found[output.artifact] = place
        return found

    def result(self) -> Any:
        """Return what the step's function returned; `None` for a command.

        Raises:
            StepFailed: it is not small JSON.
        """
        path = self.folder / "result.json"
        if not path.exists():
            return None
        if path.stat().st_size > MAX_RESULT_BYTES:
            raise StepFailed(
                f"it returned more than {MAX_RESULT_BYTES:,} bytes; write them to an output"
            )
        return json.loads(path.read_text(encoding="utf-8"))

    def clear(self) -> None:
        """Remove the files; what the program said stays."""
        shutil.rmtree(self.files, ignore_errors=True)


def project(store: ArtifactStore, run: Run, *, around: Surroundings) -> Path:
    """Return a folder with the files of a run's pipeline, as they were when it began."""
    folder = around.folder / run.id / "project"
    if run.snapshot is not None and not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(Conflict):  # another step of the run was faster
            store.checkout(f"pipeline/{run.pipeline.name}@{run.snapshot}", folder)
    return folder


def references(run: Run, name: str) -> dict[str, str]:
    """Return what the inputs of a step are called, for programs that ask the store themselves."""
    return {local: exact(made) for local, made in run.inputs(name).items()}


def exact(made: Made) -> str:
    """Return a reference that means the same for ever."""
    return f"{made.reference.partition('@')[0]}@{made.digest}"


def outcome(error: RagstoneError) -> StepFailed:
    """Say that what a step left cannot be stored; what the store cannot do is raised as it is."""
    if isinstance(error, InvalidRequest | NotFound):
        return StepFailed(f"what it left cannot be stored: {error.message}")
    raise error


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
