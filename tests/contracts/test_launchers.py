"""Laws that every launcher in the folder obeys; all of them run on this machine here."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import kubernetes_api
import ray_cluster
import slurm_cluster
from infra.errors import Conflict, InvalidConfiguration, InvalidRequest, NotFound
from infra.plugins import available
from training.launchers import Handle, Launcher, Spec, Status, handle_for, open_launcher
from waiting import until

NAMES = available("training.launchers")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run")
ENDS_WITHIN_SECONDS = 60.0
AS_GIVEN = ("a b", "'", '"', "$HOME", "$(id)", "`id`", "$$", "*", "\\n", "two\nlines", "ü", "")
VARIABLES = {"GREETING": "good $(day) $$ 'all'", "EMPTY": ""}
SAVES = """trap 'echo saved; exit 5' TERM; : > "$1"; while :; do sleep 0.05; done"""
STAYS = """
trap '' TERM
sh -c 'echo $$ > "$1.part"; mv "$1.part" "$1"; sleep 600' sh "$2" &
echo $$ > "$1.part"; mv "$1.part" "$1"
while :; do sleep 1; done
"""


@dataclass(frozen=True)
class Place:
    """One kind of place that programs run in."""

    name: str
    folder: Path
    open: Callable[[], Launcher]

    def spec(self, script: str, *arguments: str, **fields: Any) -> Spec:
        fields = {"folder": str(self.folder), "grace_seconds": 1.0, **fields}
        return Spec(("sh", "-c", script, "sh", *arguments), **fields)


@contextmanager
def local(folder: Path) -> Iterator[dict[str, Any]]:
    yield {"folder": folder / "runs"}


@contextmanager
def slurm(folder: Path) -> Iterator[dict[str, Any]]:
    try:
        with slurm_cluster.running_cluster() as cluster:
            configuration = str(cluster.configuration)
            yield {"folder": folder / "runs", "configuration": configuration, "torchrun": TORCHRUN}
    except slurm_cluster.Unavailable as reason:
        pytest.skip(str(reason))


@contextmanager
def kubernetes(folder: Path) -> Iterator[dict[str, Any]]:
    if kubernetes_api.KUBECTL is None:
        pytest.skip("no kubectl on the PATH")
    with kubernetes_api.running_cluster(folder) as (_, config):
        yield {"image": "example.org/train:1", "kubeconfig": config, "torchrun": TORCHRUN}


@contextmanager
def ray(folder: Path) -> Iterator[dict[str, Any]]:
    try:
        with ray_cluster.running_cluster() as options:
            yield {**options, "folder": folder / "secrets", "torchrun": TORCHRUN}
    except ray_cluster.Unavailable as reason:
        pytest.skip(str(reason))


PLACES: dict[str, Callable[[Path], AbstractContextManager[dict[str, Any]]]] = {
    "local": local,
    "slurm": slurm,
    "kubernetes": kubernetes,
    "ray": ray,
}
SLOW = {"ray": [pytest.mark.slow]}


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=SLOW.get(name, [])) for name in NAMES]
)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp(request.param)
    (folder / "work").mkdir()
    with PLACES[request.param](folder) as options:
        yield Place(request.param, folder / "work", lambda: open_launcher(request.param, **options))


@pytest.fixture
def launcher(place: Place) -> Launcher:
    return place.open()


@pytest.fixture(scope="module")
def runs(place: Place) -> dict[str, Handle]:
    """Runs that need nothing from a test, launched at once: starting one may take seconds."""
    specs = {
        "well": place.spec("exit 0"),
        "badly": place.spec("echo because >&2; exit 7"),
        "never": Spec(("no-such-program", "x"), folder=str(place.folder)),
        "given": place.spec(
            'pwd; printf "<%s>" "$@" "$GREETING" "${EMPTY-unset}"; echo',
            *AS_GIVEN,
            environment=VARIABLES,
        ),
        "late": place.spec("sleep 600", time_limit_seconds=1.0),
        "saves": place.spec(SAVES, str(place.folder / "saves"), grace_seconds=10.0),
        "stays": place.spec(STAYS, *(str(place.folder / name) for name in ("parent", "child"))),
        "greedy": Spec(
            (sys.executable, "-c", "import time; m = b'x' * (400 << 20); time.sleep(600)"),
            str(place.folder),
            memory_bytes=100 << 20,
        ),
    }
    if place.name == "ray":
        del specs["greedy"]
    launcher = place.open()
    return {name: launcher.submit(spec, key=name) for name, spec in specs.items()}


def key() -> str:
    return uuid.uuid4().hex


def ended(launcher: Launcher, handle: Handle) -> Status:
    deadline = time.monotonic() + ENDS_WITHIN_SECONDS
    while not (status := launcher.poll(handle)).is_finished:
        assert status.state in {"queued", "running"}
        assert time.monotonic() < deadline, status
        time.sleep(0.05)
    return status


def lives(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def test_folder_holds_the_launchers_we_ship() -> None:
    assert NAMES == ["kubernetes", "local", "ray", "slurm"]
    assert sorted(PLACES) == NAMES


def test_end_of_a_run_is_told(launcher: Launcher, runs: dict[str, Handle]) -> None:
    status = ended(launcher, runs["well"])
    assert (status.state, status.exit_code, status.reason) == ("succeeded", 0, None)
    status = ended(launcher, runs["badly"])
    assert (status.state, status.exit_code, status.reason) == ("failed", 7, "exit")
    assert "because" in launcher.logs(runs["badly"]).text
    status = ended(launcher, runs["never"])
    assert (status.state, status.exit_code, status.reason) == ("failed", 127, "exit")


def test_command_folder_and_environment_arrive_as_given(
    place: Place, launcher: Launcher, runs: dict[str, Handle]
) -> None:
    assert ended(launcher, runs["given"]).exit_code == 0
    expected = "".join(f"<{part}>" for part in [*AS_GIVEN, *VARIABLES.values()])
    assert f"{place.folder}\n{expected}\n" in launcher.logs(runs["given"]).text


def test_one_key_launches_once_whoever_submits(place: Place) -> None:
    name, count = key(), place.folder / key()
    spec = place.spec('echo started >> "$1"; sleep 0.5', str(count))
    handles: list[Handle] = []
    threads = [
        threading.Thread(target=lambda: handles.append(place.open().submit(spec, key=name)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert handles == [handle_for(place.name, name)] * 4
    launcher = place.open()
    assert ended(launcher, handles[0]).state == "succeeded"
    assert launcher.submit(spec, key=name) == handles[0]
    with pytest.raises(Conflict, match="new key"):
        launcher.submit(place.spec("echo another"), key=name)
    assert launcher.submit(place.spec("true"), key=key()) not in handles
    assert count.read_text() == "started\n"


def test_log_is_read_in_pieces_that_make_the_whole(place: Place, launcher: Launcher) -> None:
    half = r"printf 'caf\303'; sleep 0.4; printf '\251\n'"
    script = f"for i in 1 2; do echo line $i; sleep 0.4; {half}; done"
    handle = launcher.submit(place.spec(script), key=key())
    pieces, offset, last = [], 0, False
    while not last:
        last = launcher.poll(handle).is_finished
        log = launcher.logs(handle, offset=offset)
        pieces.append(log.text)
        offset = log.offset
        time.sleep(0.1)
    whole = launcher.logs(handle)
    assert "".join(pieces) == whole.text
    # Ray says in the same file what it starts, at a moment of its own choosing.
    ours = re.sub(r"Running entrypoint for job .*\n", "", whole.text)
    assert "line 1\ncafé\nline 2\ncafé\n" in ours
    # Ray shows nothing of a log while it ends in half a character.
    assert place.name == "ray" or len([piece for piece in pieces if piece]) > 1
    assert launcher.logs(handle, offset=offset).text == ""


def test_cancelled_run_may_save_its_work(
    place: Place, launcher: Launcher, runs: dict[str, Handle]
) -> None:
    until((place.folder / "saves").exists)
    launcher.cancel(runs["saves"], grace_seconds=10)
    status = launcher.poll(runs["saves"])
    assert (status.state, status.reason) == ("failed", "cancelled")
    if place.name == "kubernetes":  # its log went with its pod
        assert status.exit_code is None
    else:
        assert "saved" in launcher.logs(runs["saves"]).text
    launcher.cancel(runs["saves"])
    assert launcher.poll(runs["saves"]) == status


def test_run_that_does_not_end_is_killed_with_its_children(
    place: Place, launcher: Launcher, runs: dict[str, Handle]
) -> None:
    paths = [place.folder / name for name in ("parent", "child")]
    until(lambda: all(path.exists() for path in paths))
    pids = [int(path.read_text()) for path in paths]
    assert all(map(lives, pids))
    launcher.cancel(runs["stays"], grace_seconds=1)
    status = launcher.poll(runs["stays"])
    assert (status.state, status.reason) == ("failed", "cancelled")
    until(lambda: not any(map(lives, pids)))


def test_finished_run_cannot_be_cancelled(launcher: Launcher, runs: dict[str, Handle]) -> None:
    status = ended(launcher, runs["badly"])
    launcher.cancel(runs["badly"])
    assert launcher.poll(runs["badly"]) == status
    assert status.reason == "exit"


def test_run_ends_when_its_time_is_over(launcher: Launcher, runs: dict[str, Handle]) -> None:
    status = ended(launcher, runs["late"])
    assert (status.state, status.reason) == ("failed", "timeout")


def test_run_that_takes_too_much_memory_is_ended(
    place: Place, launcher: Launcher, runs: dict[str, Handle]
) -> None:
    if place.name == "ray":
        pytest.skip("Ray counts memory before it starts a program, and does not watch it")
    status = ended(launcher, runs["greedy"])
    assert (status.state, status.reason) == ("failed", "oom")


def test_handle_is_a_text_that_finds_the_run_again(place: Place, launcher: Launcher) -> None:
    name = key()
    handle = launcher.submit(place.spec("echo found; exit 4"), key=name)
    text = json.loads(json.dumps(handle))
    another = place.open()
    found = another.reattach(text)
    assert found == handle == handle_for(place.name, name)
    assert ended(another, found).exit_code == 4
    assert "found" in another.logs(found).text


@pytest.mark.parametrize("handle", ["", "other:run-1", "../..", "run-0", "{name}:../../etc"])
def test_text_that_is_no_handle_is_refused(launcher: Launcher, handle: str) -> None:
    text = handle.format(name=launcher.name)
    for call in (launcher.reattach, launcher.poll, launcher.logs, launcher.cancel):
        with pytest.raises(InvalidRequest, match="no handle"):
            call(text)  # type: ignore[operator]


def test_run_that_was_never_submitted_is_not_found(launcher: Launcher) -> None:
    with pytest.raises(NotFound, match="run"):
        launcher.reattach(handle_for(launcher.name, key()))


def test_secret_arrives_and_stands_on_no_command_line(
    place: Place, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = f"s3cret-{key()}"
    monkeypatch.setenv("TOKEN_OF_THE_TEST", secret)
    go = place.folder / key()
    script = 'printf %s "$TOKEN_OF_THE_TEST" | sha256sum; while [ ! -e "$1" ]; do sleep 0.05; done'
    spec = place.spec(script, str(go), secrets=("TOKEN_OF_THE_TEST",))
    seen: set[str] = set()
    done = threading.Event()
    watcher = threading.Thread(target=lambda: _watch_command_lines(secret, seen, done))
    watcher.start()
    try:
        handle = launcher.submit(spec, key=key())
        digest = hashlib.sha256(secret.encode()).hexdigest()
        until(lambda: digest in launcher.logs(handle).text)
        go.touch()
        assert ended(launcher, handle).exit_code == 0
    finally:
        done.set()
        watcher.join()
    assert seen == set()
    assert secret not in launcher.logs(handle).text
    assert secret not in repr(launcher.poll(handle)) + handle
    files = [path for path in place.folder.parent.rglob("*") if path.is_file()]
    assert [path for path in files if secret.encode() in path.read_bytes()] == []


def _watch_command_lines(secret: str, seen: set[str], done: threading.Event) -> None:
    while not done.wait(0.02):
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if secret in line:
                seen.add(line)


def test_secret_that_is_not_set_is_named(place: Place, launcher: Launcher) -> None:
    assert "NO_SUCH_TOKEN" not in os.environ
    with pytest.raises(InvalidConfiguration, match="'NO_SUCH_TOKEN'"):
        launcher.submit(place.spec("true", secrets=("NO_SUCH_TOKEN",)), key=key())


def test_empty_key_is_refused(place: Place, launcher: Launcher) -> None:
    with pytest.raises(InvalidRequest, match="key is empty"):
        launcher.submit(place.spec("true"), key="")
