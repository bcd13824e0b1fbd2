"""Programs that outlive whoever started them: launched detached, found again, ended as a group."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from infra.errors import Conflict, InvalidConfiguration, InvalidRequest, NotFound
from infra.jobs.attempt import Attempt, Interrupted
from infra.jobs.processes import PROC, Process, find, reap, session_members, this_machine

APPEAR_SECONDS = 10.0
POLL_SECONDS = 0.5
GRACE_SECONDS = 30.0
LEADER_SECONDS = 2.0
# The shell leads a session of its own. It enters itself in a file that only one can link, so that
# a folder is launched once, whoever tries. It survives the signals meant for the program, to
# write down how that ended; trapped signals, unlike ignored ones, are not inherited.
WRAPPER = r"""
cd "$1" && read -r stat < "/proc/$$/stat" || exit 1
printf '%s|%s|%s\n' "$2" "$$" "${stat##*) }" > "process.$$"
ln "process.$$" process 2> /dev/null; first=$?
rm "process.$$"
[ "$first" = 0 ] || exit 0
trap : TERM INT HUP
cd "$3" || { printf '126\n' > exit_code; exit 126; }
shift 3
"$@"
code=$?
cd "$OLDPWD"
printf '%s\n' "$code" > exit_code.part && mv exit_code.part exit_code
"""


@dataclass(frozen=True, slots=True)
class Command:
    """A program, and what it needs to start."""

    arguments: Sequence[str]
    folder: Path
    """Its working folder."""
    environment: Mapping[str, str] | None = None
    """All of it; `None` passes on what this process has."""


@dataclass(frozen=True, slots=True)
class External:
    """A launched program, known by the folder that its state is kept in.

    The folder holds `process` (who), `output.log` (standard output and error) and, once it has
    ended, `exit_code`.
    """

    state: Path

    @property
    def output(self) -> Path:
        return self.state / "output.log"

    @property
    def process(self) -> Process:
        """The leader of the program's session.

        Raises:
            NotFound: nothing was launched in this folder.
        """
        entry = _entry(self.state)
        if entry is None:
            raise NotFound("process", str(self.state))
        return entry

    def exit_code(self) -> int | None:
        """Return how the program ended; negative for a signal, `None` while it runs.

        Raises:
            Conflict: it runs on another machine; look there.
            ProcessVanished: it is gone and nobody saw how it ended.
        """
        leader = self.process
        reap(leader)
        gone = leader.is_gone  # asked before the file, which is written while it lives
        try:
            code = int((self.state / "exit_code").read_text(encoding="ascii"))
        except FileNotFoundError:
            code = None
        if code is not None:
            return 128 - code if code > 128 else code
        if gone or _restarted_since(leader):
            raise ProcessVanished(
                f"Process {leader.pid} of {str(self.state)!r} is gone and left no exit code: it "
                "was killed, or the machine restarted"
            )
        if not leader.is_here:
            raise Conflict(
                f"{str(self.state)!r} was launched on {leader.machine!r}; this is "
                f"{this_machine()!r}, from where it can be neither seen nor ended"
            )
        return None

    def members(self) -> list[int]:
        """Return the processes of the program that run, as far as they can be seen from here."""
        leader = self.process
        reap(leader)
        # While a session has members the kernel gives its number to nobody else.
        if not leader.is_here or find(leader.pid) not in {None, leader}:
            return []
        return session_members(leader.pid)

    def cancel(self, *, grace_seconds: float = GRACE_SECONDS) -> None:
        """End the program: ask all its processes, wait, then kill those that are left."""
        leader = self.process.pid
        self._signal(signal.SIGTERM, self.members())
        if not self._ends_within(grace_seconds):
            # The leader is spared at first, so that it can write down how the program ended.
            self._signal(signal.SIGKILL, [pid for pid in self.members() if pid != leader])
            if not self._ends_within(LEADER_SECONDS):
                self._signal(signal.SIGKILL, self.members())

    def _ends_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.members():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        return True

    def _signal(self, number: signal.Signals, pids: Sequence[int]) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


class ProcessVanished(Conflict):
    """A launched program is gone and left no exit code."""


def launch(command: Command, *, state: Path) -> External:
    """Start a program, detached; or find it, if this folder's was launched before.

    Safe to call again after a crash at any moment: the program starts once.

    Raises:
        InvalidRequest: there is no program, or its working folder is missing.
        InvalidConfiguration: this system has no /proc.
        Conflict: the program could not be started.
    """
    if not command.arguments:
        raise InvalidRequest("The command is empty; name a program", parameter="arguments")
    if not command.folder.is_dir():
        raise InvalidRequest(f"No folder {str(command.folder)!r}; create it first")
    if not PROC.is_dir():
        raise InvalidConfiguration("Detached programs need /proc, which this system has not")
    state.mkdir(parents=True, exist_ok=True)
    if _entry(state) is None:
        _spawn(command, state)
        deadline = time.monotonic() + APPEAR_SECONDS
        while _entry(state) is None:
            if time.monotonic() > deadline:
                raise Conflict(
                    f"{command.arguments[0]!r} did not start; see {str(state / 'output.log')!r}"
                )
            time.sleep(0.005)
    return External(state)


def attach(state: Path) -> External:
    """Find a program launched before, by this process or another.

    Raises:
        NotFound: nothing was launched in this folder.
    """
    found = External(state)
    _ = found.process
    return found


def run(
    attempt: Attempt,
    command: Command,
    *,
    state: Path,
    grace_seconds: float = GRACE_SECONDS,
    poll_seconds: float = POLL_SECONDS,
) -> int:
    """Launch a program from a job, or find it again, and wait for its exit code.

    A job that is cancelled ends it. A worker that stops or dies does not: the job's next attempt
    finds it. Register the job as `detached`, so that there is a next attempt when it is cancelled
    meanwhile.

    Raises:
        ProcessVanished: it is gone and nobody saw how it ended.
    """
    try:
        attempt.check()
        program = launch(command, state=state)
        while (code := program.exit_code()) is None:
            attempt.wait(poll_seconds)
    except Interrupted as interruption:
        if interruption.reason == "cancelled":
            with suppress(NotFound):  # it was cancelled before it launched anything
                attach(state).cancel(grace_seconds=grace_seconds)
        raise
    return code


def _spawn(command: Command, state: Path) -> None:
    log = os.open(state / "output.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    environment = dict(os.environ if command.environment is None else command.environment)
    where = (str(state.absolute()), this_machine(), str(command.folder.absolute()))
    try:
        # Not subprocess: it would keep, and warn about, a child that is meant to be left alone.
        os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", WRAPPER, "sh", *where, *command.arguments],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, nothing, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ],
            setsid=True,
            setsigmask=[],
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
        )
    finally:
        os.close(log)
        os.close(nothing)


def _entry(state: Path) -> Process | None:
    """Return who the wrapper entered: machine, pid, and its line of /proc from the state on."""
    try:
        machine, pid, fields = (state / "process").read_text(encoding="utf-8").split("|")
    except FileNotFoundError:
        return None
    return Process(machine, int(pid), int(fields.split()[19]))


def _restarted_since(leader: Process) -> bool:
    here, there = this_machine().split("/"), leader.machine.split("/")
    return here[0] == there[0] and here[1] != there[1]
