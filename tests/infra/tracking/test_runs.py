"""Runs: what is recorded, how they end, how they are found, taken up again and deleted."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from infra.artifacts.store import open_store
from infra.database.engine import Database
from infra.errors import Conflict, InvalidRequest, NotFound
from infra.jobs.processes import Process, this_machine
from infra.tracking import tables
from infra.tracking.environment import read_environment
from infra.tracking.records import LOST_SECONDS
from infra.tracking.tracker import Recording, Tracker
from waiting import until


def test_run_records_what_it_was_told_and_where_it_ran(tracker: Tracker) -> None:
    told = {"optimizer": {"name": "adam", "rate": 0.1}, "layers": [64, 64], "seed": None}
    with tracker.run("sft", name="first", parameters=told, tags={"team": "nlp", "n": 3}) as run:
        running = tracker.runs.get(run.id)
        assert running.state == "running"
        assert running.finished_at is None
    record = tracker.runs.get(run.id)
    assert (record.kind, record.name, record.state) == ("sft", "first", "finished")
    assert record.parameters == told
    assert record.tags == {"n": "3", "team": "nlp"}
    assert record.exit_reason is None
    assert record.command[0] == sys.orig_argv[0]
    assert len(record.command) == len(sys.orig_argv)
    assert record.environment["python"].endswith(sys.version.split()[0])
    assert record.environment["host"] == os.uname().nodename
    assert record.packages is not None
    assert any(line.startswith("sqlalchemy==") for line in tracker.runs.packages(record.packages))
    assert record.finished_at is not None
    assert 0 <= record.duration_seconds < 60


def test_code_is_recorded_with_its_revision_and_whether_it_was_changed(
    local: Tracker, tmp_path: Path
) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        return subprocess.run(
            ["git", *who, *words], check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "--quiet")
    Path("train.py").write_text("1\n")
    git("add", "train.py")
    git("commit", "--quiet", "-m", "first")
    with local.run("sft") as clean:
        pass
    Path("train.py").write_text("2\n")
    with local.run("sft") as changed:
        pass
    records = [local.runs.get(run.id) for run in (clean, changed)]
    assert [record.git_revision for record in records] == [git("rev-parse", "HEAD")] * 2
    assert [record.git_dirty for record in records] == [False, True]


def test_outside_a_repository_there_is_no_revision(local: Tracker) -> None:
    with local.run("sft") as run:
        pass
    record = local.runs.get(run.id)
    assert (record.git_revision, record.git_dirty) == (None, None)


def test_error_in_the_block_fails_the_run_and_goes_on_its_way(tracker: Tracker) -> None:
    started = tracker.run("sft")

    def work() -> None:
        with started as run:
            run.log({"loss": 1.0})
            raise ZeroDivisionError("by nothing")

    with pytest.raises(ZeroDivisionError):
        work()
    record = tracker.runs.get(started.id)
    assert (record.state, record.exit_reason) == ("failed", "ZeroDivisionError: by nothing")
    assert len(tracker.runs.points(started.id, "loss")) == 1


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (KeyboardInterrupt(), "killed", "interrupted"),
        (SystemExit(0), "finished", None),
        (SystemExit(3), "failed", "exit: 3"),
    ],
)
def test_state_says_how_the_block_was_left(
    local: Tracker, error: BaseException, state: str, reason: str | None
) -> None:
    with pytest.raises(type(error)), local.run("sft") as run:
        raise error
    record = local.runs.get(run.id)
    assert (record.state, record.exit_reason) == (state, reason)


def test_artifacts_are_recorded_with_their_digests(
    database: Database, recording: Recording, tmp_path: Path
) -> None:
    store = open_store(tmp_path / "artifacts", database)
    (tmp_path / "data.txt").write_text("27 days")
    reference = store.put(tmp_path / "data.txt", "dataset/faq")
    tracker = Tracker(database, find=store.find, recording=recording)
    with tracker.run("sft") as run:
        run.use("dataset/faq", role="train")
        run.use("dataset/faq@v1", role="train")  # the same again
        run.made(reference, role="copy")
        run.use("https://user:word@example.org/x", role="eval", digest="sha256:00")
        with pytest.raises(NotFound, match="did you mean 'dataset/faq'"):
            run.use("dataset/fqa")
    found = [(each.direction, each.role, each.reference) for each in tracker.runs.links(run.id)]
    assert found == [
        ("used", "train", "dataset/faq@v1"),
        ("made", "copy", "dataset/faq@v1"),
        ("used", "eval", "https://[hidden]@example.org/x"),
    ]
    digests = [each.digest for each in tracker.runs.links(run.id)]
    assert digests == [reference.digest, reference.digest, "sha256:00"]


def test_reference_without_an_artifact_store_needs_a_digest(local: Tracker) -> None:
    with local.run("sft") as run, pytest.raises(InvalidRequest, match="give its digest"):
        run.use("dataset/faq@v1")


@pytest.mark.parametrize("digest", ["", "abc", "sha256:", "sha256:" + "a" * 65, 7, "sha256:\0"])
def test_bad_digest_is_refused(local: Tracker, digest: Any) -> None:
    with local.run("sft") as run, pytest.raises(InvalidRequest, match="is not a digest"):
        run.use("dataset/faq@v1", digest=digest)


def test_gpus_are_what_the_driver_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    line = "NVIDIA H100 80GB HBM3, GPU-5f, 81559 MiB, 570.86.15"
    program.write_text(f"#!/bin/sh\necho '{line}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("HF_TOKEN", "s3cret")
    environment = read_environment()
    assert environment.described["gpus"] == [
        {
            "name": "NVIDIA H100 80GB HBM3",
            "uuid": "GPU-5f",
            "memory": "81559 MiB",
            "driver": "570.86.15",
        }
    ]
    assert environment.described["variables"]["CUDA_VISIBLE_DEVICES"] == "0"
    assert "s3cret" not in repr(environment)
    assert environment.digest == read_environment().digest
    program.write_text("#!/bin/sh\nexit 9\n")
    assert read_environment().described["gpus"] == []


def test_tags_are_replaced_and_parameters_only_added(tracker: Tracker) -> None:
    with tracker.run("sft", parameters={"a": {"b": 1}}, tags={"x": "1", "y": "1"}) as run:
        run.tag({"x": "2", "z": "3"})
        run.add_parameters({"a": {"b": 1}, "rows": 500})
        with pytest.raises(Conflict, match="'rows' is 500 already"):
            run.add_parameters({"rows": 501})
    record = tracker.runs.get(run.id)
    assert record.tags == {"x": "2", "y": "1", "z": "3"}
    assert record.parameters == {"a": {"b": 1}, "rows": 500}


def test_parent_is_recorded_and_must_exist(tracker: Tracker) -> None:
    with tracker.run("sweep") as parent:
        children = []
        for _ in range(2):
            with tracker.run("sft", parent=parent.id) as child:
                children.append(child.id)
    assert tracker.runs.get(children[0]).parent == parent.id
    assert list(tracker.runs.children(parent.id)) == children
    tracker.runs.delete(parent.id)
    assert tracker.runs.get(children[0]).parent is None
    with pytest.raises(NotFound, match="No run 'run-nothing'"):
        tracker.run("sft", parent="run-nothing")


def test_runs_are_found_by_id_its_beginning_or_their_newest_name(tracker: Tracker) -> None:
    ids = []
    for _ in range(2):
        with tracker.run("sft", name="baseline") as run:
            ids.append(run.id)
    assert tracker.runs.find(ids[0]).id == ids[0]
    assert tracker.runs.find(ids[0][:20]).id == ids[0]
    assert tracker.runs.find("baseline").id == ids[1]
    with pytest.raises(NotFound, match="did you mean 'baseline'"):
        tracker.runs.find("basline")
    with pytest.raises(NotFound):
        tracker.runs.find("run-%%%%%%")


def test_list_is_filtered_and_paged_newest_first(tracker: Tracker) -> None:
    ids: list[str] = []
    for number in range(5):
        with tracker.run("sft" if number % 2 else "evaluation", name=f"n{number}") as run:
            ids.insert(0, run.id)
    assert [each.id for each in tracker.runs.list()] == ids
    assert [each.id for each in tracker.runs.list(kind="sft")] == [ids[1], ids[3]]
    assert [each.id for each in tracker.runs.list(name="n0", state="finished")] == [ids[4]]
    assert list(tracker.runs.list(state="failed")) == []
    page = tracker.runs.list(limit=2)
    assert [each.id for each in page] == ids[:2]
    assert [each.id for each in tracker.runs.list(limit=2, before=page[-1].id)] == ids[2:4]


def test_run_that_runs_is_not_deleted_and_one_that_is_over_goes_whole(tracker: Tracker) -> None:
    with tracker.run("sft", tags={"x": "1"}) as run:
        run.log({"loss": 1.0})
        run.use("x", digest="sha256:00")
        with pytest.raises(Conflict, match="is running"):
            tracker.runs.delete(run.id)
    tracker.runs.delete(run.id)
    with pytest.raises(NotFound):
        tracker.runs.get(run.id)
    with tracker.runs.database.read() as connection:
        for table in (tables.run_tag, tables.run_series, tables.run_block, tables.run_artifact):
            assert connection.execute(table.select()).all() == []


def test_run_deleted_while_it_logs_does_not_break_it(
    local: Tracker, caplog: pytest.LogCaptureFixture
) -> None:
    with local.run("sft") as run:
        run.log({"loss": 1.0})
        run.flush()
        with local.runs.database.write() as connection:
            connection.execute(tables.run.delete())
        run.log({"loss": 2.0})
    assert "was deleted" in caplog.text


def _pretend(tracker: Tracker, run_id: str, **values: object) -> None:
    with tracker.runs.database.write() as connection:
        connection.execute(update(tables.run).where(tables.run.c.id == run_id).values(**values))


def test_run_whose_process_is_gone_is_lost(tracker: Tracker) -> None:
    with tracker.run("sft") as run:
        assert [each.id for each in tracker.runs.list(state="running")] == [run.id]
        _pretend(tracker, run.id, process=str(Process(this_machine(), 2**22 - 1, 1)))
        assert tracker.runs.get(run.id).state == "lost"
        assert [each.id for each in tracker.runs.list(state="lost")] == [run.id]
        assert list(tracker.runs.list(state="running")) == []


def test_run_of_another_machine_is_lost_after_a_minute_of_silence(tracker: Tracker) -> None:
    with tracker.run("sft") as run:
        seen = tracker.runs.get(run.id).seen_at
        elsewhere = str(Process("elsewhere", 1, 1))
        _pretend(tracker, run.id, process=elsewhere, seen_at=seen - timedelta(seconds=50))
        assert tracker.runs.get(run.id).state == "running"
        silent = seen - timedelta(seconds=LOST_SECONDS + 1)
        _pretend(tracker, run.id, seen_at=silent)
        assert tracker.runs.get(run.id).state == "lost"
        run.log({"loss": 1.0})
        run.flush()  # it was only slow
        assert tracker.runs.get(run.id).state == "running"


def test_lost_run_is_resumed_and_its_metrics_go_on(tracker: Tracker) -> None:
    run = tracker.run("sft")
    run.log({"loss": 1.0})
    run.log({"loss": 2.0})
    run.flush()
    with pytest.raises(Conflict, match="is running"):
        tracker.resume(run.id)
    _pretend(tracker, run.id, process=str(Process(this_machine(), 2**22 - 1, 1)))
    with tracker.resume(run.id) as again:
        assert tracker.runs.get(run.id).state == "running"
        again.log({"loss": 3.0})
    points = tracker.runs.points(run.id, "loss")
    assert points.steps.tolist() == [0, 1, 2]
    assert points.values.tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(Conflict, match="is finished"):
        tracker.resume(run.id)
    run.end("failed", "left by the test")


def test_other_processes_join_a_run_without_ending_it(tracker: Tracker) -> None:
    with tracker.run("sft") as run:
        run.log({"rank0/loss": 1.0, "loss": 0.0}, step=7)
        run.flush()
        with tracker.join(run.id) as joined:
            joined.log({"rank1/loss": 2.0, "loss": 0.5})
        assert tracker.runs.get(run.id).state == "running"
    assert [each.name for each in tracker.runs.series(run.id)] == [
        "loss",
        "rank0/loss",
        "rank1/loss",
    ]
    assert tracker.runs.points(run.id, "loss").steps.tolist() == [7, 8]


def test_unknown_metric_suggests_near_names(local: Tracker) -> None:
    with local.run("sft") as run:
        run.log({"train/loss": 1.0})
    with pytest.raises(NotFound, match="did you mean 'train/loss'"):
        local.runs.points(run.id, "train/los")


def test_logging_after_the_end_is_refused(local: Tracker) -> None:
    with local.run("sft") as run:
        pass
    with pytest.raises(InvalidRequest, match="is over"):
        run.log({"loss": 1.0})
    run.end("failed")  # a second end changes nothing
    assert local.runs.get(run.id).state == "finished"


def test_logging_from_a_forked_process_is_refused_rather_than_lost(local: Tracker) -> None:
    with local.run("sft") as run:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                run.log({"loss": 1.0})
            except InvalidRequest:
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_what_is_logged_can_be_read_within_a_second(local: Tracker) -> None:
    with local.run("sft") as run:
        run.log({"loss": 1.0})
        until(lambda: len(local.runs.series(run.id)) == 1)
