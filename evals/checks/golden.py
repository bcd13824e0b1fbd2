"""Golden cases: those that must come out right one by one, whatever the mean is; functionality."""

from __future__ import annotations

from evals import problems
from evals.check import Finding, Parameters, Subject
from evals.gates import Verdict
from evals.metric import is_of_set, open_metric
from evals.suite import ALL, Suite
from evals.trial import Trial
from infra.errors import InvalidRequest

_SAID = 120


class Golden(Parameters):
    """Every case of a slice, in each of its repeats, is scored and on the right side."""

    metric: str
    """As the suite names it."""
    slice: str = ALL
    at_least: float | None = None
    """1 if neither is given."""
    at_most: float | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.metric,)

    def require(self, suite: Suite) -> None:
        uses = {use.name: use for use in suite.metrics}
        if self.metric not in uses:
            raise InvalidRequest(problems.unknown("metric", self.metric, uses))
        if self.slice not in suite.slice_names:
            raise InvalidRequest(problems.unknown("slice", self.slice, suite.slice_names))
        use = uses[self.metric]
        if is_of_set(open_metric(use.metric, use.parameters)):
            raise InvalidRequest(f"{self.metric!r} scores the whole set, and no case by itself")

    def check(self, subject: Subject) -> Finding:
        trials = subject.evaluation.members(self.slice)
        if not trials:
            return Finding(Verdict.UNSCORED, f"no case is in {self.slice!r}")
        wrong = [(trial, words) for trial in trials if (words := self._wrong(trial))]
        broken = [trial for trial, _ in wrong if trial.output is None]
        evidence = (
            ("must hold", f"{self.metric} {self._demand()} on {self.slice}"),
            ("trials", f"{len(trials):,}"),
            ("right", f"{len(trials) - len(wrong):,}"),
            ("without output", f"{len(broken):,}"),
        )
        failing = tuple(f"{trial.case.id}: {words}" for trial, words in wrong)
        if len(wrong) > len(broken):
            reason = f"{len(wrong) - len(broken)} of {len(trials)} golden trials are wrong"
            return Finding(Verdict.FAIL, reason, evidence, failing)
        if broken:
            reason = f"{len(broken)} of {len(trials)} golden trials have no output"
            return Finding(Verdict.INFRASTRUCTURE, reason, evidence, failing)
        return Finding(Verdict.PASS, f"all {len(trials)} golden trials are right", evidence)

    def _wrong(self, trial: Trial) -> str:
        if trial.output is None:
            return f"no output: {trial.failure}"
        score = trial.scores[self.metric]
        if score.value is None:
            return f"{self.metric} is {score.state}: {score.reason}"
        low, high = self._limits()
        if (low is None or score.value >= low) and (high is None or score.value <= high):
            return ""
        said = trial.output.text or str(trial.output.prediction)
        short = " ".join(said.split())[:_SAID]
        return f"{self.metric} is {score.value:.4g}, which must be {self._demand()}; said {short!r}"

    def _limits(self) -> tuple[float | None, float | None]:
        if self.at_least is None and self.at_most is None:
            return 1.0, None
        return self.at_least, self.at_most

    def _demand(self) -> str:
        low, high = self._limits()
        words = [] if low is None else [f"at least {low:g}"]
        return " and ".join([*words, *([] if high is None else [f"at most {high:g}"])])


build = Golden.model_validate
