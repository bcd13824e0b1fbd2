"""Starts, finds, describes and stops the engines of this machine; each is known by its name."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from infra.engine_settings import EngineProcess
from infra.errors import Conflict, EngineFailed, InvalidConfiguration, NotFound
from infra.jobs import external
from infra.jobs.external import Command
from infra.jobs.processes import Process
from service.supervision import guard, logs, probing, supervisor
from service.supervision.command import GUARD
from service.supervision.probing import Load
from service.supervision.replica import log_of
from service.supervision.state import (
    Plan,
    ReplicaState,
    read_plan,
    read_state,
    write_plan,
)

LOOK_SECONDS = 0.1
SLACK_SECONDS = 10.0
FAILURE_LINES = 25


@dataclass(frozen=True, slots=True)
class Address:
    """Where a replica takes requests."""

    url: str
    key: str
    incarnation: str
    """Changes when the process is another one, which knows nothing of the adapters before."""


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """A replica, as it is now."""

    state: ReplicaState
    load: Load | None
    """None where it does not answer."""


@dataclass(frozen=True, slots=True)
class Status:
    """An engine, as it is now."""

    name: str
    is_supervised: bool
    """False if its supervisor is gone; processes it left behind go on, and nobody looks."""
    replicas: tuple[ReplicaStatus, ...]


class Engines:
    """The engines that the settings name, whose state is kept below one folder."""

    def __init__(self, folder: Path, settings: Mapping[str, EngineProcess]) -> None:
        self._root = folder.absolute()
        self.settings = settings

    def addresses(self, name: str) -> tuple[Address, ...]:
        """Return where the ready replicas of an engine take requests; none if it does not run."""
        return replica_urls(self._root, name)

    def locations(self, name: str) -> tuple[tuple[str, str | None], ...]:
        """Return URL and key of the replicas that take requests, or will when they are back.

        Raises:
            InvalidConfiguration: the settings name no such engine.
        """
        if name not in self.settings:
            raise InvalidConfiguration(
                f"The settings name no engine {name!r}; there are "
                f"{', '.join(self.settings) or 'none'}"
            )
        folder = self._root / name
        return tuple(
            (each.url, read_plan(folder).key)
            for each in _replicas(folder)
            if each.port and each.phase not in {"draining", "stopped"}
        )

    def running(self) -> list[str]:
        """Return the names of the engines that run."""
        return running(self._root)

    def start(self, name: str, *, wait: bool = True) -> None:
        """Start an engine, detached; it outlives this process.

        Raises:
            NotFound: the settings name no such engine.
            Conflict: it runs already.
            EngineFailed: a replica ended before it was ready; nothing is left running.
        """
        engine = self._engine(name)
        folder = self._root / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _only_one(folder / "lock"):
            if _runs(folder):
                raise Conflict(f"The engine {name!r} runs already; `ragstone engine status` tells")
            _clear(folder)
            write_plan(folder, Plan(name, engine, secrets.token_urlsafe(32)))
            (folder / "guard").mkdir(exist_ok=True)
            shutil.copyfile(guard.__file__, folder / "guard" / f"{GUARD}.py")
            program = [sys.executable, "-m", supervisor.__name__, str(folder)]
            environment = {**os.environ, "PYTHONPATH": _import_path()}
            external.launch(Command(program, folder, environment), state=folder)
        if wait:
            self._wait(name, folder)

    def stop(self, name: str, *, drain: bool = True) -> None:
        """Let an engine finish the requests it has, up to a limit, and end it.

        Raises:
            NotFound: it does not run.
        """
        folder = self._root / name
        if not _runs(folder):
            raise NotFound("running engine", name, among=running(self._root))
        engine = read_plan(folder).engine
        patience = engine.stop_seconds + SLACK_SECONDS
        program = external.attach(folder)
        if drain and _ask_supervisor(folder):
            deadline = time.monotonic() + engine.drain_seconds + patience
            while _runs(folder) and time.monotonic() < deadline:
                time.sleep(LOOK_SECONDS)
        program.cancel(grace_seconds=engine.stop_seconds)

    def status(self, name: str) -> Status:
        """Look at an engine.

        Raises:
            NotFound: it does not run.
        """
        folder = self._root / name
        if not _runs(folder):
            raise NotFound("running engine", name, among=running(self._root))
        plan = read_plan(folder)
        try:
            state = read_state(folder)
        except NotFound:  # its supervisor is being started, and has not written anything yet
            expected = (ReplicaState(index) for index in range(plan.engine.replicas))
            return Status(name, True, tuple(ReplicaStatus(each, None) for each in expected))
        replicas = tuple(ReplicaStatus(each, _load(each, plan.key)) for each in state.replicas)
        return Status(name, not Process.parse(state.supervisor).is_gone, replicas)

    def logs(self, name: str, *, replica: int = 0, lines: int = 100) -> str:
        """Return the end of what a replica wrote, also after it has ended.

        Raises:
            NotFound: there is no such log.
        """
        path = self.log_file(name, replica=replica)
        return logs.last_lines(path, lines)

    def log_file(self, name: str, *, replica: int = 0) -> Path:
        """Return where a replica writes to.

        Raises:
            NotFound: it has never been started.
        """
        path = log_of(self._root / self._known(name), replica)
        if not path.exists():
            raise NotFound("log of a replica", f"{name}/{replica}")
        return path

    def _engine(self, name: str) -> EngineProcess:
        return self.settings[self._known(name)]

    def _known(self, name: str) -> str:
        if name not in self.settings:
            raise NotFound("engine", name, among=self.settings, are_few=True)
        return name

    def _wait(self, name: str, folder: Path) -> None:
        """Return when every replica is ready; end them all if one is not going to be."""
        deadline = time.monotonic() + self.settings[name].start_seconds
        while True:
            replicas = _replicas(folder)
            if replicas and all(replica.phase == "ready" for replica in replicas):
                return
            failed = [each for each in replicas if each.restarts or each.phase == "stopped"]
            if failed or not _runs(folder) or time.monotonic() > deadline:
                break
            time.sleep(LOOK_SECONDS)
        external.attach(folder).cancel(grace_seconds=self.settings[name].stop_seconds)
        index = failed[0].index if failed else 0
        how = failed[0].last_exit if failed else "was not ready in time"
        log = log_of(folder, index)
        tail = logs.last_lines(log, FAILURE_LINES)
        raise EngineFailed(
            f"The engine {name!r} did not start: replica {index} {how}. Its log "
            f"{str(log)!r} ends:\n{tail}"
        )


def replica_urls(folder: Path, name: str) -> tuple[Address, ...]:
    """Return where the ready replicas of an engine take requests; none if it does not run.

    Args:
        folder: of all engines, `engines` in the data folder.
        name: of the engine.
    """
    try:
        key, replicas = read_plan(folder / name).key, read_state(folder / name).replicas
    except NotFound:
        return ()
    return tuple(
        Address(each.url, key, f"{each.port}:{each.pid}:{each.started}")
        for each in replicas
        if each.phase in {"ready", "silent"} and each.pid is not None
    )


def running(folder: Path) -> list[str]:
    """Return the names of the engines that run."""
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if _runs(entry))


def _replicas(folder: Path) -> list[ReplicaState]:
    try:
        return read_state(folder).replicas
    except NotFound:
        return []


def _load(replica: ReplicaState, key: str) -> Load | None:
    if replica.phase not in {"ready", "draining"}:
        return None
    with suppress(EngineFailed):
        return probing.load(replica.port, key=key)
    return None


def _runs(folder: Path) -> bool:
    """Whether any process of the engine is alive, its supervisor or one that it left behind."""
    try:
        program = external.attach(folder)
    except NotFound:
        return False
    return bool(program.members())


def _ask_supervisor(folder: Path) -> bool:
    try:
        process = Process.parse(read_state(folder).supervisor)
    except NotFound:
        return False
    if process.is_gone:
        return False
    os.kill(process.pid, signal.SIGTERM)
    return True


def _clear(folder: Path) -> None:
    """Forget how the engine ended last time; its logs stay."""
    for name in ("process", "exit_code", "state.json"):
        (folder / name).unlink(missing_ok=True)


def _import_path() -> str:
    """Return where this very code is imported from: the supervisor has to be the same."""
    ours = str(Path(__file__).parent.parent.parent)
    return os.pathsep.join([ours, *filter(None, [os.environ.get("PYTHONPATH")])])


@contextmanager
def _only_one(path: Path) -> Iterator[None]:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
