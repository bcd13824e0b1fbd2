"""How steps run: side by side, tried again, ended, blocked, cancelled, in folders of their own."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update

from infra.errors import Conflict, InvalidRequest, NotFound
from infra.jobs.attempt import Interrupted
from infra.jobs.processes import find, this_process
from infra.pipelines.execution import output_of
from infra.pipelines.foreground import Here, clear, run_here
from infra.pipelines.tables import pipeline_run


def only_step(body: str) -> str:
    return f"pipeline: one\nsteps:\n  s:\n    {body}\n"


def fail(bench: Any, body: str) -> Any:
    bench.write("pipeline.yaml", only_step(body))
    run = bench.run()
    assert run.state == "failed"
    return run.steps["s"]


def test_branches_run_side_by_side(bench: Any) -> None:
    meeting = bench.root / "meeting"
    meeting.mkdir()
    script = f"touch {meeting}/$0; while [ ! -e {meeting}/$1 ]; do sleep 0.02; done"
    bench.write(
        "pipeline.yaml",
        f"""
        pipeline: both
        steps:
          left: {{run: [sh, -c, "{script}", left, right], timeout: 20 s}}
          right: {{run: [sh, -c, "{script}", right, left], timeout: 20 s}}
        """,
    )
    run = run_here(bench.executor, bench.start().id, parallel=2)
    assert run.state == "succeeded", "each waited for the other"


def test_failure_blocks_what_follows_and_nothing_else(bench: Any) -> None:
    bench.write(
        "steps.py",
        "import wording\n\ndef clean(raw, clean, minimum):\n    raise ValueError('no such day')\n",
    )
    text = bench.root.joinpath("pipeline.yaml").read_text()
    bench.write("pipeline.yaml", text + "  other: {run: 'true', inputs: {raw: dataset/raw}}\n")
    run = bench.run()
    assert run.state == "failed"
    assert {name: step.state for name, step in run.steps.items()} == {
        "raw": "succeeded",
        "clean": "failed",
        "count": "blocked",
        "upper": "blocked",
        "other": "succeeded",
    }
    assert "ValueError: no such day" in run.steps["clean"].error
    assert run.steps["count"].reason == "needs clean"
    assert "no such day" in output_of(bench.around, run, "clean").read_text()
    with pytest.raises(NotFound):
        bench.store.find("dataset/clean")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("run: sh -c 'echo half; exit 3'", "exit code 3; its last words:\nhalf"),
        ("run: no-such-program-here", "exit code 127"),
        ("{run: 'true', outputs: {x: dataset/x}}", "left nothing at 'outputs/x'"),
        ("{run: mkdir outputs/x/empty, outputs: {x: dataset/x}}", "left nothing at 'outputs/x'"),
        ("{run: ln -s /etc/hostname outputs/x/link, outputs: {x: dataset/x}}", "cannot be stored"),
        ("{run: mkfifo outputs/x/pipe, outputs: {x: dataset/x}}", "left nothing"),
        ("{run: sleep 30, timeout: 0.2}", "took longer than 0.2 s"),
        ("{run: cat steps.py/missing}", "exit code 1"),
    ],
)
def test_failure_is_told_in_words(body: str, message: str, bench: Any) -> None:
    assert message in fail(bench, body).error


def test_step_sees_its_own_files_alone(bench: Any) -> None:
    assert "No such file" in fail(bench, "run: sh -c 'cat ./faq.txt'").error
    bench.write("pipeline.yaml", only_step("{run: \"sh -c 'cat ./faq.txt'\", code: ['*.txt']}"))
    assert bench.states() == {"s": "succeeded"}


def test_failing_step_is_tried_again(bench: Any) -> None:
    tries = bench.root / "tries"
    script = f"echo x >> {tries}; [ $(wc -l < {tries}) = 3 ]"
    bench.write(
        "pipeline.yaml", only_step(f"{{run: [sh, -c, '{script}'], retries: 2, retry_delay: 0.01}}")
    )
    step = bench.run().steps["s"]
    assert (step.state, step.failures, step.error) == ("succeeded", 2, None)
    tries.unlink()
    bench.write(
        "pipeline.yaml", only_step(f"{{run: [sh, -c, '{script} '], retries: 1, retry_delay: 0.01}}")
    )
    assert bench.run().steps["s"].state == "failed"
    assert tries.read_text() == "x\nx\n"


def test_timeout_ends_the_whole_program(bench: Any) -> None:
    mark = bench.root / "pid"
    script = f"sleep 60 & echo $! > {mark}; wait"
    fail(bench, f"{{run: [sh, -c, '{script}'], timeout: 0.5}}")
    assert find(int(mark.read_text())) is None


def test_what_a_step_leaves_running_is_ended_before_its_output_is_taken(bench: Any) -> None:
    script = "(sleep 60; echo late >> outputs/x/x.txt) & echo now > outputs/x/x.txt"
    bench.write(
        "pipeline.yaml", only_step(f"{{run: [sh, -c, '{script}'], outputs: {{x: dataset/x}}}}")
    )
    assert bench.states() == {"s": "succeeded"}
    assert bench.read("dataset/x", "x.txt") == "now\n"


def test_run_cancelled_from_elsewhere_ends_its_programs(bench: Any) -> None:
    mark = bench.root / "pid"
    bench.write("pipeline.yaml", only_step(f"run: [sh, -c, 'echo $$$$ > {mark}; sleep 60']"))
    run = bench.start()
    thread = threading.Thread(target=run_here, args=(bench.executor, run.id))
    thread.start()
    deadline = time.monotonic() + 20
    while not (mark.exists() and mark.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    bench.runs.cancel(run.id, reason="cancelled")
    thread.join(20)
    assert not thread.is_alive()
    assert bench.runs.get(run.id).state == "cancelled"
    assert find(int(mark.read_text())) is None


def test_what_a_dead_process_left_behind_is_ended_and_said(bench: Any) -> None:
    run = bench.start()
    gone = replace(this_process(), started=1)
    with bench.database.write() as connection:
        connection.execute(
            update(pipeline_run).where(pipeline_run.c.id == run.id).values(process=str(gone))
        )
    assert bench.runs.get(run.id).is_abandoned
    clear(bench.executor, "faq")
    found = bench.runs.get(run.id)
    assert found.state == "cancelled"
    assert found.steps["raw"].error == "its process died"


def test_whoever_took_a_step_up_before_can_publish_nothing(either_bench: Any) -> None:
    bench = either_bench
    run = bench.start()
    first = bench.runs.take_up(run.id, "raw")
    second = bench.runs.take_up(run.id, "raw")
    assert second.fence > first.fence
    with pytest.raises(Conflict, match="taken up by another"), bench.database.write() as connection:
        bench.runs.end(connection, first, state="succeeded")
    with bench.database.write() as connection:
        bench.runs.end(connection, second, state="failed", error="x")
    assert bench.runs.get(run.id).state == "failed"


def test_step_before_its_turn_is_refused(bench: Any) -> None:
    run = bench.start()
    control = Here(bench.runs, run.id, threading.Event())
    with pytest.raises(Conflict, match="needs 'raw' to succeed first"):
        bench.executor.execute(run.id, "clean", control)


def test_scheduler_outside_finds_its_run_and_tries_a_failed_step_again(bench: Any) -> None:
    run = bench.start(mode="external", key="manual__1")
    assert bench.start(mode="external", key="manual__1").id == run.id
    control = Here(bench.runs, run.id, threading.Event())
    store = bench.root / "steps.py"
    assert bench.executor.execute(run.id, "raw", control).state == "succeeded"
    assert bench.executor.execute(run.id, "raw", control).fence == 1, "called again it does nothing"
    held = bench.runs.take_up(run.id, "clean")
    with bench.database.write() as connection:
        bench.runs.end(connection, held, state="failed", error="a disk was full")
    assert bench.runs.get(run.id).steps["upper"].state == "blocked"
    store.write_text("def clean():\n    another text that this run must not see")
    for name in ("clean", "count", "upper"):
        assert bench.executor.execute(run.id, name, control).state == "succeeded"
    assert bench.runs.get(run.id).state == "succeeded"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("steps:clean", "steps:claen"), "did you mean 'steps:clean'"),
        (("steps:clean", "stepz:clean"), "No module 'stepz'.*did you mean 'steps'"),
        (("./faq.txt", "./fqa.txt"), "did you mean './faq.txt'"),
        (
            ("raw: dataset/raw}\n    outputs: {clean", "raw: dataset/rwa}\n    outputs: {clean"),
            "did you mean 'dataset/raw'",
        ),
        (
            ("raw: dataset/raw}\n    outputs: {clean", "raw: dataset/raw@v9}\n    outputs: {clean"),
            "No artifact",
        ),
    ],
)
def test_what_is_not_there_is_found_before_anything_runs(
    change: tuple[str, str], message: str, bench: Any
) -> None:
    text = bench.root.joinpath("pipeline.yaml").read_text()
    assert change[0] in text
    bench.write("pipeline.yaml", text.replace(*change))
    with pytest.raises((NotFound, InvalidRequest), match=message):
        bench.start()
    assert bench.runs.list() == []


def test_function_of_an_installed_package_is_a_step(bench: Any) -> None:
    bench.write(
        "pipeline.yaml",
        only_step(
            "{python: 'shutil:copytree', inputs: {src: ./data}, with: {dst: copy}, "
            "outputs: {x: dataset/x}}"
        ),
    )
    bench.write("data/a.txt", "a")
    run = bench.run()
    step = run.steps["s"]
    assert step.state == "failed", "an output is an argument too"
    assert "unexpected keyword argument 'x'" in step.error
    assert list(run.pins["s"].sources.versions) == ["shutil"]


def test_program_that_cannot_return_json_fails(bench: Any) -> None:
    bench.write("steps.py", "def clean(raw, clean, minimum):\n    return object()\n")
    assert "not JSON serializable" in bench.run().steps["clean"].error


def test_program_launched_on_a_machine_that_is_lost_is_started_anew(bench: Any) -> None:
    bench.write("pipeline.yaml", only_step("{run: touch outputs/x/x, outputs: {x: dataset/x}}"))
    run = bench.start()
    held = bench.runs.take_up(run.id, "s")
    folder = bench.around.folder / run.id / "s" / "try-there"
    (folder / "files").mkdir(parents=True)
    (folder / "state").mkdir()
    (folder / "state" / "process").write_text(f"elsewhere/boot/pid:[1]|77|{'0 ' * 19}5\n")
    with bench.database.write() as connection:
        bench.runs.note(connection, held, work="try-there")
    done = bench.executor.execute(run.id, "s", Here(bench.runs, run.id, threading.Event()))
    assert (done.state, done.failures) == ("succeeded", 1)


def test_program_that_still_runs_is_found_again_and_not_started_twice(bench: Any) -> None:
    script = "echo x >> $$0; sleep 0.5; echo done > outputs/x/x.txt"
    bench.write(
        "pipeline.yaml",
        only_step(
            f"{{run: [sh, -c, '{script}', '{bench.root}/starts'], outputs: {{x: dataset/x}}}}"
        ),
    )
    run = bench.start()
    first = threading.Event()
    threading.Timer(0.3, first.set).start()

    class Stopping(Here):
        def wait(self, seconds: float) -> None:
            if first.wait(seconds):
                raise Interrupted("stopping")

    with pytest.raises(Interrupted):
        bench.executor.execute(run.id, "s", Stopping(bench.runs, run.id, first))
    done = bench.executor.execute(run.id, "s", Here(bench.runs, run.id, threading.Event()))
    assert done.state == "succeeded"
    assert (bench.root / "starts").read_text() == "x\n"


def test_step_is_told_the_name_of_its_input(bench: Any) -> None:
    bench.write("data/a.txt", "a")
    stored = bench.store.put(bench.root / "data", "text/a")
    bench.write(
        "pipeline.yaml",
        only_step(
            '{run: [sh, -c, \'echo "$0" > outputs/x/name\', "${references.a}"], '
            "inputs: {a: text/a}, outputs: {x: text/x}}"
        ),
    )
    assert bench.states() == {"s": "succeeded"}
    assert bench.read("text/x", "name").strip() == f"text/a@{stored.digest}"


def test_tables_that_a_step_leaves_are_datasets(bench: Any) -> None:
    from infra.datasets.datasets import Datasets

    script = 'echo "{\\"n\\": 1}" > outputs/x/rows.jsonl'
    bench.write(
        "pipeline.yaml", only_step(f"{{run: [sh, -c, '{script}'], outputs: {{x: dataset/x}}}}")
    )
    assert bench.states() == {"s": "succeeded"}
    assert Datasets(bench.store).profile("dataset/x").rows == 1
    bench.write(
        "pipeline.yaml",
        only_step("{run: [sh, -c, 'echo { > outputs/x/rows.jsonl'], outputs: {x: dataset/x}}"),
    )
    assert "cannot be stored" in bench.run().steps["s"].error


def test_two_runs_at_once_make_one_version(bench: Any) -> None:
    bench.write(
        "pipeline.yaml",
        only_step(
            "{run: [sh, -c, 'sleep 0.5; date +%s%N > outputs/x/x'], outputs: {x: dataset/x}}"
        ),
    )
    ids = [bench.start().id for _ in range(2)]
    threads = [threading.Thread(target=run_here, args=(bench.executor, each)) for each in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    found = [bench.runs.get(each).steps["s"] for each in ids]
    assert sorted(step.state for step in found) == ["cached", "succeeded"]
    assert {step.outputs["x"].reference for step in found} == {"dataset/x@v1"}
    assert bench.versions("dataset/x") == ["dataset/x@v1"]
