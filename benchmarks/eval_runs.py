"""One suite in a process of its own, so that its memory can be told: `run` and `report`."""

from __future__ import annotations

import asyncio
import json
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, PeerFailed

ANSWER = "Employees have 28 days of paid leave a year."
OTHER = "The handbook does not say."
PASSAGES, PASSAGE_CHARACTERS = 3, 600
SLICES = 4
NULL: dict[str, Any] = {
    "name": "null",
    "dataset": {"file": "cases.jsonl"},
    "target": {"kind": "constant", "text": ANSWER},
    "metrics": ["exact_match"],
}
"""What is left of a run if neither the target nor the metric takes any time."""
FULL: dict[str, Any] = {
    **NULL,
    "name": "full",
    "target": {"kind": "recorded", "file": "outputs.jsonl"},
    "metrics": ["exact_match", "token_f1", "contains", "retrieval_recall", "latency"],
    "slices": [{"name": f"part{n}", "where": {"part": n}, "protected": n == 0} for n in range(4)],
    "gates": [
        {"metric": "exact_match", "margin": 0.03},
        {"metric": "token_f1", "margin": 0.03},
        {"metric": "contains", "floor": 0.4},
    ],
}


@dataclass(frozen=True, slots=True)
class Spent:
    """What a step took."""

    seconds: float
    processor: float
    """Seconds of processor time, of all threads."""


def write_cases(folder: Path, count: int) -> Path:
    """Write cases, every second of which the null target is right on, and outputs for them.

    Returns:
        The cases, as JSON Lines.
    """
    folder.mkdir(parents=True)
    rng = random.Random(count)
    words = f"{ANSWER} {OTHER}".split()
    with (folder / "cases.jsonl").open("w") as cases, (folder / "outputs.jsonl").open("w") as said:
        for number in range(count):
            case = {
                "id": f"q{number}",
                "question": f"How many days of leave are there in year {number}?",
                "answer": OTHER if number % 2 else ANSWER,
                "relevant": f"file-{number % 7}.md",
                "part": number % SLICES,
            }
            passages = [_passage(place, number, words, rng) for place in range(PASSAGES)]
            text = OTHER if rng.random() < 0.5 else ANSWER
            output = {"id": case["id"], "text": text, "passages": passages}
            cases.write(json.dumps(case) + "\n")
            said.write(json.dumps(output) + "\n")
    return folder / "cases.jsonl"


def measure(what: str, suite: str, folder: Path) -> dict[str, Any]:
    """Do a step, `run` or `report`, with the suite of that name over the cases of a folder.

    Returns:
        `Spent` as mappings by step, with `mib`, the most memory that the process had.

    Raises:
        PeerFailed: it ended with an error.
    """
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.eval_runs", what, suite, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    if done.returncode:
        raise PeerFailed(f"{what} of {folder} failed: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def carry_out(suite_name: str, folder: Path) -> dict[str, Any]:
    """Plan, run, judge beside itself and keep, as `ragstone eval run` does."""
    from evals import records, run
    from evals.suite import Suite
    from evals.target import open_target
    from evals.verdicts import judge

    suite = Suite.model_validate({"null": NULL, "full": FULL}[suite_name])
    steps: dict[str, Spent] = {}
    with _timed(steps, "plan"):
        target = open_target(suite.target, folder=folder)
        plan = run.plan(suite, folder=folder, target=target, datasets=_no_store)
    with _timed(steps, "run"):
        evaluation = asyncio.run(run.run(plan, run.Options(folder / "journals")))
    with _timed(steps, "judge"):
        judgement = judge(evaluation, evaluation, name="itself")
    kept = folder / f"kept-{suite_name}"
    kept.mkdir(exist_ok=True)
    with _timed(steps, "keep"):
        records.write(evaluation, judgement.as_dict(), kept)
    return _told(steps)


def report(suite_name: str, folder: Path) -> dict[str, Any]:
    """Read what was kept and write page, JUnit XML and Markdown, as `ragstone eval report` does."""
    from evals import records
    from evals.reports import junit, markdown, page
    from evals.verdicts import Judgement

    steps: dict[str, Spent] = {}
    with _timed(steps, "read"):
        evaluation, verdict = records.read(folder / f"kept-{suite_name}")
    judgement = Judgement.from_dict(verdict)
    forms: dict[str, Callable[[], bytes]] = {
        "page": lambda: page.write(evaluation, judgement, name="full@v1", cases=25),
        "junit": lambda: junit.write(evaluation, judgement),
        "markdown": lambda: markdown.write(evaluation, judgement, name="full@v1").encode(),
    }
    for name, write in forms.items():
        with _timed(steps, name):
            (folder / name).write_bytes(write())
    return _told(steps)


def _passage(place: int, number: int, words: list[str], rng: random.Random) -> dict[str, Any]:
    text = " ".join(rng.choices(words, k=PASSAGE_CHARACTERS // 6))[:PASSAGE_CHARACTERS]
    return {
        "chunk_id": place,
        "document_id": f"file-{place}",
        "document_version": 1,
        "collection": "handbook",
        "source": f"file-{(number + place) % 7}.md",
        "title": "",
        "start_char": 0,
        "end_char": len(text),
        "text": text,
        "score": 1 / (place + 1),
    }


@contextmanager
def _timed(steps: dict[str, Spent], name: str) -> Iterator[None]:
    wall, processor = time.perf_counter(), time.process_time()
    yield
    steps[name] = Spent(time.perf_counter() - wall, time.process_time() - processor)


def _told(steps: dict[str, Spent]) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: {"seconds": spent.seconds, "processor": spent.processor}
        for name, spent in steps.items()
    }
    return {**found, "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def _no_store() -> Any:
    raise LookupError("the cases are in a file")


if __name__ == "__main__":
    step = {"run": carry_out, "report": report}[sys.argv[1]]
    sys.stdout.write(json.dumps(step(sys.argv[2], Path(sys.argv[3]))))
