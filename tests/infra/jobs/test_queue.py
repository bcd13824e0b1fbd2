"""The queue without a worker: starting, listing, cancelling, and who works."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest

from infra.database.engine import Database
from infra.errors import Conflict, InvalidRequest, NotFound
from infra.jobs import leases
from infra.jobs.admission import Capacity, Claimant, TenantLimits
from infra.jobs.attempt import Attempt
from infra.jobs.definitions import Options, Registry, Resources
from infra.jobs.processes import this_process
from infra.jobs.queue import Jobs


def test_same_key_starts_one_job(jobs: Jobs) -> None:
    first = jobs.start("anything", {"n": 1}, options=Options(key="k"))
    assert jobs.start("anything", {"n": 1}, options=Options(key="k")).id == first.id
    assert jobs.start("anything", {"n": 1}, options=Options(key="k", tenant="b")).id != first.id
    with pytest.raises(Conflict, match="'k'"):
        jobs.start("anything", {"n": 2}, options=Options(key="k"))
    assert len(jobs.list()) == 2


def test_same_key_from_many_threads_starts_one_job(jobs: Jobs) -> None:
    ids: list[str] = []
    threads = [
        threading.Thread(target=lambda: ids.append(jobs.start("x", options=Options(key="k")).id))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8
    assert len(set(ids)) == 1


def test_job_started_in_a_transaction_that_fails_does_not_exist(
    jobs: Jobs, database: Database
) -> None:
    def start_and_fail() -> None:
        with database.write() as connection:
            jobs.start("x", connection=connection)
            raise LookupError

    with pytest.raises(LookupError):
        start_and_fail()
    assert jobs.list() == []


def test_jobs_are_found_by_id_and_no_ids_ask_nothing(
    jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = jobs.start("x")
    assert jobs.find([made.id, "job_none"]) == {made.id: made}
    monkeypatch.setattr(Database, "read", None)
    assert jobs.find([]) == {}


def test_arguments_are_checked_before_anything_is_queued(jobs: Jobs, registry: Registry) -> None:
    @registry.job("typed")
    def typed(attempt: Attempt, *, path: str) -> None:
        del attempt, path

    with pytest.raises(InvalidRequest, match="'path'"):
        jobs.start("typed", {"paht": "x"})
    with pytest.raises(InvalidRequest, match="JSON"):
        jobs.start("typed", {"path": b"bytes"})
    with pytest.raises(InvalidRequest, match="time zone"):
        jobs.start("typed", {"path": "x"}, options=Options(at=datetime(2030, 1, 1)))  # noqa: DTZ001
    with pytest.raises(InvalidRequest, match="negative"):
        Resources(cpu=-1)
    assert jobs.list() == []


def test_unknown_job_is_named(jobs: Jobs) -> None:
    for read in (jobs.get, jobs.cancel, jobs.requeue, jobs.logs, jobs.attempts):
        with pytest.raises(NotFound, match="'nope'"):
            read("nope")


def test_list_is_newest_first_and_pages(jobs: Jobs) -> None:
    ids = [jobs.start("a" if n % 2 else "b").id for n in range(5)]
    assert [each.id for each in jobs.list(limit=2)] == [ids[4], ids[3]]
    assert [each.id for each in jobs.list(limit=2, before=ids[3])] == [ids[2], ids[1]]
    assert [each.id for each in jobs.list(name="a")] == [ids[3], ids[1]]
    assert jobs.list(state="running") == jobs.list(tenant="other") == []


def test_waiting_job_is_cancelled_at_once(jobs: Jobs) -> None:
    job_id = jobs.start("x").id
    assert jobs.cancel(job_id).state == "cancelled"
    assert jobs.cancel(job_id).state == "cancelled"


def test_workers_are_listed_with_what_they_take_on(jobs: Jobs, database: Database) -> None:
    assert jobs.workers() == []
    resources = Resources(cpu=8, gpu=2, memory_bytes=2**40)
    who = Claimant("w", ("ingest", "train"), Capacity(resources, 3), TenantLimits())
    now = datetime(2026, 1, 1, tzinfo=UTC)
    with database.write() as connection:
        leases.register(connection, who, process=this_process(), now=now)
    (worker,) = jobs.workers()
    assert (worker.id, worker.names, worker.slots) == ("w", ("ingest", "train"), 3)
    assert (worker.resources, worker.seen_at) == (resources, now)
    assert worker.process == str(this_process())
