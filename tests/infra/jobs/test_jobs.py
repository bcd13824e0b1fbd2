"""Jobs through a real worker: steps, retries, cancelling, progress, dead letters."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import insert, select

from infra.database.engine import Database
from infra.database.schema import doomed_blob
from infra.errors import Conflict, InvalidRequest, NotFound
from infra.jobs.attempt import Attempt, Interrupted
from infra.jobs.definitions import Options, Registry, Retries
from infra.jobs.queue import Jobs
from infra.jobs.worker import Worker

AT_ONCE = Retries(first_delay_seconds=0.0)


def digests(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.scalars(select(doomed_blob.c.digest).order_by(doomed_blob.c.digest)))


def test_job_returns_what_its_function_returns(
    jobs: Jobs, registry: Registry, start_worker: Callable[..., Worker]
) -> None:
    @registry.job("add")
    def add(attempt: Attempt, *, left: int, right: int) -> dict[str, int]:
        return {"sum": attempt.step("add", lambda: left + right)}

    start_worker()
    started = jobs.start("add", {"left": 2, "right": 3})
    finished = jobs.wait(started.id)
    assert (started.state, finished.state, finished.result) == ("queued", "succeeded", {"sum": 5})
    assert finished.progress.fraction == 1.0
    (attempt,) = jobs.attempts(started.id)
    assert (attempt.outcome, attempt.error) == ("succeeded", None)


def test_finished_steps_are_not_run_again_when_a_later_one_fails(
    jobs: Jobs, registry: Registry, start_worker: Callable[..., Worker]
) -> None:
    ran: list[str] = []

    @registry.job("flaky", retries=AT_ONCE)
    def flaky(attempt: Attempt) -> list[str]:
        first = attempt.step("first", lambda: ran.append("first") or "one")
        second = attempt.transaction("second", lambda _: ran.append("second") or "two")

        def third() -> str:
            ran.append("third")
            if ran.count("third") < 3:
                raise OSError("disk on fire")
            return "three"

        return [first, second, attempt.step("third", third)]

    start_worker()
    finished = jobs.wait(jobs.start("flaky").id)
    assert finished.result == ["one", "two", "three"]
    assert ran == ["first", "second", "third", "third", "third"]
    assert finished.failures == 2
    fences = [attempt.fence for attempt in jobs.attempts(finished.id)]
    assert fences == sorted(set(fences))
    assert [line.level for line in jobs.logs(finished.id)] == ["error", "error"]


def test_error_of_a_step_is_raised_in_the_job(
    jobs: Jobs, registry: Registry, start_worker: Callable[..., Worker]
) -> None:
    @registry.job("careful")
    def careful(attempt: Attempt) -> str:
        def fail() -> None:
            raise KeyError("gone")

        try:
            attempt.step("look", fail)
        except KeyError as error:
            key = error.args[0]
            return attempt.step("report", lambda: f"missing {key}")
        return "found"

    start_worker()
    assert jobs.wait(jobs.start("careful").id).result == "missing gone"


def test_job_that_keeps_failing_joins_the_dead_letters_and_can_be_requeued(
    jobs: Jobs, registry: Registry, start_worker: Callable[..., Worker]
) -> None:
    broken = threading.Event()
    broken.set()
    prepared: list[int] = []

    @registry.job("publish", retries=Retries(attempts=2, first_delay_seconds=0.0))
    def publish(attempt: Attempt) -> str:
        attempt.step("prepare", lambda: prepared.append(1))
        if broken.is_set():
            raise TimeoutError("nobody answers")
        return "done"

    start_worker()
    job_id = jobs.start("publish").id
    assert jobs.wait(job_id).error == "TimeoutError: nobody answers"
    assert [each.id for each in jobs.dead_letters()] == [job_id]
    broken.clear()
    assert jobs.requeue(job_id).failures == 0
    assert jobs.wait(job_id).result == "done"
    assert prepared == [1]
    assert jobs.dead_letters() == []
    with pytest.raises(Conflict, match="succeeded"):
        jobs.requeue(job_id)


def test_requeue_from_scratch_forgets_the_steps(
    jobs: Jobs, registry: Registry, start_worker: Callable[..., Worker]
) -> None:
    ran: list[str] = []

    @registry.job("two", retries=Retries(attempts=1))
    def two(attempt: Attempt) -> None:
        attempt.step("first", lambda: ran.append("first"))
        if len(ran) < 2:
            raise OSError("not yet")

    start_worker()
    job_id = jobs.start("two").id
    assert jobs.wait(job_id).state == "failed"
    jobs.requeue(job_id, from_scratch=True)
    assert jobs.wait(job_id).state == "succeeded"
    assert ran == ["first", "first"]


def test_wait_before_a_retry_grows_up_to_its_limit() -> None:
    retries = Retries(first_delay_seconds=2, factor=3, max_delay_seconds=20)
    assert [retries.delay_seconds(failures) for failures in (1, 2, 3, 4)] == [2, 6, 18, 20]


def test_failed_job_is_not_tried_again_before_its_time(
    jobs: Jobs, registry: Registry, start_worker: Callable[..., Worker]
) -> None:
    tried = threading.Event()

    @registry.job("late", retries=Retries(first_delay_seconds=3600))
    def late(attempt: Attempt) -> None:
        tried.set()
        raise OSError("later")

    start_worker()
    job_id = jobs.start("late").id
    assert tried.wait(10)
    deadline = time.monotonic() + 10
    while jobs.get(job_id).state == "running" and time.monotonic() < deadline:
        time.sleep(0.02)  # its failure is being written down
    with pytest.raises(Exception, match="still queued"):
        jobs.wait(job_id, timeout_seconds=0.5)
    waiting = jobs.get(job_id)
    assert waiting.available_at - waiting.created_at > timedelta(minutes=59)


def test_error_that_time_cannot_mend_is_given_up_at_once(
    jobs: Jobs, registry: Registry, start_worker: Callable[..., Worker]
) -> None:
    @registry.job("wrong", retries=AT_ONCE)
    def wrong(attempt: Attempt) -> None:
        raise NotFound("collection", "papers")

    start_worker()
    finished = jobs.wait(jobs.start("wrong").id)
    assert (finished.state, finished.failures) == ("failed", 1)


def test_result_that_is_not_json_fails_with_the_name_of_the_step(
    jobs: Jobs, registry: Registry, start_worker: Callable[..., Worker]
) -> None:
    @registry.job("sets")
    def sets(attempt: Attempt) -> None:
        attempt.step("collect", lambda: {1, 2})

    @registry.job("nan")
    def nan(attempt: Attempt) -> float:
        return float("nan")

    start_worker()
    assert "step 'collect'" in (jobs.wait(jobs.start("sets").id).error or "")
    assert "job 'nan'" in (jobs.wait(jobs.start("nan").id).error or "")


def test_process_exit_from_a_job_is_a_failure_of_the_job(
    jobs: Jobs, registry: Registry, start_worker: Callable[..., Worker]
) -> None:
    @registry.job("exit", retries=Retries(attempts=1))
    def leave(attempt: Attempt) -> None:
        raise SystemExit(3)

    start_worker()
    assert jobs.wait(jobs.start("exit").id).error == "SystemExit: 3"


def test_transaction_that_raises_leaves_nothing(
    jobs: Jobs, registry: Registry, database: Database, start_worker: Callable[..., Worker]
) -> None:
    tries: list[int] = []

    @registry.job("write", retries=AT_ONCE)
    def write(attempt: Attempt) -> None:
        def change(connection: object) -> None:
            tries.append(len(tries))
            connection.execute(insert(doomed_blob).values(digest=f"try {len(tries)}"))  # type: ignore[attr-defined]
            if len(tries) == 1:
                raise OSError("half way")

        attempt.transaction("change", change)

    start_worker()
    jobs.wait(jobs.start("write").id)
    assert digests(database) == ["try 2"]


def test_running_job_is_cancelled_while_it_sleeps(
    jobs: Jobs, registry: Registry, start_worker: Callable[..., Worker]
) -> None:
    asleep = threading.Event()
    cleaned: list[str] = []

    @registry.job("long")
    def long(attempt: Attempt) -> None:
        asleep.set()
        try:
            attempt.sleep(3600)
        except Interrupted as interruption:
            cleaned.append(interruption.reason)
            raise

    start_worker()
    job_id = jobs.start("long").id
    assert asleep.wait(10)
    assert jobs.cancel(job_id).cancel_requested
    assert jobs.wait(job_id, timeout_seconds=10).state == "cancelled"
    assert cleaned == ["cancelled"]
    assert [each.outcome for each in jobs.attempts(job_id)] == ["cancelled"]


def test_cancelled_job_that_fails_meanwhile_is_not_tried_again(
    jobs: Jobs, registry: Registry, start_worker: Callable[..., Worker]
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    @registry.job("stubborn", retries=AT_ONCE)
    def stubborn(attempt: Attempt) -> None:
        begun.set()
        go_on.wait(10)
        raise OSError("broken")

    start_worker()
    job_id = jobs.start("stubborn").id
    assert begun.wait(10)
    jobs.cancel(job_id)
    go_on.set()
    assert jobs.wait(job_id).state == "cancelled"
    assert [each.outcome for each in jobs.attempts(job_id)] == ["failed"]


def test_progress_and_log_are_read_while_the_job_runs(
    jobs: Jobs, registry: Registry, start_worker: Callable[..., Worker]
) -> None:
    seen, go_on = threading.Event(), threading.Event()

    @registry.job("slow")
    def slow(attempt: Attempt) -> None:
        attempt.log("begun")
        attempt.progress(0.25, "a quarter")
        seen.set()
        go_on.wait(10)
        attempt.log("careful", level="warning")

    start_worker()
    job_id = jobs.start("slow").id
    states = jobs.watch(job_id)
    assert seen.wait(10)
    current = jobs.get(job_id)
    assert (current.progress.fraction, current.progress.message) == (0.25, "a quarter")
    (first,) = jobs.logs(job_id)
    assert (first.message, first.level, first.attempt) == ("begun", "info", current.attempt)
    go_on.set()
    assert [state.state for state in states][-1] == "succeeded"
    (second,) = jobs.logs(job_id, after=first.sequence)
    assert (second.message, second.level) == ("careful", "warning")


def test_sleep_lasts_as_long_as_asked_and_only_once(
    jobs: Jobs, registry: Registry, start_worker: Callable[..., Worker]
) -> None:
    woken: list[datetime] = []

    @registry.job("nap", retries=AT_ONCE)
    def nap(attempt: Attempt) -> None:
        attempt.sleep(0.6)
        woken.append(datetime.now(UTC))
        if len(woken) == 1:
            raise OSError("again")

    start_worker()
    finished = jobs.wait(jobs.start("nap").id)
    assert finished.started_at is not None
    assert woken[0] - finished.started_at >= timedelta(seconds=0.6)
    attempts = jobs.attempts(finished.id)
    assert woken[1] - attempts[1].started_at < timedelta(seconds=3)


def test_job_does_not_start_before_its_time(
    jobs: Jobs, registry: Registry, start_worker: Callable[..., Worker]
) -> None:
    @registry.job("timed")
    def timed(attempt: Attempt) -> None:
        del attempt

    start_worker()
    due = datetime.now(UTC) + timedelta(seconds=0.7)
    finished = jobs.wait(jobs.start("timed", options=Options(at=due)).id)
    assert finished.started_at is not None
    assert finished.started_at >= due


def test_code_that_changed_under_a_job_is_said_so(
    jobs: Jobs, registry: Registry, start_worker: Callable[..., Worker]
) -> None:
    names = iter(["load", "fetch", "fetch", "fetch"])

    @registry.job("changed", retries=Retries(attempts=2, first_delay_seconds=0.0))
    def changed(attempt: Attempt) -> None:
        attempt.step(next(names), lambda: 1)
        if names.__length_hint__() == 3:
            raise OSError("first attempt")

    start_worker()
    job_id = jobs.start("changed").id
    assert "requeue the job from scratch" in (jobs.wait(job_id).error or "")
    jobs.requeue(job_id, from_scratch=True)
    assert jobs.wait(job_id).state == "succeeded"


def test_step_that_could_not_be_remembered_is_refused(
    jobs: Jobs, registry: Registry, start_worker: Callable[..., Worker]
) -> None:
    refused: list[str] = []

    def try_it(call: Callable[[], object]) -> None:
        try:
            call()
        except InvalidRequest as error:
            refused.append(error.message.partition(",")[0])

    @registry.job("careless")
    def careless(attempt: Attempt) -> None:
        thread = threading.Thread(target=try_it, args=[lambda: attempt.step("a", lambda: 1)])
        thread.start()
        thread.join()
        attempt.step("b", lambda: try_it(lambda: attempt.transaction("c", lambda _: 1)))
        attempt.transaction("d", lambda _: try_it(lambda: attempt.step("e", lambda: 1)))

    start_worker()
    assert jobs.wait(jobs.start("careless").id).state == "succeeded"
    assert refused == [
        "Step 'a' was called outside the thread of its job",
        "Step 'c' was called within another step",
        "Step 'e' was called within another step",
    ]
