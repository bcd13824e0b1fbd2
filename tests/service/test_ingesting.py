"""Ingest as jobs: taken up, cancelled, retried, read once, whatever happens to the workers."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.errors import StorageFailed
from infra.jobs import leases
from infra.jobs.admission import Capacity, Claimant, TenantLimits, claim
from infra.jobs.attempt import Attempt, NoSteps
from infra.jobs.definitions import Resources
from infra.jobs.processes import this_process
from retrieval.collections import Collection
from retrieval.commit import Committed
from service.wiring import Components
from service.work import ingesting, kinds


class Watched:
    """The real ingester, which counts what it reads and can be held or made to fail."""

    def __init__(self, components: Components) -> None:
        self._ingester = components.ingester
        self.read: Counter[str] = Counter()
        self.failures: list[Exception] = []
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.reached = threading.Event()

    def process(self, into: Collection, file_id: str) -> Committed | None:
        self.read[file_id] += 1
        self.reached.set()
        assert self.may_go_on.wait(20)
        if self.failures:
            raise self.failures.pop()
        return self._ingester.process(into, file_id)


@pytest.fixture
def watched(components: Components) -> Watched:
    ingester = Watched(components)
    components.__dict__["ingester"] = ingester
    return ingester


@pytest.fixture
def attach(components: Components) -> Callable[..., list[str]]:
    """Attach so many small files to a collection, which is made if need be."""

    def attach_(collection: Collection, count: int, start: int = 0) -> list[str]:
        ids = []
        for number in range(start, start + count):
            text = f"Rule {number}: the door closes at {number}.".encode()
            stored = components.files.add(
                f"{number}.txt", iter([text]), purpose="assistants", max_bytes=1000
            )
            components.documents.attach(collection, stored.id)
            ids.append(stored.id)
        return ids

    return attach_


@pytest.fixture
def start_worker(components: Components) -> Iterator[Callable[[], Any]]:
    started = []

    def start() -> Any:
        worker = kinds.open_worker(components, lazy=True)
        worker.start()
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.stop()


def statuses(components: Components, collection: Collection) -> Counter[str]:
    page = components.documents.list(collection, limit=1000)
    return Counter(item.status for item in page.items)


def test_what_waits_is_read_by_one_job_in_order_with_progress(
    components: Components, watched: Watched, attach: Any, start_worker: Any
) -> None:
    collection = components.collections.create("rules", components.recipe())
    ids = attach(collection, 5)
    jobs = {ingesting.read_attached(components, collection.public_id).id for _ in ids}
    assert len(jobs) == 1, "one job takes up all there is"
    start_worker()
    done = components.jobs.wait(jobs.pop())
    assert (done.state, done.result) == ("succeeded", {"completed": 5})
    assert list(watched.read) == ids
    assert done.progress.fraction == 1.0
    assert "of 5 files" in done.progress.message
    assert components.metrics.render().count(b'outcome="completed"} 5.0') == 1


def test_two_workers_never_read_a_file_twice(
    components: Components, watched: Watched, attach: Any, start_worker: Any
) -> None:
    shelves = [components.collections.create(name, components.recipe()) for name in ("a", "b")]
    for _ in range(2):
        start_worker()
    for number in range(4):
        for shelf in shelves:
            attach(shelf, 3, start=3 * number)
            ingesting.read_attached(components, shelf.public_id)
    deadline = time.monotonic() + 30
    while components.documents.pending():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert set(watched.read.values()) == {1}
    assert len(watched.read) == 24
    for shelf in shelves:
        assert statuses(components, shelf) == {"completed": 12}


def test_a_cancelled_job_leaves_what_it_has_not_begun_to_read_unread(
    components: Components, watched: Watched, attach: Any, start_worker: Any
) -> None:
    collection = components.collections.create("rules", components.recipe())
    attach(collection, 4)
    watched.may_go_on.clear()
    job = ingesting.read_attached(components, collection.public_id)
    start_worker()
    assert watched.reached.wait(20)
    asked = kinds.cancel(components, job.id)
    assert asked.cancel_requested
    watched.may_go_on.set()
    assert components.jobs.wait(job.id).state in {"cancelled", "succeeded"}
    assert components.documents.pending() == []
    assert statuses(components, collection) == {"cancelled": 4}


def test_a_job_cancelled_before_it_began_reads_nothing_and_files_can_be_attached_again(
    components: Components, watched: Watched, attach: Any, start_worker: Any
) -> None:
    collection = components.collections.create("rules", components.recipe())
    [file_id] = attach(collection, 1)
    job = ingesting.read_attached(components, collection.public_id)
    assert kinds.cancel(components, job.id).state == "cancelled"
    assert statuses(components, collection) == {"cancelled": 1}
    start_worker()
    components.documents.attach(collection, file_id)
    again = ingesting.read_attached(components, collection.public_id)
    assert components.jobs.wait(again.id).result == {"completed": 1}
    assert watched.read == {file_id: 1}


def test_storage_that_fails_is_waited_for(
    components: Components, watched: Watched, attach: Any, start_worker: Any
) -> None:
    collection = components.collections.create("rules", components.recipe())
    ids = attach(collection, 2)
    watched.failures = [StorageFailed("the disk is full")]
    job = ingesting.read_attached(components, collection.public_id)
    start_worker()
    done = components.jobs.wait(job.id)
    assert (done.state, done.failures) == ("succeeded", 1)
    assert [each.outcome for each in components.jobs.attempts(job.id)] == ["failed", "succeeded"]
    assert watched.read == {ids[0]: 2, ids[1]: 1}
    assert statuses(components, collection) == {"completed": 2}


def test_what_goes_wrong_with_one_file_is_noted_there_and_in_the_log(
    components: Components, watched: Watched, attach: Any, start_worker: Any
) -> None:
    collection = components.collections.create("rules", components.recipe())
    ids = attach(collection, 3)
    watched.failures = [RuntimeError("out of luck")]
    job = ingesting.read_attached(components, collection.public_id)
    start_worker()
    assert components.jobs.wait(job.id).result == {"failed": 1, "completed": 2}
    failed = components.documents.get(collection, ids[0])
    assert (failed.status, failed.error_code) == ("failed", "server_error")
    assert "out of luck" in str(failed.error_message)
    [line] = components.jobs.logs(job.id)
    assert "out of luck" in line.message


def test_a_file_that_kills_the_process_again_and_again_is_given_up(
    components: Components, watched: Watched, attach: Any
) -> None:
    collection = components.collections.create("rules", components.recipe())
    poison, harmless = attach(collection, 2)
    job = ingesting.read_attached(components, collection.public_id)
    for number in range(3):
        attempt = _attempt_after_a_death(components, f"worker-{number}")
        if number:
            suspect = ingesting._Attached(attempt, components, collection.public_id)
            suspect._suspect(poison)
            assert components.documents.get(collection, poison).status == "in_progress"
    last = _attempt_after_a_death(components, "worker-3")
    assert last.claim.crashes == 3
    function = components.jobs.registry.get(ingesting.ATTACHED).function
    assert function(last, collection=collection.public_id) == {"failed": 1, "completed": 1}
    assert list(watched.read) == [harmless]
    given_up = components.documents.get(collection, poison)
    assert "died 3 times" in str(given_up.error_message)
    assert job.id == last.job_id


def test_files_accepted_before_a_restart_are_taken_up(
    components: Components, attach: Any, start_worker: Any
) -> None:
    shelves = [components.collections.create(name, components.recipe()) for name in ("a", "b")]
    for shelf in shelves:
        attach(shelf, 2)
    assert ingesting.count_waiting(components) == 4
    assert ingesting.take_up(components) == 2
    start_worker()
    for job in components.jobs.list():
        assert components.jobs.wait(job.id).result == {"completed": 2}
    assert ingesting.take_up(components) == 0


def test_a_collection_that_is_gone_ends_its_job_in_peace(
    components: Components, attach: Any, start_worker: Any
) -> None:
    collection = components.collections.create("rules", components.recipe())
    attach(collection, 1)
    job = ingesting.read_attached(components, collection.public_id)
    components.delete_collection("rules")
    start_worker()
    assert components.jobs.wait(job.id).result == {}


def test_folders_are_read_by_a_job_and_what_is_gone_is_pruned(
    components: Components, start_worker: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "notes"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.txt").write_text(f"Note {number}.")
    (folder / "empty.txt").touch()
    collection = components.collections.create("notes", components.recipe())
    start_worker()
    first = ingesting.read_folders(components, collection, [folder], metadata={"year": 2024})
    done = components.jobs.wait(first.id)
    assert (done.result["added"], done.result["skipped"]) == (3, 1)
    assert "empty" in components.jobs.logs(first.id)[0].message
    (folder / "0.txt").unlink()
    again = ingesting.read_folders(components, collection, [folder], metadata={}, prune=True)
    result = components.jobs.wait(again.id).result
    assert (result["unchanged"], result["removed"]) == (2, 1)
    assert statuses(components, collection) == {"completed": 2}
    assert again.lane == first.lane == f"collection/{collection.public_id}"


def test_a_job_started_by_name_hands_over_to_the_lane_of_the_id(
    components: Components, attach: Any, start_worker: Any
) -> None:
    collection = components.collections.create("rules", components.recipe())
    attach(collection, 1)
    start_worker()
    by_name = components.jobs.start(ingesting.ATTACHED, {"collection": "rules"})
    heir = components.jobs.wait(by_name.id).result["job"]
    assert components.jobs.wait(heir).result == {"completed": 1}


def _attempt_after_a_death(components: Components, worker: str) -> Attempt:
    """The attempt of a worker that joins now and finds all others dead."""
    jobs = components.jobs
    capacity = Capacity(Resources(cpu=1), slots=1)
    claimant = Claimant(
        worker, tuple(jobs.registry.names), capacity, TenantLimits(), jobs.registry.forgetful
    )
    with jobs.database.write() as connection:
        dead = leases.read_beats(connection)
        leases.register(connection, claimant, process=this_process(), now=jobs.now())
        leases.reap(connection, dead, registry=jobs.registry, now=jobs.now())
    [taken] = claim(jobs.database, claimant, now=jobs.now())
    return Attempt(jobs.database, taken, steps=NoSteps(), now=jobs.now)
