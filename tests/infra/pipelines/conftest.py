"""A folder with a small pipeline, and what runs it: a store, programs, a database of each kind."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from infra.artifacts.folder import Folder
from infra.artifacts.store import ArtifactStore
from infra.database.engine import Database
from infra.pipelines.definition import Pipeline, load
from infra.pipelines.execution import Executor
from infra.pipelines.foreground import run_here
from infra.pipelines.planning import Forecast, Planner
from infra.pipelines.records import Run
from infra.pipelines.runs import Runs
from infra.pipelines.workplace import Surroundings
from migrated import open_migrated

PIPELINE = """
pipeline: faq
params: {minimum: 2}
steps:
  raw:
    run: cp inputs/source/faq.txt outputs/raw
    inputs: {source: ./faq.txt}
    outputs: {raw: dataset/raw}
  clean:
    python: steps:clean
    with: {minimum: "${params.minimum}"}
    inputs: {raw: dataset/raw}
    outputs: {clean: dataset/clean}
  count:
    python: counting:count
    inputs: {clean: dataset/clean}
    outputs: {count: report/count}
  upper:
    run: python upper.py ${inputs.clean}/faq.txt ${outputs.upper}/faq.txt
    inputs: {clean: dataset/clean}
    outputs: {upper: dataset/upper}
"""
STEPS = """
from wording import words


def clean(raw, clean, minimum):
    lines = (raw / "faq.txt").read_text().splitlines()
    kept = [line for line in lines if len(words(line)) >= minimum]
    (clean / "faq.txt").write_text("\\n".join(kept))
    return {"kept": len(kept)}
"""
WORDING = """
def words(line):
    return line.split()
"""
COUNTING = """
def count(clean, count):
    (count / "count.txt").write_text(str(len((clean / "faq.txt").read_text().splitlines())))
"""
UPPER = """
import pathlib, sys
pathlib.Path(sys.argv[2]).write_text(pathlib.Path(sys.argv[1]).read_text().upper())
"""


@dataclass
class Bench:
    """One project folder and one store."""

    root: Path
    database: Database
    store: ArtifactStore
    variables: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    @property
    def runs(self) -> Runs:
        return Runs(self.database)

    @property
    def around(self) -> Surroundings:
        return Surroundings(
            folder=self.root.parent / "work",
            programs={"python": (sys.executable,)},
            variables=self.variables,
        )

    @property
    def executor(self) -> Executor:
        return Executor(self.store, self.runs, self.around)

    @property
    def planner(self) -> Planner:
        return Planner(self.store, self.runs, self.variables, self.around.folder)

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def load(self, given: Mapping[str, str] | None = None) -> Pipeline:
        return load(self.root / "pipeline.yaml", given)

    def start(self, given: Mapping[str, str] | None = None, **options: object) -> Run:
        only = options.pop("only", ())
        plan = self.planner.plan(self.load(given), self.root, only=only)  # type: ignore[arg-type]
        return self.planner.start(plan, **{"mode": "foreground", **options})  # type: ignore[arg-type]

    def run(self, given: Mapping[str, str] | None = None, **options: object) -> Run:
        return run_here(self.executor, self.start(given, **options).id)

    def states(self, given: Mapping[str, str] | None = None, **options: object) -> dict[str, str]:
        run = self.run(given, **options)
        return {name: step.state for name, step in run.steps.items()}

    def forecast(self, given: Mapping[str, str] | None = None) -> dict[str, Forecast]:
        plan = self.planner.plan(self.load(given), self.root)
        return {each.step: each for each in self.planner.forecast(plan)}

    def versions(self, name: str) -> list[str]:
        return [str(each.reference) for each in self.store.versions(name)]

    def read(self, reference: str, path: str) -> str:
        with self.store.open(reference, path) as file:
            return file.read().decode()


@pytest.fixture
def make_bench(tmp_path: Path) -> Callable[[Database], Bench]:
    def make(database: Database) -> Bench:
        root = tmp_path / "project"
        root.mkdir()
        bench = Bench(root, database, ArtifactStore(Folder(tmp_path / "store"), database))
        bench.write("pipeline.yaml", PIPELINE)
        bench.write("steps.py", STEPS)
        bench.write("wording.py", WORDING)
        bench.write("counting.py", COUNTING)
        bench.write("upper.py", UPPER)
        bench.write("faq.txt", "one\ntwo words\nthree more words\n")
        return bench

    return make


@pytest.fixture
def bench(tmp_path: Path, make_bench: Callable[[Database], Bench]) -> Bench:
    """A project on SQLite, for what does not depend on the database."""
    return make_bench(open_migrated(tmp_path / "bench.db"))


@pytest.fixture
def either_bench(database: Database, make_bench: Callable[[Database], Bench]) -> Bench:
    """The same project, once on each kind of database."""
    return make_bench(database)
