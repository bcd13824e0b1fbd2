"""Mirrors: what they show, what a run feels of one that is down, and how it is caught up."""

from __future__ import annotations

import math
import os
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from infra.database.engine import Database
from infra.errors import InvalidConfiguration, StorageFailed
from infra.jobs.processes import Process, this_machine
from infra.plugins import available
from infra.tracking import mirroring
from infra.tracking.mirrors import Mirror, open_mirror
from infra.tracking.points import Points
from infra.tracking.records import Link, RunRecord
from infra.tracking.tables import run as run_table
from infra.tracking.tables import run_mirror
from infra.tracking.tracker import Recording, Tracker
from waiting import until

CLOSED = "http://127.0.0.1:9"


class Notebook:
    """A mirror in memory that can be switched off, or made to stand still."""

    def __init__(self) -> None:
        self.is_on = True
        self.seconds = 0.0
        self.points: dict[str, list[float]] = {}
        self.opened: list[str] = []
        self.closed: dict[str, tuple[str, list[str]]] = {}

    def open(self, run: RunRecord, _: str | None) -> str:
        self._answer()
        self.opened.append(f"remote-{run.id}")
        return f"remote-{run.id}"

    def write(self, remote_id: str, points: Mapping[str, Points]) -> None:
        self._answer()
        for name, found in points.items():
            self.points.setdefault(f"{remote_id}/{name}", []).extend(found.values.tolist())

    def close(self, remote_id: str, run: RunRecord, links: Sequence[Link]) -> None:
        self._answer()
        self.closed[remote_id] = (run.state, [link.reference for link in links])

    def _answer(self) -> None:
        time.sleep(self.seconds)
        if not self.is_on:
            raise StorageFailed("Notebook at https://me:s3cret@host: switched off")


@pytest.fixture
def notebook() -> Notebook:
    return Notebook()


@contextmanager
def opening(database: Database, recording: Recording) -> Iterator[Callable[..., Tracker]]:
    opened: list[Tracker] = []

    def open_(**mirrors: Mirror) -> Tracker:
        opened.append(Tracker(database, mirrors=mirrors, recording=recording))
        return opened[-1]

    yield open_
    for tracker in opened:
        tracker.close()


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirroring, "EVERY_SECONDS", 0.05)


@pytest.fixture
def mirrored(sqlite: Database, recording: Recording) -> Iterator[Callable[..., Tracker]]:
    """Opens trackers that feed some mirrors."""
    with opening(sqlite, recording) as open_:
        yield open_


@pytest.fixture
def mirrored_anywhere(database: Database, recording: Recording) -> Iterator[Callable[..., Tracker]]:
    """The same, once with each kind of database."""
    with opening(database, recording) as open_:
        yield open_


def forget_holds(tracker: Tracker) -> None:
    """Let the time pass for which a copy is left alone."""
    with tracker.runs.database.write() as connection:
        connection.execute(update(run_mirror).values(holder=None, held_until=None))


def test_mirror_has_everything_when_the_run_has_ended(
    mirrored_anywhere: Callable[..., Tracker], notebook: Notebook
) -> None:
    tracker = mirrored_anywhere(notebook=notebook)
    with tracker.run("test") as run:
        run.use("dataset/faq@v1", digest="sha256:00")
        for number in range(1000):
            run.log({"x": number})
            if number == 500:
                run.flush()
                time.sleep(0.2)
    remote = f"remote-{run.id}"
    assert notebook.points == {f"{remote}/x": [float(number) for number in range(1000)]}
    assert notebook.closed == {remote: ("finished", ["dataset/faq@v1"])}
    (state,) = tracker.runs.mirrors(run.id)
    assert (state.state, state.remote_id, state.error) == ("done", remote, None)


def test_mirror_that_is_down_is_reported_and_caught_up_by_the_next_run(
    mirrored: Callable[..., Tracker],
    notebook: Notebook,
) -> None:
    notebook.is_on = False
    tracker = mirrored(notebook=notebook)
    before = time.monotonic()
    with tracker.run("test") as run:
        run.log({"x": 1.0})
    assert time.monotonic() - before < mirroring.SETTLE_SECONDS
    assert tracker.runs.get(run.id).state == "finished"
    (state,) = tracker.runs.mirrors(run.id)
    assert state.state == "pending"
    assert state.error == "Notebook at https://[hidden]@host: switched off"
    tracker.close()

    notebook.is_on = True
    forget_holds(tracker)
    later = mirrored(notebook=notebook)
    with later.run("test"):
        until(lambda: later.runs.mirrors(run.id)[0].state == "done")
    assert notebook.points[f"remote-{run.id}/x"] == [1.0]


def test_mirror_that_comes_back_during_a_run_gets_what_it_missed(
    mirrored: Callable[..., Tracker],
    notebook: Notebook,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mirroring, "RETRY", mirroring.RETRY * 0)
    tracker = mirrored(notebook=notebook)
    with tracker.run("test") as run:
        for number in range(30):
            notebook.is_on = number // 10 != 1
            run.log({"x": number})
            run.flush()
            time.sleep(0.01)
        until(lambda: len(notebook.points.get(f"remote-{run.id}/x", ())) >= 30)
    assert notebook.points[f"remote-{run.id}/x"] == [float(number) for number in range(30)]


def test_mirror_that_stands_still_holds_a_run_up_for_a_bounded_time(
    mirrored: Callable[..., Tracker], notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirroring, "SETTLE_SECONDS", 0.2)
    notebook.seconds = 1.0
    tracker = mirrored(notebook=notebook)
    with tracker.run("test") as run:
        before = time.monotonic()
        for number in range(1000):
            run.log({"x": number})
        assert time.monotonic() - before < 5  # and not a second for each
        before = time.monotonic()
    assert time.monotonic() - before < 2.5  # and not the three that the mirror takes
    assert len(tracker.runs.points(run.id, "x")) == 1000


def test_catching_up_by_hand_says_how_many_lag(
    mirrored_anywhere: Callable[..., Tracker], notebook: Notebook
) -> None:
    notebook.is_on = False
    tracker = mirrored_anywhere(notebook=notebook)
    ids = []
    for _ in range(3):
        with tracker.run("test") as run:
            run.log({"x": 1.0})
            ids.append(run.id)
    tracker.close()
    assert tracker.mirroring.catch_up() == 3
    notebook.is_on = True
    assert tracker.mirroring.catch_up() == 0
    assert sorted(notebook.closed) == sorted(f"remote-{run_id}" for run_id in ids)
    opened = len(notebook.opened)
    assert tracker.mirroring.catch_up() == 0
    assert len(notebook.opened) == opened  # what is done is left alone


def test_copy_of_a_lost_run_is_completed_by_another_process_and_goes_on_when_it_is_resumed(
    mirrored: Callable[..., Tracker], notebook: Notebook
) -> None:
    tracker = mirrored(notebook=notebook)
    lost = tracker.run("test")
    lost.log({"x": 1.0})
    lost.flush()
    tracker.close()
    gone = str(Process(this_machine(), 2**22 - 1, 1))
    with tracker.runs.database.write() as connection:
        connection.execute(update(run_table).values(process=gone))
    forget_holds(tracker)
    later = mirrored(notebook=notebook)
    assert later.mirroring.catch_up() == 0
    remote = f"remote-{lost.id}"
    assert notebook.closed[remote][0] == "lost"
    with later.resume(lost.id) as again:
        again.log({"x": 2.0})
    assert notebook.closed[remote][0] == "finished"
    assert notebook.points[f"{remote}/x"] == [1.0, 2.0]
    lost.end("failed")  # of this process, which is not gone after all


@pytest.mark.filterwarnings("ignore")  # MLflow's own
@pytest.mark.parametrize("name", available("infra.tracking.mirrors"))
def test_every_mirror_finds_its_copy_again_and_makes_another_if_it_is_gone(
    name: str, local: Tracker, tmp_path: Path, mlflow_uri: str
) -> None:
    folder = tmp_path / "board"
    options = {"mlflow": {"uri": mlflow_uri}, "tensorboard": {"folder": str(folder)}}[name]
    with local.run("test") as run:
        run.log({"x": 1.0})
    record, points = local.runs.get(run.id), {"x": local.runs.points(run.id, "x")}
    first = open_mirror(name, options)
    assert not folder.exists()  # building writes nothing
    remote = first.open(record, None)
    assert first.open(record, remote) == remote
    first.write(remote, points)
    first.close(remote, record, local.runs.links(run.id))
    second = open_mirror(name, options)
    assert second.open(record, None) == remote  # as after a crash before the id was kept
    second.close(remote, record, ())
    third = open_mirror(name, options)
    assert third.open(record, "somewhere-else") == remote
    third.write(remote, points)
    third.close(remote, record, ())


def test_plug_ins_are_found_and_their_options_checked(tmp_path: Path) -> None:
    assert available("infra.tracking.mirrors") == ["mlflow", "tensorboard"]
    assert open_mirror("tensorboard", {"folder": str(tmp_path)})
    for name, options, message in [
        ("tensorbord", {}, "there are mlflow, tensorboard"),
        ("tensorboard", {"foldr": "x"}, "foldr"),
        ("tensorboard", {}, "folder"),
        ("tensorboard", {"folder": "s3://bucket/x"}, "no local folder"),
        ("mlflow", {"uri": "mlruns"}, "neither a server's address nor"),
    ]:
        with pytest.raises(InvalidConfiguration, match=message):
            open_mirror(name, options)


def read_events(folder: Path) -> list[Any]:
    """Return the events of every file below a folder."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.rglob("events.out.tfevents.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def test_tensorboard_shows_every_point(mirrored: Callable[..., Tracker], tmp_path: Path) -> None:
    folder = tmp_path / "board"
    tracker = mirrored(tensorboard=open_mirror("tensorboard", {"folder": str(folder)}))
    with tracker.run("test", name="a/b c", parameters={"rate": 0.5}) as run:
        for step, value in [(3, 0.25), (4, math.nan), (5, math.inf)]:
            run.log({"train/loss": value}, step=step)
    assert [path.name for path in folder.iterdir()] == [f"a_b_c-{run.id}"]
    events = read_events(folder)
    scalars = [
        (event.step, event.summary.value[0].simple_value)
        for event in events
        if event.summary.value and event.summary.value[0].tag == "train/loss"
    ]
    assert scalars[0] == (3, 0.25)
    assert math.isnan(scalars[1][1])
    assert scalars[2:] == [(5, math.inf)]
    texts = [
        event.summary.value[0].tensor.string_val[0].decode()
        for event in events
        if event.summary.value and event.summary.value[0].tensor.string_val
    ]
    assert '"rate": 0.5' in texts[0]
    assert '"state": "finished"' in texts[1]


def test_tensorboard_folder_that_cannot_be_written_is_caught_up_later(
    mirrored: Callable[..., Tracker], tmp_path: Path
) -> None:
    folder = tmp_path / "board"
    folder.write_text("a file stands in the way")
    tracker = mirrored(tensorboard=open_mirror("tensorboard", {"folder": str(folder)}))
    with tracker.run("test") as run:
        run.log({"x": 1.0})
    (state,) = tracker.runs.mirrors(run.id)
    assert state.error is not None
    assert state.error.endswith(": Not a directory")
    tracker.close()
    folder.unlink()
    assert tracker.mirroring.catch_up() == 0
    values = [value.simple_value for e in read_events(folder) for value in e.summary.value]
    assert 1.0 in values


@pytest.fixture(scope="session")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database that MLflow keeps itself; it takes seconds to make."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


@pytest.mark.filterwarnings("ignore")  # MLflow's own, of its models and its dependencies
def test_mlflow_shows_runs_with_parameters_metrics_tags_and_state(
    local: Tracker, recording: Recording, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirroring, "SETTLE_SECONDS", 120.0)
    mirror = open_mirror("mlflow", {"uri": mlflow_uri, "experiment": "test"})
    tracker = Tracker(local.runs.database, mirrors={"mlflow": mirror}, recording=recording)
    with tracker.run("sweep") as parent:
        told = {"optimizer": {"rate": 0.1}, "long": "x" * 9_000}
        run = tracker.run("sft", name="first", parent=parent.id, parameters=told, tags={"t": "v"})
        run.use("dataset/faq@v1", role="train", digest="sha256:00")
        for step in range(2500):
            run.log({"train/loss": 1 / (step + 1), "precision@5": step}, step=step)
        run.log({"odd": math.nan}, step=1)
        run.log({"odd": math.inf}, step=2)
        run.end("failed", "by design")
    tracker.close()
    states = [each for run_id in (parent.id, run.id) for each in tracker.runs.mirrors(run_id)]
    assert [(each.state, each.error) for each in states] == [("done", None), ("done", None)]

    from mlflow import MlflowClient
    from mlflow.telemetry import get_telemetry_client

    assert get_telemetry_client() is None
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    client = MlflowClient(tracking_uri=mlflow_uri)
    parent_id, run_id = (str(each.remote_id) for each in states)
    shown = client.get_run(run_id)
    assert shown.info.status == "FAILED"
    assert shown.info.run_name == "first"
    assert shown.data.params["optimizer.rate"] == "0.1"
    assert "[9000 characters" in shown.data.params["long"]
    assert shown.data.tags["t"] == "v"
    assert shown.data.tags["ragstone.run"] == run.id
    assert shown.data.tags["ragstone.used.0.train"] == "dataset/faq@v1 sha256:00"
    assert shown.data.tags["mlflow.parentRunId"] == parent_id
    history = client.get_metric_history(run_id, "train/loss")
    assert [(point.step, point.value) for point in history] == [
        (step, 1 / (step + 1)) for step in range(2500)
    ]
    assert shown.data.metrics["precision_5"] == 2499
    odd = [point.value for point in client.get_metric_history(run_id, "odd")]
    assert math.isnan(odd[0])


@pytest.mark.filterwarnings("ignore")  # MLflow's own
def test_mlflow_server_that_is_down_does_not_break_or_hold_up_a_run(
    local: Tracker, recording: Recording, mlflow_uri: str
) -> None:
    mirror = open_mirror("mlflow", {"uri": CLOSED})
    tracker = Tracker(local.runs.database, mirrors={"mlflow": mirror}, recording=recording)
    with tracker.run("test") as run:
        before = time.monotonic()
        for number in range(1000):
            run.log({"x": number})
        assert time.monotonic() - before < 5
    tracker.close()
    assert tracker.mirroring.catch_up() == 1
    (state,) = tracker.runs.mirrors(run.id)
    assert state.state == "pending"
    assert state.error is not None
    assert state.error.startswith("MLflow at 'http://127.0.0.1:9'")
    later = Tracker(
        local.runs.database,
        mirrors={"mlflow": open_mirror("mlflow", {"uri": mlflow_uri})},
        recording=recording,
    )
    assert later.mirroring.catch_up() == 0
    (state,) = later.runs.mirrors(run.id)
    assert (state.state, state.error) == ("done", None)
