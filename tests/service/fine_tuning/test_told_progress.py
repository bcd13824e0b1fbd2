"""What a training process tells becomes events once, also after crashes on either side."""

from __future__ import annotations

import errno
import io
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from infra.errors import StorageFailed
from migrated import open_migrated
from service.fine_tuning.records import Asked, FineTuningJob, FineTuningJobs
from service.fine_tuning.telling import MOST_METRICS, Telling, metrics_of
from training import progress_file
from training.callbacks import Progress
from training.problems import Problem, Refused

PLAN = {"event": "planned", "steps": 4, "lengths": {"data.train": {"kept": 64}}}


class Followed:
    """A job, the file its process writes, and what has become of that."""

    def __init__(self, folder: Path) -> None:
        self.database = open_migrated(folder / "a.db")
        self.jobs = FineTuningJobs(self.database)
        self.path, self.checkpoints = folder / "progress.jsonl", folder / "checkpoints"
        asked = Asked("tiny", "file-1", None, {"type": "supervised"}, None, 1, None)
        made = FineTuningJob(
            "ftjob-1", None, "job_1", asked, {}, "validating_files", datetime.now(UTC)
        )
        with self.database.write() as connection:
            self.jobs.add(connection, made)
        self.telling = Telling(self.jobs, "ftjob-1", guard=self._guard)
        self.guarded = 0

    def write(self, *events: dict[str, Any] | str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            for each in events:
                file.write(each if isinstance(each, str) else json.dumps(each) + "\n")

    def take(self) -> None:
        self.telling.take(self.path, self.checkpoints)

    def _guard(self, connection: Connection) -> None:
        del connection
        self.guarded += 1

    def seal(self, step: int) -> Path:
        seal = self.checkpoints / f"checkpoint-{step}" / "seal.json"
        seal.parent.mkdir(parents=True)
        seal.write_text("{}")
        return seal

    @property
    def job(self) -> FineTuningJob:
        return self.jobs.get("ftjob-1")

    @property
    def said(self) -> list[str]:
        page = self.jobs.events("ftjob-1", limit=1000, newest_first=False)
        return [each.message for each in page.items]


@pytest.fixture
def followed(tmp_path: Path) -> Any:
    made = Followed(tmp_path)
    yield made
    made.database.close()


def step(number: int, *, loss: float = 2.0, **more: Any) -> dict[str, Any]:
    told = {"event": "step", "step": number, "steps": 4, "loss": loss}
    return {**told, "tokens": 10.0 * number, "accuracy": 0.5, "seconds_left": 3.0, **more}


def test_events_are_taken_over_once_and_half_a_line_when_it_is_whole(followed: Followed) -> None:
    followed.take()
    whole = json.dumps(step(1)) + "\n"
    followed.write(PLAN, whole[:20])
    followed.take()
    begun = ["Files validated: 64 rows of data.train", "Fine-tuning job started"]
    assert followed.said == begun
    assert (followed.job.status, followed.job.steps) == ("running", 4)
    followed.write(whole[20:], step(1, event="evaluated", held_out_loss=1.5))
    followed.take()
    followed.take()
    assert followed.said == [
        *begun,
        "Step 1/4: training loss=2",
        "Step 1/4: training loss=2, validation loss=1.5",
    ]
    assert followed.job.trained_tokens == 10
    assert followed.guarded == 2, "nothing is written when nothing is new"
    with followed.database.read() as connection:
        assert metrics_of(connection, "ftjob-1") == [
            {
                "step": 1, "total_steps": 4, "train_loss": 2.0, "valid_loss": 1.5,
                "train_mean_token_accuracy": 0.5,
            }
        ]  # fmt: skip


def test_what_is_told_anew_is_read_from_its_beginning(followed: Followed) -> None:
    followed.write(PLAN, step(1), step(2))
    for _ in range(2):
        followed.telling.begin(followed.path)
        followed.take()
        assert len(followed.said) == 4
    followed.path.unlink()
    followed.telling.begin(followed.path)
    followed.write(PLAN, step(1), step(2), step(3))
    followed.take()
    assert followed.said[4:] == [
        *followed.said[:4], "Step 3/4: training loss=2",
    ]  # fmt: skip


def test_checkpoints_come_and_go_with_the_figures_of_their_step(followed: Followed) -> None:
    followed.write(PLAN, step(1), step(2, loss=1.0), step(3))
    first, _ = followed.seal(1), followed.seal(2)
    followed.take()
    page = followed.jobs.checkpoints("ftjob-1", limit=10)
    assert [(each.step, each.metrics["train_loss"]) for each in page.items] == [(2, 1.0), (1, 2.0)]
    assert "Checkpoint created at step 2" in followed.said
    first.unlink()
    followed.take()
    assert [each.step for each in followed.jobs.checkpoints("ftjob-1", limit=10).items] == [2]


def test_every_problem_is_an_event_and_the_first_decides_the_parameter(followed: Followed) -> None:
    problems = [
        {"where": "data.train row 3", "what": "an empty message"},
        {"where": "data.eval", "what": "no such file"},
    ]
    followed.write({"event": "refused", "problems": problems})
    followed.take()
    lines = ["data.train row 3: an empty message", "data.eval: no such file"]
    assert followed.said == lines
    assert followed.job.error == {
        "code": "invalid_training_file", "message": "\n".join(lines), "param": "training_file",
    }  # fmt: skip
    levels = {each.level for each in followed.jobs.events("ftjob-1", limit=9).items}
    assert levels == {"error"}


def test_figures_that_are_no_numbers_are_left_out(followed: Followed) -> None:
    followed.write(PLAN, step(1, loss=float("nan"), tokens=None), "no JSON\n", "[]\n")
    followed.take()
    [event] = [
        each for each in followed.jobs.events("ftjob-1", limit=9).items if each.type == "metrics"
    ]
    assert event.data == {"step": 1, "total_steps": 4, "train_mean_token_accuracy": 0.5}
    assert event.message.endswith("loss=nan")
    assert followed.job.trained_tokens is None


def test_of_long_runs_some_steps_are_left_out(followed: Followed) -> None:
    steps = 3 * MOST_METRICS
    followed.write({**PLAN, "steps": steps}, *(step(n, steps=steps) for n in range(1, 31)))
    followed.write(step(31, steps=steps), step(31, event="evaluated", held_out_loss=1.0))
    followed.take()
    with followed.database.read() as connection:
        found = metrics_of(connection, "ftjob-1")
    assert [each["step"] for each in found] == [*range(3, 31, 3), 31]
    assert (found[-1]["train_loss"], found[-1]["valid_loss"]) == (2.0, 1.0)


def test_a_job_that_was_cancelled_is_told_nothing_more(followed: Followed) -> None:
    with followed.database.write() as connection:
        followed.jobs.change(connection, "ftjob-1", status="cancelled")
    followed.write(PLAN, step(1))
    followed.seal(1)
    followed.take()
    assert followed.said == []
    assert followed.job.status == "cancelled"


def test_a_run_tells_its_steps_and_how_it_failed_to_a_file(tmp_path: Path) -> None:
    path = tmp_path / "told.jsonl"
    path.write_text('{"event": "no')
    refused = Refused("zs", [Problem("rows", "data.train row 1", "no JSON")])
    with progress_file.telling(path) as told:
        told.note("on its way")
        told.evaluated(0, {"eval_loss": 1.75})
        told.step(Progress(2, 4, 1.5, 100.0, 7.0, {"num_tokens": 64.0}))
        told.evaluated(2, {"eval_loss": 1.25})
    with pytest.raises(Refused), progress_file.telling(path):
        raise refused
    with pytest.raises(StorageFailed), progress_file.telling(path):
        raise StorageFailed("the disk is full")
    events, offset = progress_file.read(path, 0)
    assert [each["event"] for each in events] == ["note", "step", "evaluated", "refused", "failed"]
    assert events[1]["tokens"] == 64.0
    assert (events[2]["loss"], events[2]["held_out_loss"]) == (1.5, 1.25)
    assert events[3]["problems"] == [{"where": "data.train row 1", "what": "no JSON"}]
    assert events[4]["message"] == "the disk is full"
    assert offset == path.stat().st_size
    assert progress_file.read(tmp_path / "none", 7) == ([], 7)
    with pytest.raises(StorageFailed), progress_file.telling(tmp_path / "none" / "file"):
        raise AssertionError


class Full(io.RawIOBase):
    """A file on a disk that has no room for some time."""

    def __init__(self, *room: int) -> None:
        self.room, self.data = list(room), b""

    def write(self, data: Any, /) -> int:
        room = self.room.pop(0) if self.room else len(data)
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.data += bytes(data[:room])
        return min(room, len(data))


def test_a_full_disk_costs_the_lines_that_it_has_no_room_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = Full(1000, 7, 0, 0)
    told = progress_file.ProgressFile(file)
    for number in range(6):
        told.note(str(number))
    (tmp_path / "told").write_bytes(file.data)
    events, _ = progress_file.read(tmp_path / "told", 0)
    assert [each["message"] for each in events] == ["0", "4", "5"]
    assert [each.getMessage() for each in caplog.records] == [
        "progress cannot be written: there is no room for a whole line"
    ]
