"""Gates: declared thresholds held against scores; of all verdicts, only pass is pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from evals.declared import Gate
from evals.evidence import Evidence, Method, weigh
from evals.planning import needed_cases
from evals.score_tables import Sample, ScoreTable, paired, single
from evals.statistics.intervals import Interval
from evals.statistics.multiplicity import benjamini_hochberg, holm
from evals.statistics.power import design_effect, intraclass
from evals.statistics.sign_flip import sign_flip
from infra.errors import InvalidRequest

_DRAWS = 20_000_000
_FEWEST_RESAMPLES = 1_999


class Verdict(StrEnum):
    PASS = "pass"
    """The threshold is met, surely."""
    FAIL = "fail"
    """The threshold is missed, surely."""
    INCONCLUSIVE = "inconclusive"
    """Neither is sure, though there are as many cases as were thought to be enough."""
    UNDERPOWERED = "underpowered"
    """Neither is sure, and there are too few cases."""
    INFRASTRUCTURE = "infrastructure"
    """Too much was not scored to say anything."""
    UNSCORED = "unscored"
    """There was nothing to score: no case is in the slice."""


WORST_FIRST = (
    Verdict.FAIL,
    Verdict.INFRASTRUCTURE,
    Verdict.UNSCORED,
    Verdict.UNDERPOWERED,
    Verdict.INCONCLUSIVE,
)
"""Which verdict stands for several, of those that are no pass."""


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """A gate and the scores that it is held against."""

    gate: Gate
    candidate: ScoreTable
    baseline: ScoreTable | None = None
    """What the candidate is compared with; gates with a floor or ceiling need none."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A verdict with every number that led to it."""

    gate: Gate
    verdict: Verdict
    reason: str
    threshold: float
    """That the mean, or the mean difference, is compared with."""
    alpha: float
    """That the adjusted p-values are compared with."""
    planned: int
    """Cases."""
    cases: int
    """Cases that were scored; in both runs, if two."""
    clusters: int
    repeats: int
    coverage: float
    needed: int | None
    """Cases that the gate needs for its power; None where nothing tells their spread."""
    design_effect: float
    method: Method | None = None
    interval: Interval | None = None
    """The estimate between the two one-sided bounds at the gate's alpha, of this gate alone."""
    p_met: float | None = None
    """Of 'the threshold is not met'."""
    p_missed: float | None = None
    """Of 'the threshold is met'."""
    adjusted_met: float | None = None
    adjusted_missed: float | None = None
    """For all gates that were checked with this one."""
    sign_flip: float | None = None
    """Two-sided p-value of 'nothing changed' by permutation, as a check by other means."""

    @property
    def blocks(self) -> bool:
        """Whether this verdict stands in the way of going live; the others warn."""
        return self.gate.decides and self.verdict is not Verdict.PASS

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Decision:
        """Return a decision from JSON values, as a stored verdict has them."""
        bounds, interval = value["gate"]["bounds"], value["interval"]
        return cls(
            **{
                **value,
                "gate": Gate(**{**value["gate"], "bounds": bounds and (bounds[0], bounds[1])}),
                "verdict": Verdict(value["verdict"]),
                "interval": interval and Interval(**interval),
            }
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Finding:
    claim: Claim
    sample: Sample
    method: Method | None
    evidence: Evidence | None
    reason: str
    p_met: float
    p_missed: float


def check(
    claims: Sequence[Claim], *, resamples: int = 9_999, seed: int = 0
) -> tuple[Decision, ...]:
    """Return a decision for each claim, in their order.

    P-values of gates that decide (primary, or on a protected slice) are adjusted by Holm, so that
    each of the verdicts 'pass' and 'fail' is given wrongly anywhere with probability alpha at
    most; those of all others by Benjamini and Hochberg, each held against its own alpha. A gate
    that could not be judged counts.

    Args:
        claims: all gates of a suite, checked once.
        resamples: of each bootstrap and permutation.
        seed: of all draws; the same scores and seed give the same decisions, in any order of rows.

    Raises:
        IncomparableBaseline: a baseline is of another version, or of other cases.
        InvalidRequest: a comparison without a baseline, or scores that make no sense.
    """
    findings = [_find(claim, resamples, seed) for claim in claims]
    met, missed = np.ones(len(claims)), np.ones(len(claims))
    deciding = np.array([claim.gate.decides for claim in claims], dtype=bool)
    for family, adjust in ((deciding, holm), (~deciding, benjamini_hochberg)):
        chosen = np.flatnonzero(family)
        met[chosen] = adjust([findings[i].p_met for i in chosen])
        missed[chosen] = adjust([findings[i].p_missed for i in chosen])
    tests = max(1, int(deciding.sum()))
    return tuple(
        _decide(
            finding,
            alpha=finding.claim.gate.level,
            tests=tests if finding.claim.gate.decides else 1,
            adjusted=(float(met[i]), float(missed[i])),
            flips=(resamples, seed),
        )
        for i, finding in enumerate(findings)
    )


def _affordable(resamples: int, sample: Sample) -> int:
    """Return fewer resamples where there are many cases, of which each then says more."""
    return min(resamples, max(_FEWEST_RESAMPLES, _DRAWS // sample.values.size))


def _find(claim: Claim, resamples: int, seed: int) -> _Finding:
    gate = claim.gate
    if gate.compares and claim.baseline is None:
        raise InvalidRequest(f"Gate {gate.name!r} compares with a baseline; give one, or a floor")
    against = claim.baseline if gate.compares else None
    sample = single(claim.candidate) if against is None else paired(claim.candidate, against)
    if sample.planned == 0 or sample.values.size == 0 or sample.coverage < gate.coverage:
        return _Finding(claim, sample, None, None, "", 1.0, 1.0)
    weighed = weigh(
        sample,
        pairs=gate.compares,
        bounds=gate.value_bounds,
        anytime=gate.anytime,
        resamples=_affordable(resamples, sample),
        seed=seed,
    )
    if weighed is None:
        return _Finding(
            claim, sample, None, None, "hardly any case differs; declare the bounds", 1.0, 1.0
        )
    method, evidence = weighed
    above, below = evidence.p_above(gate.threshold), evidence.p_below(gate.threshold)
    met, missed = (above, below) if gate.upwards else (below, above)
    return _Finding(claim, sample, method, evidence, "", met, missed)


def _decide(
    finding: _Finding,
    *,
    alpha: float,
    tests: int,
    adjusted: tuple[float, float],
    flips: tuple[int, int],
) -> Decision:
    gate, sample = finding.claim.gate, finding.sample
    _, sizes = np.unique(sample.clusters, return_counts=True)
    correlation = gate.correlation
    if correlation is None:
        correlation = intraclass(sample.values, sample.clusters) if sizes.size else 0.0
    design = design_effect(sizes, correlation) if sizes.size else 1.0
    observed = float(sample.values.std(ddof=1)) if sample.values.size > 1 else None
    needed = needed_cases(gate, sd=observed, design=design, alpha=alpha / tests)
    verdict, reason = _verdict(finding, alpha, adjusted, needed)
    found = finding.evidence
    return Decision(
        gate,
        verdict,
        reason,
        threshold=gate.threshold,
        alpha=alpha,
        planned=sample.planned,
        cases=sample.values.size,
        clusters=sizes.size,
        repeats=sample.repeats,
        coverage=sample.coverage,
        needed=needed,
        design_effect=design,
        method=finding.method,
        interval=None if found is None else found.interval(1 - 2 * gate.alpha),
        p_met=None if found is None else finding.p_met,
        p_missed=None if found is None else finding.p_missed,
        adjusted_met=None if found is None else adjusted[0],
        adjusted_missed=None if found is None else adjusted[1],
        sign_flip=sign_flip(
            sample.values, sample.clusters, resamples=_affordable(flips[0], sample), seed=flips[1]
        )
        if found is not None and gate.compares
        else None,
    )


def _verdict(
    finding: _Finding, alpha: float, adjusted: tuple[float, float], needed: int | None
) -> tuple[Verdict, str]:
    gate, sample = finding.claim.gate, finding.sample
    if sample.planned == 0:
        return Verdict.UNSCORED, f"no case is in {gate.slice or 'the run'!r}"
    if sample.values.size == 0 or sample.coverage < gate.coverage:
        return Verdict.INFRASTRUCTURE, (
            f"{sample.coverage:.1%} of {sample.planned} cases were scored, "
            f"{gate.coverage:.1%} must be"
        )
    met, missed = adjusted
    side = "above" if gate.upwards else "below"
    if met <= alpha:
        return Verdict.PASS, f"surely {side} {gate.threshold:g} (p {met:.2g})"
    if missed <= alpha:
        return Verdict.FAIL, f"surely not {side} {gate.threshold:g} (p {missed:.2g})"
    if needed is not None and sample.values.size < needed:
        return Verdict.UNDERPOWERED, f"{needed} cases are needed, {sample.values.size} were scored"
    return Verdict.INCONCLUSIVE, finding.reason or (
        f"neither surely {side} {gate.threshold:g} (p {met:.2g}) nor surely not (p {missed:.2g})"
    )
