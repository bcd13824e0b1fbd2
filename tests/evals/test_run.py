"""Runs: in order, the same twice, through failures of targets and metrics, and resumed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from evals import execution, records, run
from evals.context import Context
from evals.evaluation import Evaluation
from evals.memory import Memory
from evals.run import Plan
from evals.trial import Case, Output, Trial
from infra.database.engine import Database
from infra.errors import (
    BudgetExceeded,
    EngineFailed,
    InvalidConfiguration,
    InvalidRequest,
    NotFound,
    Overloaded,
    RagstoneError,
)
from scripted_evals import ROWS, Judged, Scripted, carry_out, make_plan, right, write_rows

BROKEN = "scripted_evals.broken"


def files_of(evaluation: Evaluation, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    records.write(evaluation, {"verdict": "pass"}, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_every_case_is_tried_and_scored_in_the_order_of_the_dataset(tmp_path: Path) -> None:
    async def late_first(case: Case, seed: int) -> Output:
        await asyncio.sleep(0.02 if case.id == "q0" else 0)
        return right(case, seed)

    done = carry_out(make_plan(tmp_path, Scripted(late_first), repeats=2), tmp_path)
    assert [trial.key for trial in done.trials] == [
        (row["id"], repeat) for row in ROWS for repeat in (0, 1)
    ]
    assert done.mean("exact_match") == 1
    assert done.mean("latency") is not None
    assert done.failures == 0


def test_no_more_cases_run_side_by_side_than_allowed(tmp_path: Path) -> None:
    now, most = 0, 0

    async def count(case: Case, seed: int) -> Output:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.002)
        now -= 1
        return right(case, seed)

    carry_out(make_plan(tmp_path, Scripted(count), concurrency=3), tmp_path)
    assert most == 3


def test_same_suite_twice_gives_the_same_bytes_whatever_the_order_and_speed(tmp_path: Path) -> None:
    async def slow(case: Case, seed: int) -> Output:
        await asyncio.sleep(seed % 7 / 1000)
        return Output(f"{case.expected} {seed}")

    found = []
    for number, concurrency in enumerate((1, 5)):
        plan = make_plan(tmp_path, Scripted(slow), repeats=2, concurrency=concurrency, seed=7)
        done = carry_out(plan, tmp_path)
        found.append(files_of(done, tmp_path / f"run{number}"))
    description, others = records.DESCRIPTION, set(records.SAME) - {records.DESCRIPTION}
    assert {name: found[0][name] for name in others} == {name: found[1][name] for name in others}
    assert found[0][description] != found[1][description]  # the concurrency, and nothing else
    assert b'"concurrency": 1' in found[0][description]
    assert found[0][records.MEASURED] != found[1][records.MEASURED]


def test_seed_of_a_case_depends_on_nothing_but_suite_case_and_repeat() -> None:
    seeds = {
        execution.seed_of(seed, case, repeat)
        for seed in (0, 1)
        for case in "ab"
        for repeat in (0, 1)
    }
    assert len(seeds) == 8
    assert execution.seed_of(3, "a", 1) == execution.seed_of(3, "a", 1)
    assert all(0 <= seed < 2**31 for seed in seeds)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("raises", "ZeroDivisionError"),
        ("nan", "finite number"),
        ("beyond", "1.5, outside its bounds"),
        ("number", "no Score"),
        ("nothing", "no Score"),
        ("unwritable", "not JSON"),
        ("hangs", "nothing came within 0.05 s"),
    ],
)
def test_metric_that_fails_is_an_error_with_its_reason_and_loses_no_case(
    tmp_path: Path, how: str, words: str
) -> None:
    metrics = [{"metric": BROKEN, "with": {"how": how}}, "exact_match"]
    plan = make_plan(tmp_path, Scripted(right), metrics=metrics, timeout_seconds=0.05)
    done = carry_out(plan, tmp_path)
    assert done.mean("broken") is None
    assert done.mean("exact_match") == 1
    for score in done.scores("broken"):
        assert score.state == "error"
        assert words in score.reason


async def no_pause(seconds: float) -> None:
    pass


def try_once(tmp_path: Path, target: Scripted, **changes: Any) -> Trial:
    return try_all(make_plan(tmp_path, target, **changes), no_pause)[0]


def try_all(plan: Plan, sleep: Callable[[float], Awaitable[None]]) -> list[Trial]:
    work = execution.Work(plan.suite, plan.target, plan.metrics, sleep=sleep)
    planned = [(plan.cases.cases[0], 0)]
    return asyncio.run(execution.run_trials(work, planned, on_trial=lambda _: None))


@pytest.mark.parametrize("error", [EngineFailed("down"), Overloaded("busy"), OSError("gone")])
def test_what_is_not_the_cases_fault_is_tried_again(tmp_path: Path, error: Exception) -> None:
    errors = [error, error]

    def recovering(case: Case, seed: int) -> Output:
        if errors:
            raise errors.pop()
        return right(case, seed)

    trial = try_once(tmp_path, Scripted(recovering), retries=2)
    assert trial.attempts == 3
    assert trial.scores["exact_match"].value == 1


@pytest.mark.parametrize("error", [InvalidRequest("too long"), KeyError("x"), BudgetExceeded("no")])
def test_what_would_fail_again_is_not_tried_again(tmp_path: Path, error: Exception) -> None:
    def failing(case: Case, seed: int) -> Output:
        raise error

    trial = try_once(tmp_path, Scripted(failing), retries=5)
    assert trial.output is None
    assert trial.attempts == 1
    assert trial.scores["exact_match"].state == "error"
    assert trial.failure in trial.scores["exact_match"].reason


def test_pause_grows_and_is_at_least_what_the_server_asks_for(tmp_path: Path) -> None:
    pauses: list[float] = []

    async def note(seconds: float) -> None:
        pauses.append(seconds)

    def busy(case: Case, seed: int) -> Output:
        raise Overloaded("busy", retry_after_seconds=1.5)

    try_all(make_plan(tmp_path, Scripted(busy), retries=7), note)
    assert pauses == [1.5, 1.5, 2.0, 4.0, 8.0, 16.0, 20.0]


def test_output_that_cannot_be_written_is_a_failure_of_its_case_alone(tmp_path: Path) -> None:
    def half_a_pair(case: Case, seed: int) -> Output:
        return Output("\udc80" if case.id == "q1" else str(case.expected))

    done = carry_out(make_plan(tmp_path, Scripted(half_a_pair)), tmp_path)
    assert done.failures == 1
    assert "not text" in done.trials[1].failure


def test_target_that_hangs_ends_at_its_timeout(tmp_path: Path) -> None:
    async def hang(case: Case, seed: int) -> Output:
        await asyncio.sleep(60)
        return right(case, seed)

    trial = try_once(tmp_path, Scripted(hang), timeout_seconds=0.02, retries=0)
    assert "nothing came within 0.02 s" in trial.failure


def test_deadline_ends_the_run_and_resume_does_the_rest(tmp_path: Path) -> None:
    is_slow = True

    async def slow(case: Case, seed: int) -> Output:
        await asyncio.sleep(60 if is_slow and case.id == "q5" else 0)
        return right(case, seed)

    target = Scripted(slow)
    plan = make_plan(tmp_path, target, deadline_seconds=0.3, concurrency=1)
    done = carry_out(plan, tmp_path)
    assert done.failures == 7
    assert "the deadline of 0.3 s had passed" in done.trials[-1].failure
    run.finish(plan, done, tmp_path / "journals")
    is_slow = False
    again = carry_out(plan, tmp_path, resume=True)
    assert again.failures == 0
    assert [target.asked.count(row["id"]) for row in ROWS] == [1] * 5 + [2] + [1] * 6
    run.finish(plan, again, tmp_path / "journals")
    assert list((tmp_path / "journals").iterdir()) == []


def test_target_that_is_out_of_order_is_given_up_and_asked_again_by_resume(tmp_path: Path) -> None:
    write_rows(tmp_path, [{"question": str(number), "answer": "x"} for number in range(90)])
    is_down = True

    def failing(case: Case, seed: int) -> Output:
        if is_down:
            raise EngineFailed("connection refused")
        return right(case, seed)

    target = Scripted(failing)
    plan = make_plan(tmp_path, target, retries=0, concurrency=1)
    done = carry_out(plan, tmp_path)
    assert done.failures == 90
    assert len(target.asked) == execution.GIVE_UP_AFTER
    assert "in a row" in done.trials[-1].failure
    is_down = False
    assert carry_out(plan, tmp_path, resume=True).failures == 0


def test_judge_is_asked_once_for_each_thing_over_repeats_and_runs(tmp_path: Path) -> None:
    Judged.calls.clear()
    metrics = [{"metric": "scripted_evals.judged"}]
    plan = make_plan(tmp_path, Scripted(right), metrics=metrics, repeats=3)
    for _ in range(2):
        context = Context(memory=Memory(tmp_path / "calls"))
        done = carry_out(plan, tmp_path, context=context)
        assert done.mean("judged") == 1
    assert sorted(Judged.calls) == sorted(row["id"] for row in ROWS)


def test_run_without_a_network_asks_nobody_what_is_not_remembered(tmp_path: Path) -> None:
    Judged.calls.clear()
    plan = make_plan(tmp_path, Scripted(right), metrics=["scripted_evals.judged"])
    carry_out(plan, tmp_path, context=Context(memory=Memory(tmp_path / "calls")))
    for known in (tmp_path / "calls").rglob("*.json"):
        if b'"It is 3."' in known.read_bytes():
            known.unlink()
    offline = Memory(tmp_path / "calls", is_offline=True)
    assert not offline.is_empty
    assert Memory(tmp_path / "other").is_empty
    done = carry_out(plan, tmp_path, context=Context(memory=offline))
    assert len(Judged.calls) == len(ROWS)
    assert [score.state for score in done.scores("judged")].count("scored") == len(ROWS) - 1
    assert "offline" in done.trials[3].scores["judged"].reason
    assert done.postponed == 1  # a run with a network makes it up


def test_failure_of_a_judge_is_not_remembered(tmp_path: Path) -> None:
    memory = Memory(tmp_path)

    async def fail() -> None:
        raise EngineFailed("down")

    async def answer() -> dict[str, int]:
        return {"score": 1}

    with pytest.raises(EngineFailed):
        asyncio.run(memory.recall({"a": 1}, fail))
    assert asyncio.run(memory.recall({"a": 1}, answer)) == {"score": 1}
    assert asyncio.run(Memory(tmp_path).recall({"a": 1}, fail)) == {"score": 1}
    for path in tmp_path.rglob("*.json"):  # a disk that was full
        path.write_bytes(path.read_bytes()[:9])
    assert asyncio.run(Memory(tmp_path).recall({"a": 1}, answer)) == {"score": 1}


def test_progress_is_told_of_every_trial_once(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    plan = make_plan(tmp_path, Scripted(right), repeats=2)
    carry_out(plan, tmp_path, on_trial=lambda trial: told.append(trial.key))
    assert sorted(told) == sorted((row["id"], repeat) for row in ROWS for repeat in (0, 1))
    told.clear()
    carry_out(plan, tmp_path, resume=True, on_trial=lambda trial: told.append(trial.key))
    assert len(told) == 24


def test_full_disk_ends_the_run_with_its_own_words(tmp_path: Path) -> None:
    def full(trial: Trial) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        carry_out(make_plan(tmp_path, Scripted(right)), tmp_path, on_trial=full)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"metrics": ["scripted_evals.nosuch"]}, InvalidConfiguration, "nosuch"),
        ({"metrics": ["builtins.dict"]}, InvalidConfiguration, "no `score`"),
        (
            {"metrics": [{"metric": "contains", "with": {"mtach": "all"}}]},
            InvalidRequest,
            "'match'",
        ),
        ({"gates": [{"metric": "latency", "floor": 1}]}, InvalidRequest, "`ceiling`"),
        ({"gates": [{"metric": "exact_match", "ceiling": 1}]}, InvalidRequest, "`floor`"),
        ({"dataset": {"file": "case.jsonl"}}, NotFound, "did you mean"),
        (
            {"metrics": ["contains", {"metric": "aurc", "with": {"of": "containz"}}]},
            InvalidRequest,
            "Metric 'aurc': unknown metric of cases 'containz'; did you mean 'contains'",
        ),
        (
            {"metrics": ["latency", {"metric": "aurc", "with": {"of": "latency"}}]},
            InvalidRequest,
            "not from 0 to 1",
        ),
    ],
)
def test_plan_that_cannot_be_is_refused_before_anything_is_asked(
    tmp_path: Path, changes: Any, error: type[RagstoneError], words: str
) -> None:
    target = Scripted(right)
    with pytest.raises(error, match=words):
        make_plan(tmp_path, target, **changes)
    assert target.asked == []


def test_evaluation_survives_being_written(tmp_path: Path) -> None:
    plan = make_plan(
        tmp_path,
        Scripted(right),
        slices=[{"name": "few", "where": {"id": ["q1", "q2"]}}],
        gates=[{"metric": "exact_match", "slice": "few", "floor": 0.5}],
    )
    done = carry_out(plan, tmp_path)
    files_of(done, tmp_path / "files")
    again, verdict = records.read(tmp_path / "files")
    assert again == done
    assert again.described.digest == plan.described.digest
    assert verdict["verdict"] == "pass"
    assert len(again.members("few")) == 2


def test_evaluation_is_stored_with_what_it_was_made_from(
    tmp_path: Path, database: Database
) -> None:
    from infra.artifacts.store import open_store

    store = open_store(tmp_path / "store", database)
    model = store.put(write_rows(tmp_path), "model/numbers")
    target = Scripted(right, parents=[("target", str(model))])
    plan = make_plan(tmp_path, target)
    done = carry_out(plan, tmp_path)
    stored = run.publish(plan, done, {"verdict": "pass"}, store=store)
    assert str(stored) == "evaluation/numbers@v1"
    assert [edge.role for edge in store.lineage(str(stored)).edges] == ["target"]
    assert store.resolve(str(stored)).metadata["evaluation"]["verdict"] == "pass"
