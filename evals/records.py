"""An evaluation as files: what is the same in every run apart from what is measured anew."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import orjson

from evals.evaluation import Described, Evaluation, MeasuredBy
from evals.scores import Score
from evals.suite import Suite
from evals.trial import Case, Output, Trial
from infra.errors import StorageFailed

FORMAT = 1
DESCRIPTION = "evaluation.json"
TRIALS = "trials.jsonl"
SUMMARY = "summary.json"
MEASURED = "measured.jsonl"
"""Latencies, and scores made of them: no two runs have the same."""
VERDICT = "verdict.json"
SAME = (DESCRIPTION, TRIALS, SUMMARY)
"""Files that two runs of the same have the same bytes of, where the target answers the same."""

_SORTED = orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE


def write(evaluation: Evaluation, verdict: Mapping[str, Any], folder: Path) -> None:
    """Write the files of an evaluation into an empty folder."""
    described = evaluation.described
    measured = {name for name, by in described.metrics.items() if by.is_measured}
    description = {
        "format": FORMAT,
        "suite": described.suite.model_dump(mode="json", by_alias=True),
        "suite_digest": described.suite_digest,
        "dataset": described.dataset,
        "dataset_digest": described.dataset_digest,
        "copies_digest": described.copies_digest,
        "target": dict(described.target),
        "metrics": {name: asdict(by) for name, by in described.metrics.items()},
        "digest": described.digest,
    }
    _write_json(folder / DESCRIPTION, description)
    _write_lines(
        folder / TRIALS,
        ({"case": asdict(each.case), **_stable(each, measured)} for each in evaluation.trials),
    )
    _write_json(folder / SUMMARY, {"metrics": evaluation.summary(measured=False)})
    _write_lines(folder / MEASURED, (_measured(each, measured) for each in evaluation.trials))
    _write_json(folder / VERDICT, {**verdict, "measured": evaluation.summary(measured=True)})


def read(folder: Path) -> tuple[Evaluation, dict[str, Any]]:
    """Return an evaluation and its verdict.

    Raises:
        StorageFailed: the files were written by a later release, or are damaged.
    """
    try:
        description = orjson.loads((folder / DESCRIPTION).read_bytes())
        if description["format"] != FORMAT:
            raise StorageFailed(
                f"The evaluation has format {description['format']!r}; this is for {FORMAT}"
            )
        suite = Suite.model_validate(description["suite"])
        described = Described(
            suite,
            description["suite_digest"],
            description["dataset"],
            description["dataset_digest"],
            description["target"],
            {use.name: _by(description["metrics"][use.name]) for use in suite.metrics},
            description.get("copies_digest", ""),  # earlier releases wrote none
        )
        lines = zip(_lines(folder / TRIALS), _lines(folder / MEASURED), strict=True)
        trials = tuple(restore(_case(row["case"]), {**row, "measured": own}) for row, own in lines)
        verdict: dict[str, Any] = orjson.loads((folder / VERDICT).read_bytes())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageFailed(f"An evaluation cannot be read: {error}; verify it") from error
    return Evaluation(described, trials), verdict


def pack(trial: Trial) -> dict[str, Any]:
    """Return a trial without its case, as a journal keeps it."""
    return {**_stable(trial, set()), "measured": _measured(trial, set())}


def restore(case: Case, row: Mapping[str, Any]) -> Trial:
    """Return the trial that `pack`, or a line of each of the files, was made of."""
    own = row["measured"]
    output = None if row["output"] is None else Output.from_dict(row["output"])
    if output is not None:
        output = replace(output, latency_seconds=own["latency_seconds"])
    scores = {**row["scores"], **own["scores"]}
    return Trial(
        case,
        row["repeat"],
        output,
        {name: Score.from_dict(each) for name, each in sorted(scores.items())},
        row["failure"],
        own["attempts"],
    )


def _stable(trial: Trial, measured: set[str]) -> dict[str, Any]:
    return {
        "repeat": trial.repeat,
        "output": None if trial.output is None else trial.output.as_dict(),
        "scores": {
            name: score.as_dict() for name, score in trial.scores.items() if name not in measured
        },
        "failure": trial.failure,
    }


def _measured(trial: Trial, measured: set[str]) -> dict[str, Any]:
    return {
        "latency_seconds": None if trial.output is None else trial.output.latency_seconds,
        "attempts": trial.attempts,
        "scores": {
            name: score.as_dict() for name, score in trial.scores.items() if name in measured
        },
    }


def _by(row: Mapping[str, Any]) -> MeasuredBy:
    low, high = row["bounds"]
    return MeasuredBy(**{**row, "bounds": (low, high)})


def _case(row: Mapping[str, Any]) -> Case:
    return Case(**{**row, "slices": tuple(row["slices"])})


def _write_json(path: Path, value: Any) -> None:
    path.write_bytes(orjson.dumps(value, option=_SORTED | orjson.OPT_INDENT_2, default=str))


def _write_lines(path: Path, rows: Iterable[Any]) -> None:
    with path.open("wb") as file:
        for row in rows:
            file.write(orjson.dumps(row, option=_SORTED, default=str))


def _lines(path: Path) -> list[Any]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]
