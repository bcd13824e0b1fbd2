"""Data expectations: what the suite's dataset, or a training set, was checked for has to hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evals.check import Finding, Parameters, Subject
from evals.gates import Verdict
from evals.suite import Suite
from infra.errors import InvalidRequest

if TYPE_CHECKING:
    from infra.expectations.report import Report


class Data(Parameters):
    """Asks for the recorded results of a dataset version, or checks a file here and now."""

    dataset: str = ""
    """Such as `dataset/train@v3`; the suite's own if absent."""
    suites: tuple[str, ...] = ()
    """Of expectations, which must have passed; without any, all there are, and one at least."""
    expectations: str = ""
    """A file of expectations beside the suite, checked now against `file`."""
    file: str = ""
    """A table beside the suite; the suite's own file if absent."""

    def require(self, suite: Suite) -> None:
        if self.expectations and (self.dataset or self.suites):
            raise InvalidRequest("`expectations` checks a `file`; `dataset` and `suites` recall")
        if self.file and not self.expectations:
            raise InvalidRequest("`file` is checked against `expectations`; name theirs")
        if self.expectations and not (self.file or suite.dataset.file):
            raise InvalidRequest("the suite has no file of its own; name a `file`")
        if not self.expectations and not (self.dataset or suite.dataset.artifact):
            raise InvalidRequest(
                "the suite's dataset is no artifact, so nothing is recorded of it; name a "
                "`dataset`, or `expectations` to check its file against"
            )

    def check(self, subject: Subject) -> Finding:
        if self.expectations:
            name = self.file or str(subject.suite.dataset.file)
            return _found([self._checked(subject)], [("data", name)])
        # The suite's own is the version that was run, even if there is a newer one by now.
        held = subject.find_checked(self.dataset or subject.evaluation.described.dataset)
        source = [("data", held.reference), ("digest", held.digest)]
        results = {each.suite: each.report for each in held.results}
        missing = [name for name in self.suites if name not in results]
        if missing or not results:
            what = f"with {', '.join(map(repr, missing))}" if missing else "with any expectations"
            return Finding(
                Verdict.UNSCORED,
                f"{held.reference} was never checked {what}; run: ragstone expectations run SUITE "
                f"{held.reference}",
                tuple(source),
                failing=tuple(missing),
            )
        wanted = [results[name] for name in self.suites or sorted(results)]
        return _found(wanted, source)

    def _checked(self, subject: Subject) -> Report:
        from infra.expectations.checks import check
        from infra.expectations.files import open_table
        from infra.expectations.suite import read_suite

        rules = read_suite(subject.folder / self.expectations)
        table = open_table(subject.folder / (self.file or str(subject.suite.dataset.file)))
        return check(rules, table, now=subject.now, samples=0)


def _found(reports: list[Report], source: list[tuple[str, str]]) -> Finding:
    evidence = list(source)
    failing = []
    for report in reports:
        held = sum(each.passed for each in report.results)
        evidence.append(
            (
                f"expectations {report.suite}",
                f"{held} of {len(report.results)} hold, {report.rows:,} rows, checked "
                f"{report.checked_at:%Y-%m-%d %H:%M}",
            )
        )
        failing += [f"{report.suite}: {each.name}: {each.message}" for each in report.failures]
    if all(report.passed for report in reports):
        return Finding(Verdict.PASS, "every required expectation holds", tuple(evidence))
    count = len(failing)
    reason = f"{count} required expectation{'s do' if count > 1 else ' does'} not hold"
    return Finding(Verdict.FAIL, reason, tuple(evidence), tuple(failing))


build = Data.model_validate
