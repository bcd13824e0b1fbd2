"""Fine-tuning by the `openai` SDK: trained, served, failed, cancelled, its server killed."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.fine_tuning import FineTuningJob, FineTuningJobEvent

from lost_machines import lose, running
from running_server import RunningServer, start
from scripted_suites import write_answers
from trained import ANSWER, calm
from tuning import chat, write_base
from waiting import until

pytest.importorskip("trl")
pytestmark = pytest.mark.timeout(900)
SECONDS = 240.0
STEPS = 24
LONG = 4_000
"""Steps, of a run that is broken off."""
SCHEDULE = {"rows_per_step": 8, "learning_rate": 0.02}
OPTIONS = {
    "base": {"dtype": "float32"},
    "data": {"max_length": 64},
    "method": {"adapter": {"type": "lora", "r": 8, "alpha": 16}},
    "runtime": {"environment": {"OMP_NUM_THREADS": "1"}},
}


class Tuner:
    """A server with a tiny model that may be tuned, as a client of the SDK sees it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        base = calm(write_base(folder / "base"))
        upstream = {"plugin": "transformers_local", "options": {"model": str(base)}}
        tunable = {"model": str(base), "device": "cpu", "route": "tiny"}
        short = {"steps": STEPS, "saving": {"every_steps": 8}, **SCHEDULE}
        long = {"steps": LONG, "saving": {"every_steps": 10, "keep": 2}, **SCHEDULE}
        write_answers(folder, "what nobody teaches it")
        suite = {"suite": str(folder / "suite.yaml"), "metric": "exact_match", "min_gain": 0.5}
        judged = {"schedule": {**SCHEDULE, "steps": 2}, "evaluate": {"suites": [suite]}}
        models = {
            name: {**tunable, "options": {**OPTIONS, **more}}
            for name, more in (
                ("tiny", {"schedule": short}), ("long", {"schedule": long}), ("judged", judged)
            )
        }  # fmt: skip
        route = {"targets": [{"upstream": "local", "model": str(base)}], "retries": 0}
        self._variables = {
            "RAGSTONE_FINE_TUNING__MODELS": json.dumps(models),
            "RAGSTONE_FINE_TUNING__SMOKE": "false",
            "RAGSTONE_FINE_TUNING__MAX_RUNNING": "2",
            "RAGSTONE_GATEWAY__UPSTREAMS": json.dumps({"local": upstream}),
            "RAGSTONE_GATEWAY__ROUTES": json.dumps({"tiny": route}),
        }
        self.start()

    def start(self) -> None:
        self.server: RunningServer = start(self.folder, **self._variables)
        self.server.wait_until_ready()
        self.client = openai.OpenAI(
            base_url=f"{self.server.url}/v1", api_key="none", max_retries=4, timeout=60
        )

    def stop(self) -> None:
        self.client.close()
        self.server.stop()

    def kill_and_restart(self) -> None:
        self.client.close()
        self.server.process.kill()
        self.server.process.wait(10)
        self.start()

    def upload(self, *rows: dict[str, Any] | str) -> str:
        lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
        data = "".join(f"{line}\n" for line in lines).encode()
        return self.client.files.create(file=("rows.jsonl", data), purpose="fine-tune").id

    def wait(self, job_id: str, is_so: Callable[[FineTuningJob], bool]) -> FineTuningJob:
        deadline = time.monotonic() + SECONDS
        while not is_so(job := self.client.fine_tuning.jobs.retrieve(job_id)):
            assert time.monotonic() < deadline, (job, self.events(job_id)[-5:])
            time.sleep(0.2)
        return job

    def wait_for_steps(self, job_id: str, number: int) -> None:
        """Wait until a run has done so many steps more."""
        before = self.steps(job_id)
        self.wait(job_id, lambda _: self.steps(job_id) >= before + number)

    def steps(self, job_id: str) -> int:
        page = self.client.fine_tuning.jobs.list_events(job_id, limit=50).data
        return max((each.data["step"] for each in page if each.type == "metrics"), default=0)  # type: ignore[index]

    def events(self, job_id: str) -> list[FineTuningJobEvent]:
        """All of them, in their order, over as many pages as there are."""
        return list(self.client.fine_tuning.jobs.list_events(job_id, limit=100))[::-1]

    def messages(self, job_id: str) -> list[str]:
        return [each.message for each in self.events(job_id) if each.type == "message"]

    def ask(self, model: str) -> str | None:
        """Ask, and again while what the name stands for is being loaded."""
        deadline = time.monotonic() + SECONDS
        while True:
            try:
                answer = self.client.chat.completions.create(
                    model=model,
                    messages=[{"role": "user", "content": "Query 3?"}],
                    max_completion_tokens=8,
                    temperature=0,
                )
            except openai.InternalServerError as error:
                if error.status_code != 503 or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return answer.choices[0].message.content

    def resumes(self, job_id: str) -> bool:
        """Resume a job, unless its end is yet to be written down."""
        try:
            return self.client.fine_tuning.jobs.resume(job_id).status == "queued"
        except openai.ConflictError:
            return False

    def processes(self, job_id: str) -> list[str]:
        """The command lines of this machine's processes that train for a job."""
        return list(running(job_id, "train run").values())


@pytest.fixture(scope="module")
def tuner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tuner]:
    made = Tuner(tmp_path_factory.mktemp("tuner"))
    yield made
    made.stop()


def is_finished(job: FineTuningJob) -> bool:
    return job.status in {"succeeded", "failed", "cancelled"}


def goes_on(message: str) -> bool:
    return message.startswith("going on after step")


ROWS = [chat(f"Question {number}?", ANSWER) for number in range(64)]


def test_what_was_tuned_answers_under_its_name(tuner: Tuner) -> None:
    held_out = [chat(f"Query {number}?", ANSWER) for number in range(8)]
    created = tuner.client.fine_tuning.jobs.create(
        model="tiny",
        training_file=tuner.upload(*ROWS),
        validation_file=tuner.upload(*held_out),
        suffix="zeds",
        seed=17,
        metadata={"of": "tests"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"batch_size": 8}}},
    )
    assert tuner.ask("tiny") != ANSWER
    job = tuner.wait(created.id, is_finished)
    assert job.status == "succeeded", tuner.messages(job.id)
    assert job.fine_tuned_model == f"ft:tiny:zeds:{job.id[-12:]}"
    assert tuner.ask(job.fine_tuned_model) == ANSWER, "its name is known at once"
    assert tuner.ask("tiny") != ANSWER

    losses = [each.data for each in tuner.events(job.id) if each.type == "metrics"]
    assert losses[-1]["step"] == STEPS  # type: ignore[index]
    assert losses[-1]["valid_loss"] < losses[0]["train_loss"]  # type: ignore[index]
    messages = tuner.messages(job.id)
    assert messages[0].startswith("Created fine-tuning job")
    assert "Files validated: 64 rows of data.train, 8 rows of data.eval" in messages
    assert messages[-1] == "The job has successfully completed"
    assert job.trained_tokens
    assert job.finished_at
    assert job.estimated_finish is None

    last, *earlier = tuner.client.fine_tuning.jobs.checkpoints.list(job.id).data
    assert [last.step_number, *(each.step_number for each in earlier)] == [24, 16, 8]
    assert last.fine_tuned_model_checkpoint == job.fine_tuned_model
    assert earlier[0].fine_tuned_model_checkpoint == f"{job.fine_tuned_model}:ckpt-step-16"
    assert earlier[0].metrics.valid_loss is not None
    assert tuner.ask(earlier[0].fine_tuned_model_checkpoint) is not None

    [results] = job.result_files
    table = list(csv.DictReader(io.StringIO(tuner.client.files.content(results).text)))
    assert [int(row["step"]) for row in table] == list(range(1, STEPS + 1))
    assert job.id in {each.id for each in tuner.client.fine_tuning.jobs.list(limit=1)}
    names = {model.id for model in tuner.client.models.list()}
    assert job.fine_tuned_model in names
    assert tuner.client.models.delete(job.fine_tuned_model).deleted
    with pytest.raises(openai.NotFoundError):
        tuner.ask(job.fine_tuned_model)


def test_rows_that_are_broken_fail_the_job_by_name_before_it_trains(tuner: Tuner) -> None:
    file_id = tuner.upload(*ROWS[:20], "{", chat("Why?", ""))
    job = tuner.client.fine_tuning.jobs.create(model="tiny", training_file=file_id)
    job = tuner.wait(job.id, is_finished)
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_training_file", "training_file")
    told = [each.message for each in tuner.events(job.id) if each.level == "error"]
    assert [each.partition(":")[0] for each in told] == ["data.train row 21", "data.train row 22"]
    assert job.error.message == "\n".join(told)
    assert job.fine_tuned_model is None
    assert tuner.steps(job.id) == 0
    assert list(tuner.folder.glob(f"data/fine_tuning/{job.id}/rows/*")) == []


def test_what_does_not_pass_its_suites_fails_the_job_and_is_not_served(tuner: Tuner) -> None:
    file_id = tuner.upload(*ROWS)
    job = tuner.client.fine_tuning.jobs.create(model="judged", training_file=file_id)
    job = tuner.wait(job.id, is_finished)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error.code == "training_failed", job.error
    assert "the verdict of its suites is fail: answers: exact_match" in job.error.message
    assert tuner.steps(job.id) == 2, "it was trained"
    assert "verdict of the suites: fail" in tuner.messages(job.id)
    assert job.fine_tuned_model is None
    assert not [each.id for each in tuner.client.models.list() if job.id[-12:] in each.id]


def test_a_job_outlives_its_server_goes_on_after_a_pause_and_leaves_nothing_once_cancelled(
    tuner: Tuner,
) -> None:
    jobs = tuner.client.fine_tuning.jobs
    job = jobs.create(model="long", training_file=tuner.upload(*ROWS))
    tuner.wait_for_steps(job.id, 12)
    tuner.kill_and_restart()
    assert tuner.processes(job.id), "what trains is no part of the server"
    tuner.wait_for_steps(job.id, 5)
    assert tuner.messages(job.id).count("Fine-tuning job started") == 1

    jobs = tuner.client.fine_tuning.jobs
    assert jobs.pause(job.id).status == "paused"  # type: ignore[comparison-overlap]
    until(lambda: not tuner.processes(job.id), seconds=SECONDS)
    until(lambda: tuner.resumes(job.id), seconds=SECONDS)
    tuner.wait_for_steps(job.id, 3)
    assert sum(map(goes_on, tuner.messages(job.id))) == 1
    steps = [each.data["step"] for each in tuner.events(job.id) if each.type == "metrics"]  # type: ignore[index]
    assert steps == sorted(set(steps)), "no step is done twice"

    assert lose(job.id, "train run")
    tuner.wait(job.id, lambda _: sum(map(goes_on, tuner.messages(job.id))) == 2)
    tuner.wait_for_steps(job.id, 3)

    assert jobs.retrieve(job.id).status == "running"
    assert tuner.processes(job.id)
    assert jobs.cancel(job.id).status == "cancelled"
    folder = tuner.folder / "data" / "fine_tuning" / job.id
    until(lambda: not tuner.processes(job.id) and not folder.exists(), seconds=SECONDS)
    assert tuner.messages(job.id)[-1] == "The job was cancelled"
    with pytest.raises(openai.ConflictError):
        jobs.resume(job.id)
