"""Evaluations: what the runner adds to a case, gates and reports of 10,000, beside two peers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import environments, eval_runs, processes
from benchmarks.options import Options
from benchmarks.processes import PeerFailed, PeerProcess
from benchmarks.table import Bar, Row, Spread

PEERS = ("deepeval", "ragas")
BESIDE, MANY = 1_000, 10_000
QUICK_BESIDE, QUICK_MANY = 40, 120
ROUNDS = 3
MOST_MILLISECONDS = 2.0
"""Of wall time, that the runner may add to a case."""
MOST_SECONDS = 10.0
"""For reading what was kept of `MANY` cases and writing all three reports of it."""
Sample = dict[str, float]


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of a run, from what it took."""

    name: str
    unit: str = ""
    bar: Bar | None = None

    def of(self, sample: Sample, cases: int) -> float:
        match self.name:
            case "cases per second":
                return cases / sample["seconds"]
            case "added to a case":
                return sample["seconds"] / cases * 1e3
            case "processor time of a case":
                return sample["processor"] / cases * 1e3
        return sample["mib"]


FIGURES = (
    Figure("cases per second"),
    Figure("added to a case", "ms", Bar(MOST_MILLISECONDS, at_least=False)),
    Figure("processor time of a case", "ms"),
    Figure("peak memory", "MiB"),
)


def run(options: Options) -> list[Row]:
    """Evaluate a target that takes no time by exact match, ourselves and the peers in turn."""
    beside, many = (QUICK_BESIDE, QUICK_MANY) if options.quick else (BESIDE, MANY)
    return [*_beside(options, beside), *_alone(options, many)]


def _beside(options: Options, cases: int) -> Iterator[Row]:
    """Rounds take turns, so that a slow minute of the machine is shared."""
    file = eval_runs.write_cases(options.folder / "beside", cases)
    samples: dict[str, list[Sample]] = {"": []}
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        peers = _started(options, stack, failed)
        for number in range(_rounds(options)):
            options.say(f"{cases:,} cases, round {number + 1}")
            samples[""].append(_ours("null", file.parent))
            for name, peer in peers.items():
                if name not in failed:
                    try:
                        samples.setdefault(name, []).append(_asked(peer, file, cases))
                    except PeerFailed as error:
                        failed[name] = error.message
    for figure in FIGURES:
        ours = _spread(figure, samples[""], cases)
        for name in PEERS:
            yield Row(
                f"{cases:,} cases: {figure.name}",
                ours,
                _spread(figure, samples[name], cases) if samples.get(name) else None,
                name,
                unit=figure.unit,
                note=failed.get(name, ""),
                bar=None if options.quick else figure.bar,
            )


def _alone(options: Options, cases: int) -> Iterator[Row]:
    """More cases, then with passages, five metrics, slices, gates beside a baseline, reports."""
    folder = eval_runs.write_cases(options.folder / "many", cases).parent
    rounds = range(_rounds(options))
    options.say(f"{cases:,} cases, alone")
    samples = [_ours("null", folder) for _ in rounds]
    for figure in FIGURES:
        bar = None if options.quick else figure.bar
        yield Row(
            f"{cases:,} cases: {figure.name}",
            _spread(figure, samples, cases),
            unit=figure.unit,
            bar=bar,
        )
    options.say(f"{cases:,} cases with passages, gates and reports")
    runs = [eval_runs.measure("run", "full", folder) for _ in rounds]
    reports = [eval_runs.measure("report", "full", folder) for _ in rounds]
    note = f"{eval_runs.PASSAGES} passages, {len(eval_runs.FULL['metrics'])} metrics"
    for step, words in (
        ("plan", "read the cases"),
        ("run", note),
        ("judge", "gates"),
        ("keep", ""),
    ):
        yield from _step_rows(f"{cases:,} cases, {step}", [each[step] for each in runs], note=words)
    yield Row(f"{cases:,} cases, run to kept: peak memory", _memory(runs), unit="MiB")
    whole = [
        {
            key: sum(each[step][key] for step in ("read", "page", "junit", "markdown"))
            for key in ("seconds", "processor")
        }
        for each in reports
    ]
    bar = None if options.quick else Bar(MOST_SECONDS, at_least=False)
    yield from _step_rows(f"report of {cases:,} cases", whole, bar=bar)
    page = [each["page"] for each in reports]
    yield from _step_rows(f"report of {cases:,} cases, the page alone", page)
    yield Row(f"report of {cases:,} cases: peak memory", _memory(reports), unit="MiB")


def _step_rows(
    metric: str, samples: list[Sample], *, note: str = "", bar: Bar | None = None
) -> Iterator[Row]:
    for key, words in (("seconds", "time"), ("processor", "processor time")):
        spread = Spread(tuple(each[key] for each in samples))
        yield Row(
            f"{metric}: {words}",
            spread,
            unit="s",
            note=note if key == "seconds" else "",
            bar=bar if key == "seconds" else None,
        )


def _started(options: Options, stack: ExitStack, failed: dict[str, str]) -> dict[str, PeerProcess]:
    found = {}
    for name in PEERS:
        python = processes.find(name, options) if options.peers else None
        if python is None:
            failed[name] = environments.NOT_INSTALLED if options.peers else "left out"
        else:
            found[name] = stack.enter_context(processes.running(name, python, options))
    return found


def _asked(peer: PeerProcess, file: Path, cases: int) -> Sample:
    """Have a peer evaluate; what it found is seen to be what we found."""
    answer: dict[str, Any] = peer.ask({"file": str(file), "answer": eval_runs.ANSWER})
    if answer["right"] != (cases + 1) // 2:
        raise PeerFailed(f"{peer.name} found {answer['right']} of {cases} cases right")
    return answer


def _ours(suite: str, folder: Path) -> Sample:
    found = eval_runs.measure("run", suite, folder)
    return {**found["run"], "mib": found["mib"]}


def _spread(figure: Figure, samples: list[Sample], cases: int) -> Spread:
    return Spread(tuple(figure.of(each, cases) for each in samples))


def _memory(samples: list[dict[str, Any]]) -> Spread:
    return Spread(tuple(each["mib"] for each in samples))


def _rounds(options: Options) -> int:
    return 1 if options.quick else min(options.repeats, ROUNDS)
