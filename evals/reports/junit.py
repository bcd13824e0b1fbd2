"""JUnit XML of an evaluation: a test for each gate and each case, as CI servers show them."""

from __future__ import annotations

from lxml import etree

from evals.check import Finding
from evals.evaluation import Evaluation
from evals.gates import Decision, Verdict
from evals.misses import misses
from evals.reports.elements import Element, element, number, short
from evals.reports.wording import demand, numbers
from evals.trial import Trial
from evals.verdicts import Judgement

_TEXT, _CASE, _FAILING = 1_000, 400, 10_000
_BROKEN = (Verdict.INFRASTRUCTURE, Verdict.UNSCORED)


def write(evaluation: Evaluation, judgement: Judgement) -> bytes:
    """Return the document in UTF-8.

    A gate that decides is a failure unless it passes, and an error where too much was not scored;
    one that only warns is skipped then. A case is an error where there is no output, and skipped
    where it is on the wrong side of a gate by itself: whether there are too many of these is what
    the gate says.
    """
    name = evaluation.described.suite.name
    gates = [_gate(each, f"{name}.gates") for each in judgement.decisions]
    gates += [_unjudged(each, f"{name}.gates") for each in judgement.unjudged]
    verdict = element("testcase", name="verdict", classname=f"{name}.gates")
    if judgement.exit_code:
        words = short(judgement.reason or judgement.verdict, _TEXT)
        verdict.append(element("failure", message=words, type=judgement.verdict))
    cases = [_case(each, f"{name}.cases", evaluation) for each in evaluation.trials]
    checks = [_check(each, f"{name}.checks") for each in judgement.findings]
    suites = [
        _suite(f"{name}.gates", [*gates, verdict]),
        *([_suite(f"{name}.checks", checks)] if checks else []),
        _suite(f"{name}.cases", cases),
    ]
    return bytes(
        etree.tostring(
            element("testsuites", *suites, name=name),
            xml_declaration=True,
            encoding="utf-8",
            pretty_print=True,
        )
    )


def _suite(name: str, tests: list[Element]) -> Element:
    def count(tag: str) -> int:
        return sum(test.find(tag) is not None for test in tests)

    return element(
        "testsuite",
        *tests,
        name=name,
        tests=len(tests),
        failures=count("failure"),
        errors=count("error"),
        skipped=count("skipped"),
    )


def _gate(decision: Decision, group: str) -> Element:
    test = element("testcase", name=short(demand(decision.gate), _TEXT), classname=group)
    properties = element(
        "properties",
        *(element("property", name=key, value=said) for key, said in numbers(decision)),
    )
    test.append(properties)
    _add_verdict(test, decision)
    return test


def _check(finding: Finding, group: str) -> Element:
    test = element("testcase", name=short(finding.name, _TEXT), classname=group)
    rows = (element("property", name=key, value=said) for key, said in finding.evidence)
    test.append(element("properties", *rows))
    _add_verdict(test, finding)
    if finding.failing:
        test.append(element("system-out", short("\n".join(finding.failing), _FAILING)))
    return test


def _add_verdict(test: Element, found: Decision | Finding) -> None:
    if found.verdict is Verdict.PASS:
        return
    message = short(f"{found.verdict.value}: {found.reason}", _TEXT)
    tag = "error" if found.verdict in _BROKEN else "failure"
    test.append(
        element(tag, message=message, type=found.verdict.value)
        if found.blocks
        else element("skipped", message=message)
    )


def _unjudged(name: str, group: str) -> Element:
    failure = element(
        "failure", message="there is no baseline to compare with", type=Verdict.INCONCLUSIVE.value
    )
    return element("testcase", failure, name=short(name, _TEXT), classname=group)


def _case(trial: Trial, group: str, evaluation: Evaluation) -> Element:
    repeat = f" #{trial.repeat + 1}" if evaluation.described.suite.repeats > 1 else ""
    test = element("testcase", name=short(f"{trial.case.id}{repeat}", _TEXT), classname=group)
    if trial.output is None:
        test.append(element("error", message=short(trial.failure, _TEXT), type="no output"))
        return test
    test.set("time", f"{trial.output.latency_seconds or 0:.6f}")
    missed = misses(trial, evaluation.described)
    if missed:
        test.append(element("skipped", message=short("; ".join(missed), _CASE)))
        said = f"question: {trial.case.question}\nanswer: {trial.output.text}"
        test.append(element("system-out", short(f"{_scores(trial)}\n{said}", _CASE)))
    return test


def _scores(trial: Trial) -> str:
    return ", ".join(
        f"{name} {score.state if score.value is None else number(score.value)}"
        for name, score in sorted(trial.scores.items())
    )
