"""Holds a judge against people: it rates what they have labelled, and its card says how it did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from evals import run
from evals.cases import Rows
from evals.evaluation import Evaluation
from evals.judges import labels
from evals.judges.card import Card
from evals.judges.rubric import Rubric
from evals.judges.sources import Sources
from evals.metrics._by_rubric import ByRubric, opened
from evals.run import Plan
from evals.scores import Score
from evals.statistics.agreement import Weights, cohen
from evals.suite import Suite
from evals.trial import Output
from infra.errors import InvalidRequest

NAME = "judge"
SCORE_SECONDS = 600.0
_SAID = {"level", "orders"}
"""Details of a score that only an answer of the judge has."""
METRICS = {"score": "judge_rubric", "preference": "judge_pairwise"}


def plan(
    source: str,
    parameters: dict[str, Any],
    *,
    sources: Sources,
    datasets: Callable[[], Rows],
    concurrency: int = 4,
) -> Plan:
    """Read what people have labelled and open the judge; it is not asked yet.

    Args:
        source: a file, relative to the folder of `sources`, or `dataset/NAME@v1`.
        parameters: of the metric: `rubric`, `model` and the others.
        sources: where rubrics come from.
        datasets: opens the artifact store, where it is needed.
        concurrency: outputs that are judged at a time.

    Raises:
        NotFound: there is no such file, dataset or rubric.
        InvalidRequest: a row lacks its output, or has a label that the rubric has not.
    """
    settled = sources.settle(parameters)
    rubric: Rubric = opened(settled["rubric"])
    settled["rubric"] = rubric
    if rubric.kind == "preference":
        settled["against"] = "baseline"
    # A rubric that was read is no YAML: the suite names the metric, and gets it when it is built.
    suite = Suite.model_validate(
        {
            "name": "labels",
            "dataset": {"artifact" if source.startswith("dataset/") else "file": source},
            "target": {"kind": "constant"},
            "metrics": [{"metric": METRICS[rubric.kind], "name": NAME}],
            "concurrency": concurrency,
            "timeout_seconds": SCORE_SECONDS,
        }
    )
    found = run.plan(
        suite,
        folder=sources.folder,
        target=labels.Labelled(),
        datasets=datasets,
        settle=lambda _: settled,
    )
    for case in found.cases.cases:
        labels.require(case, rubric)
    return found


def others(plan: Plan) -> dict[str, Output]:
    """Return what each output is compared with, where the judge compares."""
    if _metric(plan).kind == "score":
        return {}
    return {case.id: labels.other(case) for case in plan.cases.cases}


def card(plan: Plan, evaluation: Evaluation) -> Card:
    """Return what a run of the plan says of the judge.

    An output that is scored without asking it, such as a refusal, says nothing of the judge. On a
    scale a disagreement counts by the square of its distance.

    Raises:
        InvalidRequest: nothing was rated, or every label is the same.
    """
    metric = _metric(plan)
    rubric = metric.rubric
    scores = {
        trial.case.id: trial.scores[NAME]
        for trial in evaluation.trials
        if _is_the_judges(trial.scores[NAME])
    }
    rated = [
        (labels.label(case, rubric), labels.said(scores[case.id], rubric))
        for case in plan.cases.cases
        if case.id in scores and scores[case.id].state == "scored"
    ]
    if not scores:
        raise InvalidRequest(
            f"The judge was asked of none of {len(evaluation.trials)} outputs: all are refusals, "
            "empty or the same as what they are compared with; label outputs that need a judge"
        )
    if not rated:
        reason = next(iter(scores.values())).reason
        raise InvalidRequest(f"The judge rated none of {len(scores)} outputs: {reason}")
    weights: Weights = "quadratic" if rubric.kind == "score" else "none"
    people, judge = zip(*rated, strict=True)
    return Card(
        metric.instrument,
        cohen(people, judge, weights=weights, scale=labels.scale(rubric)),
        weights,
        planned=len(scores),
        labels=plan.cases.digest,
        confusion=tuple((*pair, count) for pair, count in sorted(Counter(rated).items())),
        position_inconsistency=_inconsistency(list(scores.values())),
        unrated=Counter(each.state for each in scores.values() if each.state != "scored"),
    )


def rows(plan: Plan, evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return each label beside what the judge said, for people who look for what is wrong."""
    rubric = _metric(plan).rubric
    found = []
    for trial in evaluation.trials:
        score = trial.scores[NAME]
        is_rated = score.state == "scored" and _is_the_judges(score)
        found.append(
            {
                "id": trial.case.id,
                "label": labels.label(trial.case, rubric),
                "judge": labels.said(score, rubric) if is_rated else None,
                **score.as_dict(),
            }
        )
    return found


def file_of(source: str, folder: Path) -> tuple[Path, str]:
    """Return the folder that a source is relative to, and what it is called there."""
    if source.startswith("dataset/"):
        return folder, source
    path = folder / source
    return path.parent, path.name


def _is_the_judges(score: Score) -> bool:
    """Whether a score is what the judge said, or should have said and did not."""
    return score.state != "scored" or not score.details.keys().isdisjoint(_SAID)


def _metric(plan: Plan) -> ByRubric:
    metric = plan.metrics[NAME]
    assert isinstance(metric, ByRubric)
    return metric


def _inconsistency(scores: list[Score]) -> float | None:
    found = [score.details["inconsistent"] for score in scores if "inconsistent" in score.details]
    return sum(found) / len(found) if found else None
