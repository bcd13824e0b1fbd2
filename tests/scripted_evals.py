"""Suites, targets and metrics that tests of evaluations are made of."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import orjson

from evals import check, perturbation, run
from evals.context import Context
from evals.evaluation import Evaluation
from evals.gates import Verdict
from evals.metric import Parameters
from evals.run import Options, Plan
from evals.scores import Score
from evals.suite import Suite
from evals.target import Target
from evals.trial import Case, Output, Trial
from infra.errors import EngineFailed

ROWS = [
    {"id": f"q{number}", "question": f"What is {number}?", "answer": f"It is {number}."}
    for number in range(12)
]
SUITE: Mapping[str, Any] = {
    "name": "numbers",
    "dataset": {"file": "cases.jsonl"},
    "target": {"kind": "constant", "text": "It is 3."},
    "metrics": ["exact_match", "latency"],
}


def suite(**changes: Any) -> Suite:
    return Suite.model_validate({**SUITE, **changes})


def write_rows(folder: Path, rows: Sequence[Mapping[str, Any]] = ROWS) -> Path:
    path = folder / "cases.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


@dataclass
class Scripted:
    """A target that does as a test says, and remembers what it was asked."""

    reply: Callable[[Case, int], Awaitable[Output] | Output]
    identity: Mapping[str, Any] = field(default_factory=lambda: {"kind": "scripted"})
    parents: Sequence[tuple[str, str]] = ()
    asked: list[str] = field(default_factory=list)

    async def __call__(self, case: Case, *, seed: int) -> Output:
        self.asked.append(case.id)
        said = self.reply(case, seed)
        return said if isinstance(said, Output) else await said

    async def close(self) -> None:
        pass


def right(case: Case, seed: int) -> Output:
    return Output(str(case.expected))


def make_plan(
    folder: Path, target: Target, *, embedder: Callable[[], str] = str, **changes: Any
) -> Plan:
    """Plan the suite of `changes` over the rows of `folder`."""
    if not (folder / "cases.jsonl").exists():
        write_rows(folder)
    chosen = suite(**changes)
    return run.plan(chosen, folder=folder, target=target, datasets=_none, embedder=embedder)


def carry_out(plan: Plan, folder: Path, **options: Any) -> Evaluation:
    return asyncio.run(run.run(plan, Options(folder / "journals", **options)))


def _none() -> Any:
    raise AssertionError("no dataset of the store is needed")


class Broken(Parameters):
    """A metric that fails as its parameter says."""

    how: str = "raises"

    async def score(self, case: Case, output: Output, context: Context) -> Any:
        del output, context
        match self.how:
            case "raises":
                return Score.of(1 / (len(case.id) - len(case.id)))
            case "nan":
                return Score.of(float("nan"))
            case "beyond":
                return Score.of(1.5)
            case "number":
                return 0.5
            case "unwritable":
                return Score.of(1.0, "\udc80")
            case "hangs":
                await asyncio.sleep(60)
        return None


class Judged(Parameters):
    """A metric that asks a judge, who counts how often, and whose server may be down."""

    calls: ClassVar[list[str]] = []
    down: ClassVar[set[str]] = set()
    """Cases that it has no answer to."""

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        async def judge() -> float:
            self.calls.append(case.id)
            if case.id in self.down:
                raise EngineFailed("The judge answered 429: slow down")
            await asyncio.sleep(0)
            return 1.0 if output.text == case.expected else 0.0

        key = {"judge": "strict", "text": output.text, "reference": case.expected}
        return Score.of(await context.memory.recall(key, judge))


class QuickF1(Parameters):
    """Macro F1 by counting, many times faster than scikit-learn's on small sets."""

    def takes_part(self, trial: Trial) -> bool:
        return trial.output is not None and trial.output.prediction is not None

    def score_set(self, trials: Sequence[Trial]) -> Score:
        pairs = Counter(
            (trial.case.expected, trial.output.prediction) for trial in trials if trial.output
        )
        labels = {label for pair in pairs for label in pair}
        found = []
        for label in labels:
            wanted = sum(count for (left, _), count in pairs.items() if left == label)
            given = sum(count for (_, right), count in pairs.items() if right == label)
            found.append(2 * pairs[label, label] / (wanted + given))
        return Score.of(sum(found) / len(found)) if found else Score.unscored("no trials")


class BrokenSet(Parameters):
    """A metric of the set that fails as its parameter says."""

    how: str = "raises"

    def takes_part(self, trial: Trial) -> bool:
        if self.how == "predicate":
            raise LookupError(trial.case.id)
        return True

    def score_set(self, trials: Sequence[Trial]) -> Any:
        match self.how:
            case "raises":
                return Score.of(1 / (len(trials) - len(trials)))
            case "nan":
                return Score.of(float("nan"))
            case "beyond":
                return Score.of(1.5)
        return 0.5


class Unfinished(check.Parameters):
    """A check that forgets to return."""

    def check(self, subject: check.Subject) -> None:
        del subject


class Leaving(check.Parameters):
    """A check whose code ends the program."""

    def check(self, subject: check.Subject) -> check.Finding:
        del subject
        raise SystemExit("no GPU")


may_end = threading.Event()


class Slow(check.Parameters):
    """A check that passes once it may end."""

    def check(self, subject: check.Subject) -> check.Finding:
        del subject
        may_end.wait(60)
        return check.Finding(Verdict.PASS, "it came in the end")


class Shouting(perturbation.Parameters):
    """A perturbation that says in large letters what it is given."""

    version: ClassVar[int] = 1

    def perturb(
        self, case: Case, draw: random.Random, around: perturbation.Surroundings
    ) -> perturbation.Perturbed:
        del draw, around
        return perturbation.Changed(case.question.upper())


broken = Broken.model_validate
broken_set = BrokenSet.model_validate
judged = Judged.model_validate
leaving = Leaving.model_validate
quick_f1 = QuickF1.model_validate
shouting = Shouting.model_validate
slow = Slow.model_validate
unfinished = Unfinished.model_validate
