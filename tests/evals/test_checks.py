"""Checks: golden cases, data, reproducibility, training and shadows, and how they decide."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

import scripted_evals
from evals import check, records, verdicts
from evals.check import Checked, Finding, Subject
from evals.checks._pairs import Pair, Side, agree
from evals.evaluation import Evaluation
from evals.gates import Verdict
from evals.reports import junit, markdown, page
from evals.suite import CheckUse, Dataset
from evals.trial import Case, Output
from evals.verdicts import Judgement
from infra.contracts import Interaction, Usage
from infra.errors import EngineFailed, InvalidRequest, NotFound
from infra.expectations.records import DatasetCheck
from infra.expectations.report import Report, Result
from scripted_evals import Scripted, carry_out, make_plan, right, write_rows

NOW = datetime(2026, 1, 2, tzinfo=UTC)
NUMBER = 200
ROWS = [
    {
        "id": f"q{n}",
        "question": f"Where is bridge {n}?",
        "answer": f"In town {n}.",
        "golden": int(n < 20),
        "said": f"In town {n}.",
    }
    for n in range(NUMBER)
]
GOLDEN = {"name": "golden", "where": {"golden": 1}}


def fails_from(first: int, *, until: int = NUMBER) -> Scripted:
    """A target that is wrong about some cases in a row."""

    def reply(case: Case, seed: int) -> Output:
        number = int(case.id[1:])
        return Output("No idea at all." if first <= number < until else str(case.expected))

    return Scripted(reply)


def none(_: str) -> Any:
    raise NotFound("evaluation", "x")


def subject(evaluation: Evaluation, folder: Path, **found: Any) -> Subject:
    given: dict[str, Callable[..., Any]] = {
        "find_evaluation": none,
        "find_checked": lambda name: Checked(name, "sha256:1", []),
        "find_interactions": lambda *_: [],
    }
    return Subject(evaluation, folder, NOW, **{**given, **found})


def evaluate(folder: Path, target: Scripted, *checks: Mapping[str, Any], **more: Any) -> Evaluation:
    if not (folder / "cases.jsonl").exists():
        write_rows(folder, ROWS)
    plan = make_plan(folder, target, slices=[GOLDEN], checks=list(checks), **more)
    return carry_out(plan, folder)


def found(folder: Path, target: Scripted, use: Mapping[str, Any], **given: Any) -> Finding:
    return check.carry_out(subject(evaluate(folder, target, use), folder, **given))[0]


def use(name: str, **parameters: Any) -> dict[str, Any]:
    return {"check": name, "with": parameters}


MUST = use("golden", metric="exact_match", slice="golden")


@pytest.mark.parametrize(
    ("first", "until", "verdict"), [(200, 200, "pass"), (20, 200, "pass"), (19, 20, "fail")]
)
def test_one_golden_case_that_is_wrong_fails_and_is_named(
    tmp_path: Path, first: int, until: int, verdict: str
) -> None:
    finding = found(tmp_path, fails_from(first, until=until), MUST)
    assert finding.verdict.value == verdict
    assert [each.partition(":")[0] for each in finding.failing] == (
        ["q19"] if verdict == "fail" else []
    )


def test_golden_cases_without_an_output_are_no_failure_of_the_target(tmp_path: Path) -> None:
    def reply(case: Case, seed: int) -> Output:
        if case.id == "q3":
            raise EngineFailed("down")
        return right(case, seed)

    evaluation = evaluate(tmp_path, Scripted(reply), MUST, retries=0)
    finding = check.carry_out(subject(evaluation, tmp_path))[0]
    assert finding.verdict is Verdict.INFRASTRUCTURE
    assert finding.failing[0].startswith("q3: no output")


def report(passed: bool, severity: Any = "required", suite: str = "rows") -> Report:
    result = Result("no-nulls", "nulls", severity, passed, "3 of 9 rows are null")
    return Report(suite, "sha256:0", 9, 2, passed or severity == "warning", NOW, (result,))


def recorded(*reports: Report) -> Sequence[DatasetCheck]:
    return [
        DatasetCheck("sha256:1", each.suite, each.suite_digest, each.passed, NOW, each)
        for each in reports
    ]


@pytest.mark.parametrize(
    ("results", "suites", "verdict"),
    [
        (recorded(report(True)), (), "pass"),
        (recorded(report(False, "warning")), (), "pass"),
        (recorded(report(False)), (), "fail"),
        (recorded(report(True), report(False, suite="other")), ("rows",), "pass"),
        (recorded(report(True), report(False, suite="other")), (), "fail"),
        (recorded(report(True)), ("rows", "types"), "unscored"),
        ([], (), "unscored"),
    ],
)
def test_data_must_have_been_checked_and_have_passed(
    tmp_path: Path, results: Any, suites: Sequence[str], verdict: str
) -> None:
    wanted = use("data", dataset="dataset/train", suites=list(suites))
    held = Checked("dataset/train@v3", "sha256:1", results)
    finding = found(tmp_path, Scripted(right), wanted, find_checked=lambda _: held)
    assert finding.verdict.value == verdict
    assert finding.evidence[:2] == (("data", "dataset/train@v3"), ("digest", "sha256:1"))
    assert verdict != "unscored" or "dataset/train@v3 was never checked" in finding.reason
    if verdict == "fail":
        assert any("no-nulls: 3 of 9 rows are null" in each for each in finding.failing)


def test_own_dataset_is_asked_for_as_the_version_that_was_run(tmp_path: Path) -> None:
    evaluation = evaluate(tmp_path, Scripted(right), use("data", dataset="dataset/other"))
    of_suite = evaluation.described.suite.model_copy(
        update={
            "dataset": Dataset.model_validate({"artifact": "dataset/faq"}),
            "checks": (CheckUse.model_validate("data"),),
        }
    )
    described = replace(evaluation.described, suite=of_suite, dataset="dataset/faq@v1")
    asked = []

    def checked(name: str) -> Checked:
        asked.append(name)
        return Checked(name, "sha256:1", recorded(report(True)))

    evaluation = replace(evaluation, described=described)
    finding = check.carry_out(subject(evaluation, tmp_path, find_checked=checked))[0]
    assert (finding.verdict, asked) == (Verdict.PASS, ["dataset/faq@v1"])


def test_file_of_the_suite_is_checked_here_and_now(tmp_path: Path) -> None:
    rules = "name: cases\nchecks:\n  - {rule: rows, min: LEAST}\n"
    wanted = use("data", expectations="rules.yaml")
    (tmp_path / "rules.yaml").write_text(rules.replace("LEAST", "200"), encoding="utf-8")
    assert found(tmp_path, Scripted(right), wanted).verdict is Verdict.PASS
    (tmp_path / "rules.yaml").write_text(rules.replace("LEAST", "201"), encoding="utf-8")
    assert found(tmp_path, Scripted(right), wanted).verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("first", "tolerance", "verdict"), [(200, 0, "pass"), (199, 0, "fail"), (199, 0.01, "pass")]
)
def test_second_run_of_the_same_must_give_the_same_metrics(
    tmp_path: Path, first: int, tolerance: float, verdict: str
) -> None:
    other = evaluate(tmp_path, fails_from(first))
    wanted = use("reproducibility", again="evaluation/numbers@v1", tolerance=tolerance)
    finding = found(tmp_path, fails_from(200), wanted, find_evaluation=lambda _: other)
    assert finding.verdict.value == verdict
    assert ("same outputs", f"{first} of 200") in finding.evidence


def test_run_of_something_else_proves_nothing(tmp_path: Path) -> None:
    other = evaluate(tmp_path, fails_from(200), seed=1)
    wanted = use("reproducibility", again="evaluation/numbers@v1")
    finding = found(tmp_path, fails_from(200), wanted, find_evaluation=lambda _: other)
    assert finding.verdict is Verdict.INFRASTRUCTURE
    assert "suite differ" in finding.reason


@pytest.mark.parametrize(("call", "verdict"), [("same", "pass"), ("unlike", "fail")])
def test_training_twice_must_give_the_same(tmp_path: Path, call: str, verdict: str) -> None:
    wanted = use("reproducibility", call=f"trainees.{call}")
    assert found(tmp_path, Scripted(right), wanted).verdict.value == verdict


FIELDS = {"file": "cases.jsonl", "fields": {"input": ["a", "b"]}}


def table(folder: Path, label: Callable[[int], Any]) -> None:
    rows = [{"id": n, "a": n % 17, "b": n % 23, "answer": label(n)} for n in range(120)]
    write_rows(folder, rows)


def trained(folder: Path, **parameters: Any) -> Finding:
    plan = make_plan(
        folder, Scripted(right), dataset=FIELDS, checks=[use("training", **parameters)]
    )
    return check.carry_out(subject(carry_out(plan, folder), folder))[0]


@pytest.mark.parametrize(
    ("estimator", "test", "verdict"),
    [
        ("tree", "overfit_one_batch", "pass"),
        ("tree", "one_epoch", "pass"),
        ("shuffled", "overfit_one_batch", "fail"),
        ("short", "one_epoch", "infrastructure"),
        ("raising", "overfit_one_batch", "infrastructure"),
    ],
)
def test_estimator_with_a_fault_is_caught_by_what_it_cannot_learn(
    tmp_path: Path, estimator: str, test: str, verdict: str
) -> None:
    table(tmp_path, lambda n: "even" if (n % 17) % 2 == 0 else "odd")
    finding = trained(tmp_path, estimator=f"trainees.{estimator}", test=test)
    assert finding.verdict.value == verdict, finding


@pytest.mark.parametrize("how", [{"estimator": "trainees.tree"}, {"train": "trainees.descend"}])
def test_batch_of_one_label_proves_nothing(tmp_path: Path, how: Any) -> None:
    table(tmp_path, lambda _: 3.5)
    finding = trained(tmp_path, **how)
    assert finding.verdict is Verdict.INFRASTRUCTURE
    assert "All 32 rows have the label 3.5" in finding.reason


def test_check_that_returns_no_finding_costs_its_own_place(tmp_path: Path) -> None:
    evaluation = evaluate(tmp_path, Scripted(right), use("scripted_evals.unfinished"), MUST)
    broken, golden = check.carry_out(subject(evaluation, tmp_path))
    assert (broken.verdict, broken.kind) == (Verdict.INFRASTRUCTURE, "scripted_evals.unfinished")
    assert "returned None, which is no Finding" in broken.reason
    assert golden.verdict is Verdict.PASS


def test_check_that_ends_the_program_costs_its_own_place(tmp_path: Path) -> None:
    evaluation = evaluate(tmp_path, Scripted(right), use("scripted_evals.leaving"), MUST)
    left, golden = check.carry_out(subject(evaluation, tmp_path))
    assert (left.verdict, left.reason) == (Verdict.INFRASTRUCTURE, "SystemExit: no GPU")
    assert golden.verdict is Verdict.PASS


def test_checks_that_are_not_done_at_the_deadline_lose_nothing_of_the_others(
    tmp_path: Path,
) -> None:
    slow = use("scripted_evals.slow")
    again = {**MUST, "name": "again"}
    evaluation = evaluate(tmp_path, Scripted(right), MUST, slow, again)
    described = evaluation.described
    soon = described.suite.model_copy(update={"deadline_seconds": 0.5})
    evaluation = replace(evaluation, described=replace(described, suite=soon))
    scripted_evals.may_end.clear()
    try:
        findings = check.carry_out(subject(evaluation, tmp_path))
    finally:
        scripted_evals.may_end.set()
    assert [(each.name, each.verdict.value, each.reason) for each in findings[1:]] == [
        ("slow", "infrastructure", "not finished: the deadline of 0.5 s had passed"),
        ("again", "infrastructure", "not run: the deadline of 0.5 s had passed"),
    ]
    assert (findings[0].name, findings[0].verdict) == ("golden", Verdict.PASS)
    assert verdicts.judge(evaluation, findings=findings).verdict == "infrastructure"


@pytest.mark.parametrize("test", ["overfit_one_batch", "one_epoch"])
def test_amounts_are_judged_by_r2(tmp_path: Path, test: str) -> None:
    table(tmp_path, lambda n: 2.5 * (n % 17) - (n % 23))
    finding = trained(tmp_path, estimator="trainees.line", test=test)
    assert finding.verdict is Verdict.PASS
    assert any("R2" in label for label, _ in finding.evidence)


@pytest.mark.parametrize(
    ("train", "test", "verdict"),
    [
        ("descend", "overfit_one_batch", "pass"),
        ("descend", "one_epoch", "pass"),
        ("stuck", "overfit_one_batch", "fail"),
        ("diverging", "one_epoch", "infrastructure"),
    ],
)
def test_losses_must_fall_and_be_finite(
    tmp_path: Path, train: str, test: str, verdict: str
) -> None:
    table(tmp_path, lambda n: 0.5 * (n % 17) + 3)
    finding = trained(tmp_path, train=f"trainees.{train}", test=test)
    assert finding.verdict.value == verdict, finding


@pytest.mark.parametrize(
    ("first", "verdict"), [(200, "pass"), (198, "pass"), (178, "inconclusive"), (100, "fail")]
)
def test_shadow_must_surely_agree_with_what_was_said_live(
    tmp_path: Path, first: int, verdict: str
) -> None:
    wanted = use("shadow", column="said", agreement=0.9)
    finding = found(tmp_path, fails_from(first), wanted)
    assert finding.verdict.value == verdict, finding
    assert ("answered by both", "200") in finding.evidence
    assert ("agree", f"{first} of 200, {first / 200:.1%}") in finding.evidence


@pytest.mark.parametrize(("first", "verdict"), [(200, "pass"), (140, "fail")])
def test_shadow_must_not_be_worse_than_what_is_live(
    tmp_path: Path, first: int, verdict: str
) -> None:
    live = evaluate(tmp_path, fails_from(200))
    wanted = use("shadow", live="evaluation/numbers@live", margins={"exact_match": 0.05})
    finding = found(tmp_path, fails_from(first), wanted, find_evaluation=lambda _: live)
    assert finding.verdict.value == verdict, finding
    assert any(label == "latency" and "sign flip" in said for label, said in finding.evidence)


def calls(count: int, *, slower: float = 0.0, failing: int = 0) -> list[Interaction]:
    found = []
    for number in range(count):
        for tag in ("shadow", "live"):
            is_copy = tag == "shadow"
            has_failed = is_copy and number < failing
            item = Interaction(
                id=f"{tag}-{number}",
                kind="completion",
                at=NOW,
                model="support",
                outcome="failed" if has_failed else "answered",
                status=502 if has_failed else 200,
                request_id=f"r{number}",
                tag=tag,
                usage=Usage(10, 5),
                seconds=0.5 + (slower + number % 5 / 50 if is_copy else number % 3 / 50),
                content={"answer": f"It is {number}."},
            )
            found.append(item)
    return [*found, replace(found[0], id="alone", request_id="alone")]


@pytest.mark.parametrize(
    ("changes", "verdict"), [({}, "pass"), ({"slower": 0.3}, "fail"), ({"failing": 40}, "fail")]
)
def test_copies_that_the_gateway_recorded_are_compared_with_the_live_answers(
    tmp_path: Path, changes: Any, verdict: str
) -> None:
    wanted = use("shadow", model="support", agreement=0.7, margins={"seconds": 0.1, "failed": 0.1})
    wanted["with"]["coverage"] = 0.5
    items = calls(200, **changes)

    def of_model(name: str, since: datetime | None) -> Iterable[Interaction]:
        return items if name == "support" and since is None else []

    finding = found(tmp_path, Scripted(right), wanted, find_interactions=of_model)
    assert finding.verdict.value == verdict, finding
    assert ("answered by both", "200") in finding.evidence


def test_shadow_without_a_pair_is_no_pass(tmp_path: Path) -> None:
    wanted = use("shadow", model="support", agreement=0.7)
    assert found(tmp_path, Scripted(right), wanted).verdict is Verdict.UNSCORED


@pytest.mark.parametrize(
    ("live", "candidate", "same"),
    [
        (Output("In Rome."), Output("It is in Rome [1]."), True),
        (Output("In Rome."), Output("In Paris, I think."), False),
        (Output("", False), Output("I do not know.", False), True),
        (Output("In Rome."), Output("I do not know.", False), False),
        (Output(prediction={"a": 0.9, "b": 0.1}), Output(prediction="a"), True),
        (Output(prediction=1), Output(prediction=2), False),
        (None, Output("In Rome."), False),
        (None, None, None),
        (Output(" "), Output(""), None),
        (Output(""), None, None),
        (Output(""), Output("In Rome."), False),
        (Output("", raw={"kept": False}), Output("In Rome."), None),
    ],
)
def test_agreement_is_of_what_is_said_and_not_of_how(live: Any, candidate: Any, same: Any) -> None:
    pair = Pair("1", "1", Side(live), Side(candidate))
    assert agree(pair, same_from=0.6) is same


def test_failed_check_fails_the_suite_and_one_that_warns_does_not(tmp_path: Path) -> None:
    gates = [{"metric": "exact_match", "floor": 0.5}]
    for action, verdict in (("block", "fail"), ("warn", "pass")):
        evaluation = evaluate(
            tmp_path, fails_from(5, until=6), {**MUST, "action": action}, gates=gates
        )
        findings = check.carry_out(subject(evaluation, tmp_path))
        judged = verdicts.judge(evaluation, findings=findings)
        assert (judged.verdict, judged.exit_code) == (verdict, int(verdict == "fail"))


def test_suite_with_checks_alone_promises_something(tmp_path: Path) -> None:
    evaluation = evaluate(tmp_path, Scripted(right), MUST)
    findings = check.carry_out(subject(evaluation, tmp_path))
    assert verdicts.judge(evaluation, findings=findings).verdict == "pass"


def test_findings_are_kept_and_in_every_report(tmp_path: Path) -> None:
    evaluation = evaluate(tmp_path, fails_from(5, until=7), MUST, use("data", dataset="dataset/a"))
    findings = check.carry_out(subject(evaluation, tmp_path))
    judged = verdicts.judge(evaluation, findings=findings)
    (tmp_path / "files").mkdir()
    records.write(evaluation, judged.as_dict(), tmp_path / "files")
    _, stored = records.read(tmp_path / "files")
    assert Judgement.from_dict(stored) == judged
    html = page.write(evaluation, judged, name="e", cases=1).decode()
    assert "2 of 20 golden trials are wrong" in html
    assert "q5: exact_match is 0, which must be at least 1; said" in html
    assert "2 of 20 golden trials are wrong" in markdown.write(evaluation, judged, name="e")
    tree = etree.fromstring(junit.write(evaluation, judged))
    tests = {each.get("name"): each for each in tree.iterfind(".//testcase[@classname]")}
    assert tests["golden"].find("failure") is not None
    assert tests["data"].find("error") is not None
    assert "q6" in str(tests["golden"].findtext("system-out"))


def test_verdicts_of_before_there_were_checks_can_be_read(tmp_path: Path) -> None:
    stored = verdicts.judge(evaluate(tmp_path, Scripted(right))).as_dict()
    del stored["findings"]
    assert Judgement.from_dict(stored).findings == ()


def test_checks_change_nothing_of_what_a_run_is(tmp_path: Path) -> None:
    bare = evaluate(tmp_path, Scripted(right))
    assert evaluate(tmp_path, Scripted(right), MUST).described.digest == bare.described.digest


def test_more_failing_cases_than_anyone_reads_are_counted(tmp_path: Path) -> None:
    finding = found(tmp_path, fails_from(0), use("golden", metric="exact_match"))
    assert len(finding.failing) == check.MOST_FAILING + 1
    assert finding.failing[-1] == "and 150 more"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (use("goldn"), "unknown check 'goldn'; did you mean 'golden'"),
        (use("golden", metric="exactmatch"), "Check 'golden': unknown metric"),
        (use("golden", metric="exact_match", slice="gold"), "did you mean 'golden'"),
        (use("golden", metrik="exact_match"), "unknown key 'metrik'"),
        (use("data"), "the suite's dataset is no artifact"),
        (use("data", file="a.csv"), "is checked against `expectations`"),
        (use("reproducibility"), "needs either `again`"),
        (use("training"), "needs either `estimator` or `train`"),
        (use("shadow", column="said"), "promises nothing"),
        (use("shadow", agreement=0.9), "needs one of `live`"),
        (use("shadow", column="said", agreement=0.9, since="2026-01-01"), "`since` is for a"),
        (use("shadow", model="m", agreement=0.9, since="soon"), "Check 'shadow': since"),
        (use("shadow", live="x", margins={"f1": 0.1}), "`margins` names 'f1'"),
        (use("shadow", column="said", margins={"exact_match": 0.1}), "has no metrics"),
    ],
)
def test_check_that_makes_no_sense_is_refused_before_the_run(
    tmp_path: Path, wanted: Any, words: str
) -> None:
    with pytest.raises((InvalidRequest, ValueError), match=words):
        evaluate(tmp_path, Scripted(right), wanted)


def test_same_check_may_stand_twice_under_two_names() -> None:
    one = CheckUse.model_validate({"check": "golden", "name": "must", "with": {"metric": "f1"}})
    assert (one.name, one.check) == ("must", "golden")
