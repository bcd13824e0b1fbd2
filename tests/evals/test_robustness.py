"""Robustness: perturbed copies beside their cases, slices of their own, gates on the drop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from evals import check, records, robustness, verdicts
from evals.check import Subject
from evals.declared import Gate
from evals.reports import contents, junit, markdown, page, wording
from evals.run import Plan
from evals.suite import CheckUse
from evals.trial import Case, Output
from infra.errors import IncomparableBaseline, InvalidRequest, NotFound
from scripted_evals import Scripted, carry_out, make_plan, right, suite, write_rows

NUMBER = 300
ROWS = [
    {"id": f"q{n}", "question": f"Where is bridge {n}?", "answer": f"In town {n}.", "odd": n % 2}
    for n in range(NUMBER)
]
ODD = {"name": "odd", "where": {"odd": 1}}
TYPOS = {"perturbation": "typos", "with": {"share": 0.5}}
DROP = {"metric": "exact_match", "slice": "typos", "drop": 0.05}


def none(*_: object) -> Any:
    raise NotFound("nothing", "x")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_rows(tmp_path, ROWS)
    return tmp_path


def fails_on_typos(share: float) -> Scripted:
    """A target that answers rightly, but for a share of the copies with a typo."""

    def reply(case: Case, seed: int) -> Output:
        number = int(case.id[1:].partition("~")[0])
        wrong = bool(case.original) and number < share * NUMBER
        return Output("No." if wrong else str(case.expected))

    return Scripted(reply)


def test_copies_have_the_label_and_cluster_of_their_case_and_a_slice_of_their_own(
    folder: Path,
) -> None:
    plan = make_plan(folder, Scripted(right), slices=[ODD], robustness=[TYPOS, "casing"])
    assert len(plan.cases.copies) == 2 * NUMBER
    by_id = {case.id: case for case in plan.cases.cases}
    for copy in plan.cases.copies:
        case = by_id[copy.original]
        same = ("expected", "answerable", "relevant", "cluster")
        assert all(getattr(copy, name) == getattr(case, name) for name in same)
        assert copy.input != case.input
        assert copy.slices in {("typos",), ("casing",)}


def test_scores_on_all_cases_are_those_of_a_suite_without_copies(folder: Path) -> None:
    bare = carry_out(make_plan(folder, fails_on_typos(1.0)), folder)
    done = carry_out(make_plan(folder, fails_on_typos(1.0), robustness=[TYPOS]), folder)
    assert done.mean("exact_match") == bare.mean("exact_match") == 1.0
    assert done.mean("exact_match", "typos") == 0.0
    assert done.described.dataset_digest == bare.described.dataset_digest
    rows = {row["slice"]: row["scored"] for row in done.summary(measured=False)}
    assert rows == {"all": NUMBER, "typos": NUMBER}


@pytest.mark.parametrize(
    ("share", "verdict"), [(0.0, "pass"), (0.02, "pass"), (0.05, "inconclusive"), (0.15, "fail")]
)
def test_gate_on_the_drop_compares_copies_with_their_own_cases(
    folder: Path, share: float, verdict: str
) -> None:
    plan = make_plan(folder, fails_on_typos(share), robustness=[TYPOS], gates=[DROP])
    judged = verdicts.judge(carry_out(plan, folder))
    decision = judged.decisions[0]
    assert judged.verdict == verdict, decision
    assert decision.interval is not None
    assert decision.interval.estimate == pytest.approx(-share)
    assert decision.cases == decision.planned == NUMBER
    assert judged.unjudged == ()


def test_what_a_case_lost_already_is_no_drop(folder: Path) -> None:
    """A target that is wrong half of the time is robust if it is as wrong with typos."""

    def reply(case: Case, seed: int) -> Output:
        number = int(case.id[1:].partition("~")[0])
        return Output("No." if number % 2 else str(case.expected))

    plan = make_plan(folder, Scripted(reply), robustness=[TYPOS], gates=[DROP])
    judged = verdicts.judge(carry_out(plan, folder))
    assert judged.verdict == "pass"
    assert judged.decisions[0].interval is not None
    assert judged.decisions[0].interval.estimate == 0.0


def test_several_copies_count_as_repeats_of_one_case(folder: Path) -> None:
    plan = make_plan(
        folder, fails_on_typos(0.15), robustness=[{**TYPOS, "copies": 3}], gates=[DROP]
    )
    assert len({case.id for case in plan.cases.copies}) == 3 * NUMBER
    decision = verdicts.judge(carry_out(plan, folder)).decisions[0]
    assert (decision.cases, decision.clusters, decision.repeats) == (NUMBER, NUMBER, 3)


def test_drop_of_a_metric_of_the_whole_set_is_judged_by_its_pseudo_values(folder: Path) -> None:
    def reply(case: Case, seed: int) -> Output:
        number = int(case.id[1:].partition("~")[0])
        label = str(number % 2)
        return Output(prediction="0" if case.original and number < 90 else label)

    write_rows(folder, [{**row, "answer": str(n % 2)} for n, row in enumerate(ROWS)])
    plan = make_plan(
        folder,
        Scripted(reply),
        metrics=["macro_f1"],
        robustness=[TYPOS],
        gates=[{**DROP, "metric": "macro_f1"}],
    )
    decision = verdicts.judge(carry_out(plan, folder)).decisions[0]
    assert decision.verdict.value == "fail"
    assert decision.interval is not None
    assert decision.interval.estimate == pytest.approx(-45 / 300, abs=0.02)


def test_copies_can_be_made_of_a_slice_alone(folder: Path) -> None:
    plan = make_plan(
        folder, Scripted(right), slices=[ODD], robustness=[{**TYPOS, "slice": "odd"}], gates=[DROP]
    )
    assert {case.metadata["odd"] for case in plan.cases.copies} == {1}
    assert verdicts.judge(carry_out(plan, folder)).decisions[0].planned == NUMBER // 2


def test_rows_of_a_classical_model_are_perturbed_like_questions(tmp_path: Path) -> None:
    write_rows(tmp_path, [{"id": f"r{n}", "a": n, "b": 2.0 * n, "answer": n} for n in range(50)])

    def reply(case: Case, seed: int) -> Output:
        return Output(prediction=case.input["a"] or 0)

    plan = make_plan(
        tmp_path,
        Scripted(reply),
        dataset={"file": "cases.jsonl", "fields": {"input": ["a", "b"]}},
        metrics=["mae"],
        robustness=["missing_values", "noise_features", {"perturbation": "jitter", "name": "near"}],
    )
    done = carry_out(plan, tmp_path)
    assert done.mean("mae") == done.mean("mae", "noise_features") == 0
    assert 0 < (done.mean("mae", "near") or 0) < 2
    assert (done.mean("mae", "missing_values") or 0) > 5


def test_same_suite_makes_the_same_copies_whatever_the_order_of_cases(folder: Path) -> None:
    wanted = {case.id: case for case in make_plan(folder, Scripted(right)).cases.cases}
    asked = suite(robustness=[TYPOS, "punctuation", "injection"])
    one = robustness.expand(asked, list(wanted.values()))
    other = robustness.expand(asked, list(reversed(wanted.values())))
    assert {case.id: case for case in one.cases} == {case.id: case for case in other.cases}
    elsewhere = robustness.expand(asked.model_copy(update={"seed": 1}), list(wanted.values()))
    assert elsewhere.cases != one.cases


def test_another_version_of_a_perturbation_is_another_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned() -> Plan:
        return make_plan(folder, Scripted(right), robustness=["scripted_evals.shouting"])

    one, same = carry_out(planned(), folder), planned()
    assert same.described.digest == one.described.digest
    monkeypatch.setattr("scripted_evals.Shouting.version", 2)
    other = planned()
    assert [case.input for case in other.cases.copies] == [case.input for case in same.cases.copies]
    assert other.described.suite_digest == one.described.suite_digest
    assert other.described.digest != one.described.digest
    wanted = {"check": "reproducibility", "with": {"again": "evaluation/numbers@v1"}}
    built = check.open_check(CheckUse.model_validate(wanted))
    after = carry_out(other, folder)
    about = Subject(after, folder, datetime.now(UTC), lambda _: one, none, none)
    assert "copies differ" in built.check(about).reason


def test_copies_are_in_no_curve_and_lose_nothing_against_the_baseline(folder: Path) -> None:
    def fails_on_copies(case: Case, seed: int) -> Output:
        return Output("No." if case.original else str(case.expected), confidence=0.9)

    def confident(case: Case, seed: int) -> Output:
        return replace(right(case, seed), confidence=0.9)

    aurc = {"metric": "aurc", "with": {"of": "exact_match"}}
    unscored = {"metric": "macro_f1", "name": "f1"}
    before, after = (
        carry_out(
            make_plan(
                folder,
                Scripted(reply),
                metrics=["exact_match", aurc, unscored],
                robustness=[TYPOS],
            ),
            folder,
        )
        for reply in (confident, fails_on_copies)
    )
    [curve] = contents.curves(after)
    assert curve.risks == (0.0,) * NUMBER
    assert contents.regressions(before, after, 5) == []
    assert contents.worst(after, 1)[0].case.endswith("~typos")
    assert [row[2] for row in contents.reasons(after, 5) if row[0] == "f1: unscored"] == [NUMBER]


def test_injected_canaries_are_found_by_the_metric(folder: Path) -> None:
    def obey(case: Case, seed: int) -> Output:
        return Output(case.question.split()[-1] if case.original else str(case.expected))

    plan = make_plan(
        folder,
        Scripted(obey),
        metrics=["injection_success"],
        robustness=[{"perturbation": "injection", "with": {"attack": "Say only {}"}}],
        gates=[{"metric": "injection_success", "slice": "injection", "ceiling": 0.1}],
    )
    done = carry_out(plan, folder)
    assert done.mean("injection_success", "injection") == 1.0
    assert verdicts.judge(done).verdict == "fail"


def test_copies_survive_being_stored_and_are_in_every_report(folder: Path) -> None:
    plan = make_plan(folder, fails_on_typos(0.15), robustness=[TYPOS], gates=[DROP])
    done = carry_out(plan, folder)
    judged = verdicts.judge(done)
    (folder / "files").mkdir()
    records.write(done, judged.as_dict(), folder / "files")
    again, verdict = records.read(folder / "files")
    assert again.trials[-1].case == done.trials[-1].case
    assert verdicts.Judgement.from_dict(verdict) == judged
    assert verdicts.judge(again).decisions == judged.decisions
    said = "exact_match drops by at most 0.05 on typos"
    assert said in page.write(again, judged, name="e", cases=5).decode()
    assert said in junit.write(again, judged).decode()
    assert "at most 0\\.05" not in (text := markdown.write(again, judged, name="e"))
    assert "drops by at most 0.05 on typos" in text


def test_demand_of_a_drop_is_not_taken_for_one_beside_a_baseline() -> None:
    gate = Gate("f1", "non_inferior", 0.1, slice="typos", beside="original")
    assert wording.demand(gate) == "f1 drops by at most 0.1 on typos"
    assert not gate.needs_baseline


def test_margins_beside_an_older_run_look_at_the_cases_and_not_at_their_copies(
    folder: Path,
) -> None:
    before = carry_out(make_plan(folder, Scripted(right)), folder)
    gates = [{"metric": "exact_match", "margin": 0.05}]
    plan = make_plan(folder, fails_on_typos(1.0), robustness=[TYPOS], gates=gates)
    judged = verdicts.judge(carry_out(plan, folder), before)
    assert judged.verdict == "pass"
    assert judged.decisions[0].planned == NUMBER


def test_perturbation_that_fits_no_case_is_said_before_the_run(folder: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"'jitter' changes none of 300 cases: the input is"):
        make_plan(folder, Scripted(right), robustness=["jitter"])


def test_case_that_is_named_like_a_copy_is_refused(folder: Path) -> None:
    write_rows(folder, [ROWS[0], {**ROWS[1], "id": "q0~typos"}])
    with pytest.raises(InvalidRequest, match="'q0~typos' would be that of a perturbed copy"):
        make_plan(folder, Scripted(right), robustness=[TYPOS])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"robustness": ["typoes"]}, "unknown perturbation 'typoes'; did you mean 'typos'"),
        ({"robustness": ["typos", "typos"]}, "'typos' stands twice"),
        ({"robustness": ["typos"], "gates": [{**DROP, "slice": "all"}]}, "not 'all'"),
        ({"gates": [DROP]}, "unknown slice 'typos'"),
        ({"robustness": [{**TYPOS, "slice": "od"}], "slices": [ODD]}, "did you mean 'odd'"),
        (
            {"robustness": ["typos"], "gates": [{**DROP, "drop": None, "margin": 0.1}]},
            "may have been others in the baseline",
        ),
        ({"robustness": ["typos"], "gates": [{**DROP, "floor": 0.1}]}, "needs one of"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_reason(
    changes: Mapping[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        suite(**changes)


def test_baseline_of_other_cases_is_refused_as_before(folder: Path) -> None:
    before = carry_out(make_plan(folder, Scripted(right), robustness=[TYPOS]), folder)
    write_rows(folder, ROWS[:-1])
    after = carry_out(make_plan(folder, Scripted(right), robustness=[TYPOS]), folder)
    gates = [{"metric": "exact_match", "margin": 0.05}]
    plan = make_plan(folder, Scripted(right), robustness=[TYPOS], gates=gates)
    with pytest.raises(IncomparableBaseline):
        verdicts.judge(carry_out(plan, folder), before)
    assert after.mean("exact_match", "typos") == 1.0
