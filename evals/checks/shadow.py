"""Shadow: what a candidate answers beside what is live, on what was really asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from evals import gates
from evals.check import Finding, Parameters, Subject
from evals.checks import _pairs
from evals.checks._pairs import Pair
from evals.declared import Gate
from evals.gates import WORST_FIRST, Claim, Decision, Verdict
from evals.score_tables import ScoreTable, paired
from evals.statistics.sign_flip import sign_flip
from evals.suite import Suite
from infra.errors import InvalidRequest

AGREEMENT = "agreement"
_SMALLER_IS_BETTER = ("seconds", "tokens", "cost", "failed")
_MOST = 20_000
_SHOWN = 10


def _in_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


class Shadow(Parameters):
    """Agreement with what is live is surely above a share, and no number is surely worse."""

    live: str = ""
    """An evaluation of what is live on the same cases, such as `evaluation/faq@live`; or, of a
    `model`, the tag of the target that answers."""
    column: str = ""
    """In place of it: the column of the cases that holds what was answered live."""
    model: str = ""
    """In place of both: a route of the gateway, whose copies to a shadow are recorded."""
    candidate: str = "shadow"
    """Of a `model`: the tag of the copies."""
    since: Annotated[datetime, AfterValidator(_in_utc)] | None = None
    """Of a `model`: only calls from this moment on; UTC where it names no zone."""
    agreement: float | None = Field(default=None, gt=0, lt=1)
    """The share that must agree, surely; without it, agreement is told and decides nothing."""
    same_from: float = Field(default=0.8, gt=0, le=1)
    """The token F1 from which two texts say the same."""
    margins: Mapping[str, float] = Field(default_factory=dict)
    """By how much the candidate may be worse: by a metric that both evaluations have, or of a
    `model` by `seconds`, `tokens`, `cost` or `failed`."""
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    coverage: float = Field(default=0.9, gt=0, le=1)
    """The share of pairs that must have a number on both sides, or texts that can be compared."""

    @property
    def reads(self) -> tuple[str, ...]:
        return () if self.model else tuple(self.margins)

    def require(self, suite: Suite) -> None:
        given = [bool(self.column), bool(self.model), bool(self.live and not self.model)]
        if sum(given) != 1:
            raise InvalidRequest("needs one of `live` (an evaluation), `column` and `model`")
        if self.since is not None and not self.model:
            raise InvalidRequest(
                "`since` is for a `model`, whose calls are recorded with their time"
            )
        if self.agreement is None and not self.margins:
            raise InvalidRequest("promises nothing; give `agreement` or `margins`")
        if any(not margin > 0 for margin in self.margins.values()):
            raise InvalidRequest("a margin is above 0")
        known = list(_SMALLER_IS_BETTER) if self.model else [use.name for use in suite.metrics]
        unknown = [name for name in self.margins if self.column or name not in known]
        if unknown:
            raise InvalidRequest(
                f"`margins` names {unknown[0]!r}; "
                + ("a `column` has no metrics" if self.column else f"there are {', '.join(known)}")
            )

    def check(self, subject: Subject) -> Finding:
        pairs = self._found(subject)
        since = () if self.since is None else (("since", self.since.isoformat()),)
        if not pairs:
            return Finding(Verdict.UNSCORED, "nothing was answered by both", since)
        same = [_pairs.agree(pair, same_from=self.same_from) for pair in pairs]
        evidence = [*since, ("answered by both", f"{len(pairs):,}"), *_agreement(same)]
        evidence += self._differences(pairs, subject)
        claims = []
        if self.agreement is not None:
            gate = Gate(
                AGREEMENT, "floor", self.agreement, alpha=self.alpha, coverage=self.coverage
            )
            values = [None if each is None else float(each) for each in same]
            claims.append(Claim(gate, _table(pairs, values)))
        for name, margin in self.margins.items():
            claims.append(self._claim(name, margin, pairs, subject=subject))
        decisions = gates.check(claims, seed=subject.suite.seed)
        evidence += [(f"{each.gate.name} {each.gate.limit:g}", _words(each)) for each in decisions]
        apart = [pair.id for pair, agrees in zip(pairs, same, strict=True) if agrees is False]
        failing = [f"{each.gate.name}: {each.reason}" for each in decisions if each.blocks]
        failing += [f"{each}: the answers differ" for each in apart[:_SHOWN]] if failing else []
        verdict = _worst(decisions)
        if verdict is Verdict.PASS:
            return Finding(verdict, f"the candidate holds beside {self._name()}", tuple(evidence))
        reason = next(each.reason for each in decisions if each.verdict is verdict)
        return Finding(verdict, reason, tuple(evidence), tuple(failing))

    def _found(self, subject: Subject) -> list[Pair]:
        if self.model:
            return _pairs.of_interactions(
                subject.find_interactions(self.model, self.since),
                live=self.live or "live",
                candidate=self.candidate,
                most=_MOST,
            )
        if self.column:
            return _pairs.of_column(subject.evaluation, self.column)
        live = subject.find_evaluation(self.live)
        if live.described.dataset_digest != subject.evaluation.described.dataset_digest:
            raise InvalidRequest(f"{self.live} was run on other cases; run it again on these")
        return _pairs.of_evaluations(live, subject.evaluation)

    def _claim(self, name: str, margin: float, pairs: Sequence[Pair], *, subject: Subject) -> Claim:
        by = None if self.model else subject.evaluation.described.metrics[name]
        bounds = None
        if by is not None and None not in by.bounds:
            bounds = (float(by.bounds[0] or 0), float(by.bounds[1] or 0))
        gate = Gate(
            name,
            "non_inferior",
            margin,
            alpha=self.alpha,
            higher_is_better=by.higher_is_better if by is not None else False,
            bounds=(0.0, 1.0) if name == "failed" and by is None else bounds,
            coverage=self.coverage,
        )
        return Claim(gate, *(_numbers(pairs, side, name) for side in ("candidate", "live")))

    def _differences(self, pairs: Sequence[Pair], subject: Subject) -> list[tuple[str, str]]:
        """Return each number on both sides, and how likely such a difference is by chance."""
        found = []
        for name in sorted({name for pair in pairs for name in pair.candidate.numbers}):
            sample = paired(_numbers(pairs, "candidate", name), _numbers(pairs, "live", name))
            if not sample.values.size or sample.outcomes is None:
                continue
            live, candidate = (float(each.mean()) for each in sample.outcomes)
            p = sign_flip(sample.values, sample.clusters, seed=subject.suite.seed)
            found.append(
                (name, f"{live:.4g} live, {candidate:.4g} candidate (sign flip p {p:.2g})")
            )
        return found

    def _name(self) -> str:
        if self.model:
            return f"what {self.model} answers live"
        return self.live or f"what stands in {self.column!r}"


def _agreement(same: Sequence[bool | None]) -> list[tuple[str, str]]:
    known = [each for each in same if each is not None]
    if not known:
        return []
    return [("agree", f"{sum(known):,} of {len(known):,}, {np.mean(known):.1%}")]


def _numbers(pairs: Sequence[Pair], side: str, name: str) -> ScoreTable:
    return _table(pairs, [getattr(pair, side).numbers.get(name) for pair in pairs])


def _table(pairs: Sequence[Pair], values: Sequence[float | None]) -> ScoreTable:
    return ScoreTable(
        [pair.id for pair in pairs],
        np.array([value or 0.0 for value in values]),
        ["unscored" if value is None else "scored" for value in values],
        [pair.cluster for pair in pairs],
    )


def _words(decision: Decision) -> str:
    interval = decision.interval
    if interval is None:
        return f"{decision.verdict.value}: {decision.reason}"
    return (
        f"{decision.verdict.value}: {interval.estimate:.4g} ({interval.low:.4g} to "
        f"{interval.high:.4g}), {decision.reason}"
    )


def _worst(decisions: Sequence[Decision]) -> Verdict:
    found = {each.verdict for each in decisions}
    return next((each for each in WORST_FIRST if each in found), Verdict.PASS)


build = Shadow.model_validate
