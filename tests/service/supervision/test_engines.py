"""Engines outlive whoever starts them, come back when they fall, and end when they are told to."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from infra.engine_settings import EngineProcess
from infra.errors import Conflict, EngineFailed, NotFound
from infra.jobs.processes import Process, find
from service.supervision.engines import Engines, replica_urls, running
from service.supervision.replica import pause_seconds
from service.supervision.state import read_plan, read_state
from waiting import until

SMALL = str(Path(__file__).parents[2] / "small_engine.py")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "engines"


@pytest.fixture
def open_engines(folder: Path) -> Iterator[Callable[..., Engines]]:
    def open_(**changes: Any) -> Engines:
        engine = EngineProcess(**{"model": "small", "python": SMALL, "stop_seconds": 2, **changes})
        return Engines(folder, {"small": engine})

    yield open_
    for name in running(folder):
        with suppress(NotFound):
            open_().stop(name, drain=False)


def post(url: str, body: dict[str, Any]) -> bytes:
    request = urllib.request.Request(url, json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=20) as answer:
        return bytes(answer.read())


def test_engine_is_started_found_and_stopped(
    open_engines: Callable[..., Engines], folder: Path
) -> None:
    open_engines(replicas=2).start("small")
    status = open_engines(replicas=2).status("small")  # another one finds it
    assert status.is_supervised
    assert [each.state.phase for each in status.replicas] == ["ready", "ready"]
    assert [each.load is not None and each.load.is_idle for each in status.replicas] == [True, True]
    addresses = replica_urls(folder, "small")
    assert len({address.url for address in addresses}) == 2
    pids = [each.state.pid for each in status.replicas]
    open_engines(replicas=2).stop("small")
    assert replica_urls(folder, "small") == ()
    assert [find(pid) for pid in pids if pid is not None] == [None, None]
    with pytest.raises(NotFound):
        open_engines().status("small")


def test_engine_that_runs_is_not_started_again(open_engines: Callable[..., Engines]) -> None:
    open_engines().start("small")
    with pytest.raises(Conflict, match="runs already"):
        open_engines().start("small")


def test_engine_can_be_started_again_with_a_new_key(
    open_engines: Callable[..., Engines], folder: Path
) -> None:
    keys = set()
    for _ in range(2):
        open_engines().start("small")
        keys.add(read_plan(folder / "small").key)
        open_engines().stop("small")
    assert len(keys) == 2
    assert min(map(len, keys)) >= 40


def test_start_that_fails_says_why_and_leaves_nothing(
    open_engines: Callable[..., Engines], folder: Path
) -> None:
    with pytest.raises(EngineFailed, match="this model is broken"):
        open_engines(model="broken").start("small")
    assert running(folder) == []


def test_interpreter_that_is_not_there_is_named(
    open_engines: Callable[..., Engines], folder: Path
) -> None:
    with pytest.raises(EngineFailed, match="cannot be started.*/no/python"):
        open_engines(python="/no/python").start("small")
    assert running(folder) == []


def test_unknown_engine_is_refused_with_near_names(open_engines: Callable[..., Engines]) -> None:
    with pytest.raises(NotFound, match="did you mean 'small'"):
        open_engines().start("smal")


@pytest.mark.thorough
@pytest.mark.parametrize("how", ["killed", "ended", "hung"])
def test_replica_that_falls_comes_back_at_its_address(
    open_engines: Callable[..., Engines], folder: Path, how: str
) -> None:
    open_engines(silence_seconds=1).start("small")
    before = replica_urls(folder, "small")[0]
    replica = read_state(folder / "small").replicas[0]
    assert replica.pid is not None
    if how == "ended":
        with suppress(OSError):
            post(f"{before.url}/die", {"code": 3})
    else:
        os.kill(replica.pid, signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    until(lambda: read_state(folder / "small").replicas[0].restarts == 1)
    until(lambda: replica_urls(folder, "small"))
    after = replica_urls(folder, "small")[0]
    assert after.url == before.url
    assert after.incarnation != before.incarnation
    ended = read_state(folder / "small").replicas[0].last_exit
    assert ended == ("ended with 3" if how == "ended" else "was ended by SIGKILL")


@pytest.mark.thorough
def test_pauses_between_restarts_grow(open_engines: Callable[..., Engines], folder: Path) -> None:
    open_engines().start("small")
    starts = []
    for restarts in range(1, 4):
        replica = read_state(folder / "small").replicas[0]
        assert replica.pid is not None
        os.kill(replica.pid, signal.SIGKILL)
        ended = time.time()
        until(lambda: read_state(folder / "small").replicas[0].restarts == restarts)  # noqa: B023
        until(lambda: read_state(folder / "small").replicas[0].phase == "ready")
        started = read_state(folder / "small").replicas[0].started
        assert started is not None
        starts.append(started - ended)
    assert starts[0] >= 1
    assert starts[1] >= 2
    assert starts[2] >= 4


def test_pause_has_a_limit_however_often_a_replica_fails() -> None:
    assert [pause_seconds(failures) for failures in (0, 1, 5, 6)] == [1, 2, 32, 60]
    assert pause_seconds(100_000) == 60


def test_start_that_fails_forgets_that_the_process_before_was_ready(
    open_engines: Callable[..., Engines], folder: Path, tmp_path: Path
) -> None:
    python = tmp_path / "python"
    python.symlink_to(SMALL)
    open_engines(python=str(python)).start("small")
    replica = read_state(folder / "small").replicas[0]
    assert replica.ready is not None
    assert replica.pid is not None
    python.unlink()
    os.kill(replica.pid, signal.SIGKILL)
    until(lambda: "cannot be started" in (read_state(folder / "small").replicas[0].last_exit or ""))
    until(lambda: read_state(folder / "small").replicas[0].phase == "waiting")
    assert read_state(folder / "small").replicas[0].ready is None


def test_engine_whose_supervisor_has_written_nothing_yet_is_starting(
    open_engines: Callable[..., Engines], folder: Path
) -> None:
    engines = open_engines(replicas=2)
    engines.start("small", wait=False)
    until(lambda: (folder / "small" / "state.json").exists())
    (folder / "small" / "state.json").unlink()  # as it is until the supervisor is up
    status = engines.status("small")
    assert status.is_supervised
    assert {each.state.phase for each in status.replicas} <= {"starting", "ready"}
    assert [each.state.index for each in status.replicas] == [0, 1]


def test_stop_lets_requests_finish_and_takes_no_more(
    open_engines: Callable[..., Engines], folder: Path
) -> None:
    open_engines().start("small")
    url = replica_urls(folder, "small")[0].url
    answers: list[bytes] = []
    asking = threading.Thread(target=lambda: answers.append(post(url, {"seconds": 2})))
    asking.start()
    until(lambda: open_engines().status("small").replicas[0].load.running)  # type: ignore[union-attr]
    stopping = threading.Thread(target=open_engines().stop, args=("small",))
    stopping.start()
    until(lambda: read_state(folder / "small").replicas[0].phase == "draining")
    assert replica_urls(folder, "small") == ()
    asking.join()
    stopping.join()
    assert answers == [b'{"done": true}']


def test_drain_ends_at_its_limit(open_engines: Callable[..., Engines], folder: Path) -> None:
    engines = open_engines(drain_seconds=0.5)
    engines.start("small")
    url = replica_urls(folder, "small")[0].url

    answers: list[bytes] = []

    def ask() -> None:
        with suppress(OSError, HTTPException):
            answers.append(post(url, {"seconds": 15}))

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: engines.status("small").replicas[0].load.running)  # type: ignore[union-attr]
    engines.stop("small")
    asking.join()
    assert answers == []
    assert running(folder) == []


def test_replicas_go_on_without_their_supervisor_and_are_ended_all_the_same(
    open_engines: Callable[..., Engines], folder: Path
) -> None:
    open_engines().start("small")
    os.kill(Process.parse(read_state(folder / "small").supervisor).pid, signal.SIGKILL)
    until(lambda: not open_engines().status("small").is_supervised)
    url = replica_urls(folder, "small")[0].url
    assert post(url, {"seconds": 0}) == b'{"done": true}'
    open_engines().stop("small")
    assert running(folder) == []


def test_secrets_are_for_this_user_alone_and_not_on_the_command_line(
    open_engines: Callable[..., Engines], folder: Path
) -> None:
    open_engines().start("small")
    assert folder.joinpath("small").stat().st_mode & 0o077 == 0
    assert (folder / "small" / "plan.json").stat().st_mode & 0o077 == 0
    key = read_plan(folder / "small").key
    for replica in read_state(folder / "small").replicas:
        assert key not in Path(f"/proc/{replica.pid}/cmdline").read_text()
        assert f"VLLM_API_KEY={key}" in Path(f"/proc/{replica.pid}/environ").read_text()


def test_long_logs_are_set_aside(open_engines: Callable[..., Engines], folder: Path) -> None:
    engines = open_engines(log_bytes=4096, log_files=2)
    engines.start("small")
    url = replica_urls(folder, "small")[0].url
    log = folder / "small" / "replica-0.log"
    while not log.with_name("replica-0.log.2").exists():
        post(url, {"seconds": 0})
    assert not log.with_name("replica-0.log.3").exists()
    assert len(engines.logs("small", lines=5).splitlines()) == 5


@pytest.mark.parametrize(
    "flag", ["--host=0.0.0.0", "--host", "--ho", "--api_key", "--config", "--port", "--uds=x"]
)
def test_flags_that_would_open_the_engine_are_refused(flag: str) -> None:
    with pytest.raises(ValidationError, match="loopback alone"):
        EngineProcess(model="m", flags=(flag, "1"))


def test_gpus_are_shared_out(open_engines: Callable[..., Engines], folder: Path) -> None:
    engines = open_engines(replicas=2, tensor_parallel=2, gpus=("0", "1", "2", "3"))
    engines.start("small")
    seen = []
    for replica in read_state(folder / "small").replicas:
        variables = Path(f"/proc/{replica.pid}/environ").read_text().split("\0")
        seen += [each for each in variables if each.startswith("CUDA_VISIBLE_DEVICES=")]
    assert seen == ["CUDA_VISIBLE_DEVICES=0,1", "CUDA_VISIBLE_DEVICES=2,3"]
    with pytest.raises(ValidationError, match="need 4 ids"):
        EngineProcess(model="m", replicas=2, tensor_parallel=2, gpus=("0",))
