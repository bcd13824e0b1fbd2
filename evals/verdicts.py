"""The verdict on an evaluation: its suite's gates held against its scores, and a baseline's."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from evals import declared, gates
from evals.check import Finding
from evals.evaluation import Described, Evaluation
from evals.gates import WORST_FIRST, Claim, Decision, Verdict
from evals.pseudo_values import pseudo_values
from evals.score_tables import OfSet, ScoreTable
from evals.suite import ALL
from evals.suite_gates import declare, on_slices
from evals.trial import Trial
from infra.errors import IncomparableBaseline

UNGATED = "ungated"
"""Of a suite in which nothing blocks: nothing was promised, so nothing is kept."""
EXIT_CODES: Mapping[str, int] = {
    Verdict.PASS: 0,
    UNGATED: 0,
    Verdict.FAIL: 1,
    Verdict.INCONCLUSIVE: 2,
    Verdict.UNDERPOWERED: 2,
    Verdict.UNSCORED: 3,
    Verdict.INFRASTRUCTURE: 3,
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """What all gates say together."""

    verdict: str
    reason: str
    """Of the verdict, where it is not that of a gate."""
    decisions: tuple[Decision, ...]
    """One for each gate and slice that could be judged."""
    unjudged: tuple[str, ...] = ()
    """Gates that compare, where there is no baseline."""
    baseline: str | None = None
    """The version that was compared with."""
    findings: tuple[Finding, ...] = ()
    """Of the suite's checks."""

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "exit_code": self.exit_code}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Judgement:
        """Return what `as_dict` made, from JSON."""
        return cls(
            value["verdict"],
            value["reason"],
            tuple(Decision.from_dict(each) for each in value["decisions"]),
            tuple(value["unjudged"]),
            value["baseline"],
            tuple(Finding.from_dict(each) for each in value.get("findings", ())),
        )


def judge(
    evaluation: Evaluation,
    baseline: Evaluation | None = None,
    *,
    name: str | None = None,
    findings: Sequence[Finding] = (),
) -> Judgement:
    """Hold an evaluation's gates against it.

    Args:
        evaluation: the candidate's.
        baseline: what gates with a margin compare with.
        name: the baseline's version.
        findings: of the suite's checks.

    Raises:
        IncomparableBaseline: it is of other cases, or of other versions of dataset or metric.
        MissingDependency: the extra `evals` is not installed.
    """
    suite, metrics = evaluation.described.suite, evaluation.described.metrics
    wanted = [(declare(gate, one, suite, metrics), one) for gate, one in on_slices(suite)]
    claims = [
        _claim(each, one, evaluation, baseline=baseline)
        for each, one in wanted
        if baseline is not None or not each.needs_baseline
    ]
    decisions = gates.check(claims, seed=suite.seed) if claims else ()
    unjudged = tuple(
        each.name for each, _ in wanted if baseline is None and each.needs_baseline and each.decides
    )
    verdict, reason = _together(evaluation, decisions, unjudged, findings=findings)
    return Judgement(verdict, reason, decisions, unjudged, name, tuple(findings))


def require_comparable(candidate: Described, baseline: Described) -> None:
    """See, before anything is run, that the gates of one can be held against the other.

    Raises:
        IncomparableBaseline: it is of other cases, or has not the metrics of the same version.
    """
    if baseline.dataset_digest != candidate.dataset_digest:
        raise IncomparableBaseline(
            f"The baseline was run on other cases: {baseline.dataset!r} as it was then, and not "
            f"{candidate.dataset!r} as it is now; run the baseline again on these"
        )
    for gate in candidate.suite.gates:
        ours, theirs = candidate.metrics[gate.metric], baseline.metrics.get(gate.metric)
        compares = gate.margin is not None or gate.gain is not None
        if not compares or (theirs is not None and theirs.identity == ours.identity):
            continue
        was = "not measured" if theirs is None else f"measured by {theirs.identity!r}"
        raise IncomparableBaseline(
            f"{gate.metric!r} was {was} in the baseline, and is {ours.identity!r} now; run the "
            "baseline again with it"
        )


def table(evaluation: Evaluation, metric: str, members: Collection[str]) -> ScoreTable:
    """Return the scores of some cases as columns; of a metric of the set, its pseudo-values."""
    chosen = [trial for trial in evaluation.trials if trial.case.id in members]
    return _columns(evaluation.described, metric, chosen)


def _columns(described: Described, metric: str, trials: Sequence[Trial]) -> ScoreTable:
    by = described.metrics[metric]
    if by.is_of_set:
        rows = pseudo_values(by.of_set(), trials)
        clusters = {
            trial.case.cluster
            for trial, row in zip(trials, rows, strict=True)
            if row.state == "scored"
        }
        low, high = by.bounds
        width = None if low is None or high is None else high - low
        return ScoreTable(
            [row.case for row in rows],
            np.array([row.value for row in rows]),
            [row.state for row in rows],
            [row.group for row in rows],
            dataset=described.dataset_digest,
            metric=by.identity,
            of_set=OfSet(len(clusters), width),
        )
    scores = [trial.scores[metric] for trial in trials]
    return ScoreTable(
        [trial.case.id for trial in trials],
        np.array([score.value or 0.0 for score in scores]),
        [score.state for score in scores],
        [trial.case.cluster for trial in trials],
        # In the order of the dataset, which is fixed before anything is scored.
        list(range(len(trials))),
        dataset=described.dataset_digest,
        metric=by.identity,
        is_pass_or_fail=by.is_pass_or_fail,
    )


def _claim(
    gate: declared.Gate, slice_name: str, evaluation: Evaluation, *, baseline: Evaluation | None
) -> Claim:
    if gate.beside == "original":
        return _claim_of_drop(gate, slice_name, evaluation)
    members = {trial.case.id for trial in evaluation.members(slice_name)}
    mine = table(evaluation, gate.metric, members)
    if baseline is None or not gate.compares:
        return Claim(gate, mine)
    require_comparable(evaluation.described, baseline.described)
    return Claim(gate, mine, table(baseline, gate.metric, members))


def _claim_of_drop(gate: declared.Gate, slice_name: str, evaluation: Evaluation) -> Claim:
    """Hold the copies of cases against the cases; several copies of one count like repeats."""
    copies = [
        replace(trial, case=replace(trial.case, id=trial.case.original))
        for trial in evaluation.members(slice_name)
    ]
    copied = {trial.case.id for trial in copies}
    originals = [trial for trial in evaluation.members(ALL) if trial.case.id in copied]
    described = evaluation.described
    return Claim(
        gate,
        _columns(described, gate.metric, copies),
        _columns(described, gate.metric, originals),
    )


def _together(
    evaluation: Evaluation,
    decisions: Sequence[Decision],
    unjudged: Sequence[str],
    *,
    findings: Sequence[Finding],
) -> tuple[str, str]:
    found = {decision.verdict for decision in decisions if decision.blocks}
    found |= {finding.verdict for finding in findings if finding.blocks}
    if Verdict.FAIL in found:
        return Verdict.FAIL, ""
    suite, total = evaluation.described.suite, len(evaluation.trials)
    if total - evaluation.failures < suite.min_coverage * total:
        return Verdict.INFRASTRUCTURE, (
            f"{evaluation.failures} of {total} trials have no output; "
            f"{suite.min_coverage:.1%} must have one"
        )
    for verdict in WORST_FIRST:
        if verdict in found:
            return verdict, ""
    if unjudged:
        return Verdict.INCONCLUSIVE, f"no baseline to compare with, for {', '.join(unjudged)}"
    decides = any(gate.action == "block" for gate in suite.gates)
    if decides or any(finding.decides for finding in findings):
        return Verdict.PASS, ""
    return UNGATED, "the suite has no gate or check that blocks"
