"""Runs programs on this machine: detached, within their limits, on GPUs of their own."""

from __future__ import annotations

import fcntl
import glob
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.errors import InvalidRequest, NotReady
from infra.jobs import external
from infra.jobs.external import Command, External, ProcessVanished
from training.launchers import (
    GRACE_SECONDS,
    Handle,
    Launcher,
    Log,
    Reason,
    Spec,
    Status,
    _ranks,
    _runs,
    handle_for,
)
from training.launchers import _supervisor as supervisor

NAME = "local"


def build(*, folder: str | Path, gpus: Sequence[str] | None = None) -> Launcher:
    """Return a launcher that keeps its runs below `folder`.

    Args:
        folder: of this machine, the same for all processes that launch; not a network's.
        gpus: the devices to share out, as CUDA_VISIBLE_DEVICES names them; by default all that
            this process may see.
    """
    return Local(Path(folder).absolute(), tuple(devices() if gpus is None else gpus))


class Local:
    """Launches programs of this machine; see `infra.jobs.external` for how they are found again."""

    name = NAME

    def __init__(self, root: Path, gpus: tuple[str, ...]) -> None:
        self._root = root
        self._gpus = gpus

    def submit(self, spec: Spec, *, key: str) -> Handle:
        if spec.gpus > len(self._gpus):
            raise InvalidRequest(
                f"The run {spec.name!r} wants {spec.gpus} GPUs; this machine has "
                f"{len(self._gpus)} to give",
                parameter="gpus",
            )
        handle = handle_for(NAME, key)
        run_id = _runs.id_of(handle, launcher=NAME)
        torchrun = [sys.executable, "-m", "torch.distributed.run"]
        program = _ranks.on_one_node(spec, torchrun=torchrun)
        environment = _runs.environment_of(spec) | {supervisor.MARK: run_id}
        if not Path(spec.folder).is_dir():
            raise InvalidRequest(f"No folder {spec.folder!r}; create it first", parameter="folder")
        state = self._root / run_id
        _runs.remember(state, spec)
        with _runs.only_one(state / "lock"):
            if not (state / "process").exists():
                with self._devices(spec) as lent:
                    environment["CUDA_VISIBLE_DEVICES"] = ",".join(lent)
                    arguments = [*_supervised(spec, state), *program]
                    command = Command(arguments, Path(spec.folder), environment)
                    external.launch(command, state=state)
        return handle

    def poll(self, handle: Handle) -> Status:
        run = self._run(handle)
        try:
            code = run.exit_code()
        except ProcessVanished as vanished:
            return _runs.ended(None, reason="lost", message=vanished.message)
        if code is None:
            return Status("running")
        report = run.state / "report.json"
        if not report.exists() and run.members():
            return Status("running", message="its supervisor was killed; cancel it to end the rest")
        if (run.state / "cancelled").exists():
            return _runs.ended(code, reason="cancelled")
        return _runs.ended(code, reason=_reported(run.state))

    def logs(self, handle: Handle, *, offset: int = 0) -> Log:
        text, taken = _runs.whole_characters(_runs.read_file(self._run(handle).output, offset))
        return Log(text, offset + taken)

    def cancel(self, handle: Handle, *, grace_seconds: float = GRACE_SECONDS) -> None:
        run = self._run(handle)
        if not self.poll(handle).is_finished:
            (run.state / "cancelled").touch()
            run.cancel(grace_seconds=grace_seconds)

    def reattach(self, text: str) -> Handle:
        self._run(text)
        return Handle(text)

    def _run(self, handle: str) -> _Run:
        run = _Run(_runs.known(self._root, handle, launcher=NAME))
        _ = run.process
        return run

    @contextmanager
    def _devices(self, spec: Spec) -> Iterator[list[str]]:
        """Lock GPUs for the program that is launched within, which inherits the locks.

        So they are free again when its last process is gone, however it ended.
        """
        folder = self._root / "gpus"
        folder.mkdir(exist_ok=True)
        lent: list[str] = []
        with ExitStack() as locks:
            for device in self._gpus:
                if len(lent) == spec.gpus:
                    break
                lock = os.open(folder / device.replace("/", "_"), os.O_RDWR | os.O_CREAT, 0o600)
                locks.callback(os.close, lock)
                if _locked(lock):
                    os.set_inheritable(lock, True)
                    lent.append(device)
            if len(lent) < spec.gpus:
                raise NotReady(
                    f"The run {spec.name!r} wants {spec.gpus} GPUs; {len(lent)} of "
                    f"{len(self._gpus)} are free now"
                )
            yield lent


@dataclass(frozen=True, slots=True)
class _Run(External):
    """A run, with those of its processes that lead sessions of their own, as torchrun's do."""

    def members(self) -> list[int]:
        # Not super() alone: a class with slots is made anew, which the short form does not see.
        session = External.members(self)
        number = self.process.pid if session else -1  # 0 is that of the kernel's own
        return sorted(supervisor.members(self.state.name, session=number) | set(session))


def devices() -> list[str]:
    """Return the GPUs that this process may see, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [device for device in visible.split(",") if device and device != "-1"]
    found = glob.glob("/dev/nvidia[0-9]*")
    return sorted((path.removeprefix("/dev/nvidia") for path in found), key=int)


def _supervised(spec: Spec, state: Path) -> list[str]:
    arguments = ["--run", state.name, "--report", str(state / "report.json")]
    arguments += ["--memory", str(spec.memory_bytes), "--grace", str(spec.grace_seconds)]
    if spec.time_limit_seconds is not None:
        arguments += ["--seconds", str(spec.time_limit_seconds)]
    return [sys.executable, "-I", str(Path(supervisor.__file__).absolute()), *arguments, "--"]


def _reported(state: Path) -> Reason | None:
    try:
        report = json.loads((state / "report.json").read_text(encoding="ascii"))
    except FileNotFoundError:  # the supervisor was killed
        return None
    reason: Reason | None = report["reason"]
    return reason


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
