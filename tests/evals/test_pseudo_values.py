"""Metrics of the whole set: reckoned over all cases, gated through pseudo-values."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn.metrics import f1_score

from evals import comparison, records, verdicts
from evals.declared import Gate
from evals.evaluation import Evaluation
from evals.gates import Claim, Verdict, check
from evals.metric import SetMetric, open_metric
from evals.pseudo_values import GROUPS, Row, pseudo_values
from evals.score_tables import ScoreTable, single
from evals.scores import Score
from evals.statistics.unchanged import Unchanged
from evals.trial import Case, Output, Trial
from scripted_evals import Scripted, carry_out, make_plan, write_rows

NUMBER = 300
LABELS = ("ham", "spam", "news")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    chance = random.Random(4)
    rows = [
        {"id": f"q{n}", "question": "?", "answer": chance.choice(LABELS), "half": n % 2}
        for n in range(NUMBER)
    ]
    write_rows(tmp_path, rows)
    return tmp_path


def evaluate(folder: Path, wrong: float, *, seed: int = 1, **changes: Any) -> Evaluation:
    """Have a share of the cases labelled wrongly."""
    chance = random.Random(seed)
    said = {
        f"q{n}": chance.choice(LABELS) if chance.random() < wrong else None for n in range(NUMBER)
    }

    def reply(case: Case, seed: int) -> Output:
        return Output(prediction=said[case.id] or case.expected)

    plan = make_plan(folder, Scripted(reply), metrics=["macro_f1", "exact_match"], **changes)
    return carry_out(plan, folder)


def test_metric_of_the_set_is_that_of_scikit_learn_on_all_and_on_each_slice(folder: Path) -> None:
    done = evaluate(folder, 0.3, slices=[{"name": "odd", "where": {"half": 1}}])
    for name in ("all", "odd"):
        trials = done.members(name)
        wanted = [trial.case.expected for trial in trials]
        given = [trial.output.prediction for trial in trials if trial.output]
        assert done.mean("macro_f1", name) == pytest.approx(
            f1_score(wanted, given, average="macro")
        )
    assert "macro_f1" not in done.trials[0].scores
    rows = {(row["metric"], row["slice"]): row for row in done.summary(measured=False)}
    assert rows["macro_f1", "all"]["scored"] == NUMBER


@pytest.mark.parametrize(("count", "verdict"), [(59, "pass"), (58, "inconclusive")])
def test_set_that_did_not_change_passes_a_margin_with_cases_enough(
    tmp_path: Path, count: int, verdict: str
) -> None:
    write_rows(
        tmp_path, [{"id": f"q{n}", "question": "?", "answer": LABELS[n % 2]} for n in range(count)]
    )
    gates = [{"metric": "macro_f1", "margin": 0.05}]
    done = evaluate(tmp_path, 0.3, gates=gates)
    [decision] = verdicts.judge(done, done).decisions
    assert (decision.method, decision.verdict.value) == ("no change", verdict), decision
    assert decision.interval is not None
    low, high = decision.interval.low, decision.interval.high
    assert -0.06 < low < -0.04 < 0.04 < high < 0.06


@given(clusters=st.integers(1, 500), share=st.floats(0.001, 0.999))
def test_as_often_as_the_level_says_a_change_is_seen_in_no_cluster(
    clusters: int, share: float
) -> None:
    found = Unchanged(clusters, 2.0)
    assert found.p_above(-2 * share) == pytest.approx(binom.pmf(0, clusters, share))
    assert found.p_below(2 * share) == found.p_above(-2 * share)
    assert found.p_above(0.0) == found.p_below(0.0) == 1.0
    interval = found.interval(0.9)
    assert found.p_above(interval.low) == pytest.approx(0.05)


def test_pseudo_values_of_a_mean_are_the_means_of_groups(folder: Path) -> None:
    done = evaluate(folder, 0.3)
    rows = pseudo_values(SetAccuracy(), done.trials)
    assert np.mean([row.value for row in rows]) == pytest.approx(done.mean("exact_match"))
    assert len({row.group for row in rows}) == GROUPS
    for group in ("0", "17"):
        members = [at for at, row in enumerate(rows) if row.group == group]
        right = [done.trials[at].scores["exact_match"].value or 0.0 for at in members]
        assert rows[members[0]].value == pytest.approx(np.mean(right))


def test_pseudo_values_of_a_mean_are_means_of_groups_also_where_these_differ_in_size() -> None:
    """Of one case or of nine: only then is their mean over cases the metric of the set."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(1, 10, size=60)
    trials = [
        predicted(f"q{n}", "ham", rng.choice(["ham", "spam"]), cluster=f"c{cluster}")
        for n, cluster in enumerate(np.repeat(np.arange(60), sizes))
    ]
    rows = pseudo_values(SetAccuracy(), trials)
    right = np.array([one.output.prediction == "ham" for one in trials if one.output])
    assert np.mean([row.value for row in rows]) == pytest.approx(right.mean())
    groups = np.array([row.group for row in rows])
    assert len(set(groups)) == 60
    for group in set(groups):
        at = np.flatnonzero(groups == group)
        assert rows[at[0]].value == pytest.approx(right[at].mean())


def test_trials_that_take_no_part_are_unscored_and_weigh_nothing() -> None:
    """A fifth of the cases has no reference: dropped silently, the gate would pass without them."""
    trials = [predicted(f"q{n}", "ham" if n % 5 else None, "ham") for n in range(300)]
    trials += [predicted("q300", "spam", "ham")]
    metric = cast("SetMetric", open_metric("macro_f1", {}))
    rows = pseudo_values(metric, trials)
    assert [row.state for row in rows[:6]] == ["unscored", *["scored"] * 4, "unscored"]
    of_part = pseudo_values(metric, [one for one in trials if one.case.expected])
    assert len(of_part) == 241
    sample = single(_table(rows))
    assert sample.coverage == pytest.approx(241 / 301)
    judged = check([Claim(Gate("macro_f1", "floor", 0.1, bounds=None), _table(rows))])[0]
    assert judged.verdict is Verdict.INFRASTRUCTURE


def test_cases_of_one_cluster_are_in_one_group_and_the_same_one_in_every_run(
    tmp_path: Path,
) -> None:
    rows = [
        {"id": f"q{n}", "question": "?", "answer": LABELS[n % 3], "cluster": f"c{n // 7}"}
        for n in range(NUMBER)
    ]
    write_rows(tmp_path, rows)
    metric = open_metric("macro_f1", {})
    first, second = (
        pseudo_values(metric, evaluate(tmp_path, 0.2, seed=seed).trials)  # type: ignore[arg-type]
        for seed in (1, 2)
    )
    groups = {(row.case, row.group) for row in first}
    assert groups == {(row.case, row.group) for row in second}
    by_cluster: dict[int, set[str]] = {}
    for case, group in groups:
        by_cluster.setdefault(int(case[1:]) // 7, set()).add(group)
    assert all(len(found) == 1 for found in by_cluster.values())


def test_gate_on_f1_tells_a_worse_classifier_from_an_equal_one(folder: Path) -> None:
    gates = [{"metric": "macro_f1", "margin": 0.08}]
    baseline = evaluate(folder, 0.1, gates=gates)
    assert verdicts.judge(evaluate(folder, 0.1, seed=2, gates=gates), baseline).verdict == "pass"
    worse = evaluate(folder, 0.6, seed=2, gates=gates)
    assert verdicts.judge(worse, baseline).verdict == "fail"
    rows = comparison.compare(baseline, worse)
    row = next(row for row in rows if row.metric == "macro_f1")
    assert row.high is not None
    assert row.high < 0


@pytest.mark.parametrize("floor", [0.78, 0.85])
def test_floor_on_f1_is_right_as_often_as_it_says(tmp_path: Path, floor: float) -> None:
    passes = 0
    for seed in range(16):
        chance = np.random.default_rng(seed)
        write_rows(
            tmp_path,
            [
                {"id": f"q{n}", "question": "?", "answer": str(chance.choice(LABELS[:2]))}
                for n in range(200)
            ],
        )
        draws = iter(chance.random(200))

        def reply(case: Case, seed: int, draws: Any = draws) -> Output:
            other = "ham" if case.expected == "spam" else "spam"
            return Output(prediction=case.expected if next(draws) < 0.85 else other)

        plan = make_plan(
            tmp_path,
            Scripted(reply),
            metrics=["scripted_evals.quick_f1"],
            gates=[{"metric": "quick_f1", "floor": floor}],
        )
        passes += verdicts.judge(carry_out(plan, tmp_path)).verdict == "pass"
    if floor == 0.85:  # the truth: a pass is a false alarm, 5 % of the time
        assert passes <= binom.ppf(0.95, 16, 0.05)
    else:
        assert passes >= 9


def test_evaluation_with_a_metric_of_the_set_survives_being_written(folder: Path) -> None:
    done = evaluate(folder, 0.2)
    out = folder / "files"
    out.mkdir()
    records.write(done, {"verdict": "ungated"}, out)
    again, _ = records.read(out)
    assert again == done
    assert again.mean("macro_f1") == done.mean("macro_f1")


class SetAccuracy:
    """A mean over cases as a metric of the set: its pseudo-values are known."""

    version, bounds, higher_is_better = 1, (0.0, 1.0), True
    is_measured = is_pass_or_fail = False

    def takes_part(self, trial: Trial) -> bool:
        return trial.output is not None

    def score_set(self, trials: Sequence[Trial]) -> Score:
        right = [one.output.prediction == one.case.expected for one in trials if one.output]
        return Score.of(float(np.mean(right)))


def predicted(name: str, expected: Any, prediction: Any, *, cluster: str = "") -> Trial:
    return Trial(
        Case(name, {}, expected, cluster=cluster or name), 0, Output(prediction=prediction)
    )


def _table(rows: Sequence[Row]) -> ScoreTable:
    return ScoreTable(
        [row.case for row in rows],
        [row.value for row in rows],
        [row.state for row in rows],
        [row.group for row in rows],
    )
