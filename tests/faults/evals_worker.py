"""Runs an evaluation until it is done or killed; notes every question and every call of a judge."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from evals import records, run
from evals.context import Context
from evals.memory import Memory
from evals.metric import Parameters
from evals.run import Options
from evals.scores import Score
from evals.suite import Suite
from evals.trial import Case, Output
from scripted_evals import Scripted

SECONDS = 0.02
"""An evaluation takes some seconds: the test has time to see how far it is, and to kill it."""
FOLDER = Path(sys.argv[1])


def note(name: str, case: str) -> None:
    """One write, so that it is whole or absent."""
    file = os.open(FOLDER / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(file, f"{case}\n".encode())
    os.close(file)


class Judged(Parameters):
    async def score(self, case: Case, output: Output, context: Context) -> Score:
        async def judge() -> float:
            note("judged", case.id)
            await asyncio.sleep(SECONDS)
            return len(output.text) / 100

        return Score.of(await context.memory.recall({"text": output.text}, judge))


build = Judged.model_validate


async def answer(case: Case, seed: int) -> Output:
    note("asked", case.id)
    await asyncio.sleep(SECONDS)
    return Output(f"{case.question} {seed}")


def _no_store() -> Any:
    raise AssertionError("no dataset of the store is needed")


def main() -> None:
    suite = Suite.model_validate(
        {
            "name": "numbers",
            "dataset": {"file": "cases.jsonl"},
            "target": {"kind": "constant"},
            "metrics": ["evals_worker.build"],
            "seed": 5,
        }
    )
    target = Scripted(answer)
    plan = run.plan(suite, folder=FOLDER, target=target, datasets=_no_store)
    context = Context(memory=Memory(FOLDER / "calls"))
    options = Options(FOLDER / "journals", resume=True, context=context)
    evaluation = asyncio.run(run.run(plan, options))
    results = FOLDER / "results"
    results.mkdir()
    records.write(evaluation, {"verdict": "pass"}, results)
    run.finish(plan, evaluation, options.folder)


if __name__ == "__main__":
    main()
