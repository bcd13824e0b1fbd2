"""The cases and gates of a suite as tests of pytest; what fails prints the case, no traceback."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from evals.evaluation import Described, Evaluation
from evals.gates import Decision, Verdict
from evals.misses import misses
from evals.reports.elements import number, short
from evals.reports.wording import MEANINGS, demand, numbers
from evals.run import Plan
from evals.suite import locate, read
from evals.suite_gates import declared_gates
from evals.trial import Trial
from evals.verdicts import Judgement
from infra.errors import NotFound, RagstoneError
from service.cli.session import opened
from service.evaluation import evaluating

_TEXT, _PASSAGES = 1_500, 3


@dataclass(frozen=True, slots=True)
class Found:
    """What a run found; without a judgement where only some cases were chosen."""

    described: Described
    trials: dict[str, list[Trial]]
    judgement: Judgement | None = None
    stored: str = ""


class Missed(Exception):
    """A case or gate that does not hold; its text is all there is to print."""


def suite_file(session: pytest.Session, name: str) -> SuiteFile:
    """Return the collector of a suite by its file, or by the name of a shipped one."""
    try:
        path = locate(session.config.invocation_params.dir / name)
    except NotFound:
        try:
            path = locate(Path(name))
        except NotFound as error:
            raise pytest.UsageError(f"--ragstone-suite: {error.message}") from None
    return SuiteFile.from_parent(session, path=path.resolve())


class SuiteFile(pytest.File):
    """A suite; it is run once, when the first of its tests is."""

    def collect(self) -> Iterator[pytest.Item]:
        if hasattr(self.config, "workerinput"):
            raise Missed("Each process of xdist would evaluate the whole suite; run it with -n 0")
        with opened() as parts:
            plan = evaluating.plan(parts, read(self.path), self.path.parent)
            asyncio.run(plan.target.close())
        for case in plan.cases.asked:
            yield CaseTest.from_parent(self, name=f"case[{case.id}]", case=case.id)
        gates = declared_gates(plan.suite, plan.described.metrics)
        for place, gate in enumerate(gates):
            yield GateTest.from_parent(self, name=f"gate[{demand(gate)}]", place=place)
        for place, use in enumerate(plan.suite.checks):
            yield CheckTest.from_parent(self, name=f"check[{use.name}]", place=place)
        yield VerdictTest.from_parent(self, name="verdict")

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        del style  # that of a collector is fixed
        return _told(excinfo) or super().repr_failure(excinfo)

    @property
    def found(self) -> Found:
        """What the run found. Raises what kept it from being made, for each test anew."""
        if isinstance(self._outcome, RagstoneError):
            raise self._outcome
        return self._outcome

    @cached_property
    def _outcome(self) -> Found | RagstoneError:
        tests = [item for item in self.session.items if item.parent is self]
        cases = {item.case for item in tests if isinstance(item, CaseTest)}
        whole = any(not isinstance(item, CaseTest) for item in tests)
        try:
            return self._run(None if whole else cases)
        except RagstoneError as error:
            return error

    def _run(self, only: set[str] | None) -> Found:
        with opened() as parts:
            before = _baseline(parts, read(self.path).baseline, self.config)
            plan = evaluating.plan(parts, read(self.path), self.path.parent, before)
            if only is not None:
                return _by_case(asyncio.run(_run_some(parts, plan, only, before)))
            work = evaluating.carry_out(
                parts, plan, resume=False, on_trial=lambda _: None, before=before
            )
            evaluation = asyncio.run(work)
            judgement, stored = evaluating.conclude(
                parts, plan, evaluation, before, folder=self.path.parent
            )
        return replace(_by_case(evaluation), judgement=judgement, stored=str(stored))


class _Test(pytest.Item):
    parent: SuiteFile

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        return _told(excinfo) or super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        return self.path, None, self.name


class CaseTest(_Test):
    """A case: fails without an output; on the wrong side of a gate it is expected to, or strict."""

    def __init__(self, *, case: str, **given: Any) -> None:
        super().__init__(**given)
        self.case = case

    def runtest(self) -> None:
        found = self.parent.found
        for trial in found.trials[self.case]:
            if trial.output is None:
                raise Missed(_case(trial, [f"no output: {trial.failure}"]))
            missed = misses(trial, found.described)
            if missed and self.config.getoption("ragstone_strict"):
                raise Missed(_case(trial, missed))
            if missed:
                pytest.xfail("; ".join(missed))


class GateTest(_Test):
    """A gate: fails unless it passes; one that only warns is expected to."""

    def __init__(self, *, place: int, **given: Any) -> None:
        super().__init__(**given)
        self.place = place

    def runtest(self) -> None:
        judgement = self.parent.found.judgement
        assert judgement is not None
        decision = _decision(self, judgement)
        if decision is None:
            raise Missed(f"{self.name}: there is no baseline to compare with")
        rows = numbers(decision)
        self.user_properties += rows
        if decision.verdict is Verdict.PASS:
            return
        if not decision.blocks:
            pytest.xfail(f"{decision.verdict.value}: {decision.reason}")
        lines = [f"{self.name}: {decision.verdict.value}, {decision.reason}"]
        raise Missed("\n".join([*lines, *(f"  {name}: {value}" for name, value in rows)]))


class CheckTest(_Test):
    """A check: fails unless it passes; one that only warns is expected to."""

    def __init__(self, *, place: int, **given: Any) -> None:
        super().__init__(**given)
        self.place = place

    def runtest(self) -> None:
        judgement = self.parent.found.judgement
        assert judgement is not None
        finding = judgement.findings[self.place]
        self.user_properties += finding.evidence
        words = f"{finding.verdict.value}: {finding.reason}"
        if finding.verdict is Verdict.PASS:
            return
        if not finding.blocks:
            pytest.xfail(words)
        rows = (*finding.failing, *(f"{label}: {said}" for label, said in finding.evidence))
        raise Missed("\n".join([f"{self.name}: {words}", *(f"  {row}" for row in rows)]))


class VerdictTest(_Test):
    """The verdict, which is more than its gates: an output may be missing in too many cases."""

    def runtest(self) -> None:
        found = self.parent.found
        assert found.judgement is not None
        self.user_properties.append(("evaluation", found.stored))
        verdict = found.judgement.verdict
        if found.judgement.exit_code:
            why = found.judgement.reason or MEANINGS[verdict]
            page = f"ragstone eval report {found.stored}"
            raise Missed(f"{verdict}: {why}\nkept as {found.stored}; for all of it: {page}")


def _told(excinfo: pytest.ExceptionInfo[BaseException]) -> str:
    error = excinfo.value
    if isinstance(error, RagstoneError):
        return error.message
    return str(error) if isinstance(error, Missed) else ""


def _decision(test: GateTest, judgement: Judgement) -> Decision | None:
    found = test.parent.found.described
    gates = declared_gates(found.suite, found.metrics)
    judged = [
        place for place, gate in enumerate(gates) if judgement.baseline or not gate.needs_baseline
    ]
    return judgement.decisions[judged.index(test.place)] if test.place in judged else None


def _baseline(parts: Any, of_suite: str | None, config: pytest.Config) -> Any:
    given = config.getoption("ragstone_baseline")
    if given is not None:
        return evaluating.find(parts, given)
    try:
        return None if of_suite is None else evaluating.find(parts, of_suite)
    except NotFound:  # before the first run there is none; the gates that want it say so
        return None


async def _run_some(parts: Any, plan: Plan, only: set[str], before: Any) -> Evaluation:
    """Run the chosen cases, apart from the journal of a whole run, and keep nothing."""
    from evals import run

    cases = tuple(case for case in plan.cases.cases if case.id in only)
    copies = tuple(case for case in plan.cases.copies if case.id in only)
    chosen = replace(plan, cases=replace(plan.cases, cases=cases, copies=copies))
    async with evaluating.opened_context(parts, chosen, before) as context:
        with tempfile.TemporaryDirectory() as folder:
            return await run.run(chosen, run.Options(Path(folder), context=context))


def _by_case(evaluation: Evaluation) -> Found:
    trials: dict[str, list[Trial]] = {}
    for trial in evaluation.trials:
        trials.setdefault(trial.case.id, []).append(trial)
    return Found(evaluation.described, trials)


def _case(trial: Trial, missed: list[str]) -> str:
    case, output = trial.case, trial.output
    lines = [*missed, f"question: {case.question or case.input}"]
    lines.append(f"expected: {' | '.join(case.references) or '-'}")
    if output is not None:
        said = output.text if output.prediction is None else str(output.prediction)
        lines.append(f"answer:   {short(said, _TEXT)}")
        lines += [
            f"passage:  {each.source}: {short(' '.join(each.text.split()), 200)}"
            for each in output.passages[:_PASSAGES]
        ]
    for name, score in trial.scores.items():
        value = score.state if score.value is None else number(score.value)
        lines.append(f"  {name}: {value}{f' ({score.reason})' if score.reason else ''}")
    return "\n".join(lines)
