"""Checks: plug-ins that test, in other ways than by gates, what a change stands on.

A plug-in is a file with `build(parameters) -> Check`. The laws, run over each by
`tests/contracts/test_checks.py`: a finding has a reason and JSON evidence, what cannot be found
out is never a pass, the same subject gives the same finding.

    >>> from evals.check import Finding, Parameters
    >>> from evals.gates import Verdict
    >>> class Enough(Parameters):
    ...     cases: int = 100
    ...
    ...     def check(self, subject):
    ...         there = len(subject.evaluation.trials)
    ...         verdict = Verdict.PASS if there >= self.cases else Verdict.FAIL
    ...         return Finding(verdict, f"{there} trials, {self.cases} are wanted")
    >>> build = Enough.model_validate
    >>> from types import SimpleNamespace as Seen
    >>> build({"cases": 3}).check(Seen(evaluation=Seen(trials=[1, 2]))).reason
    '2 trials, 3 are wanted'
"""

from evals.check import Check, Finding, Parameters, Subject, open_check

__all__ = ["Check", "Finding", "Parameters", "Subject", "open_check"]
