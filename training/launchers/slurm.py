"""Runs programs on a Slurm cluster: sbatch submits them, a shared folder remembers them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from infra.errors import InvalidConfiguration, InvalidRequest, NotFound, NotReady
from training.launchers import (
    GRACE_SECONDS,
    Handle,
    Launcher,
    Log,
    Reason,
    Spec,
    State,
    Status,
    _batch,
    _limits,
    _ranks,
    _runs,
    handle_for,
)

NAME = "slurm"
COMMAND_SECONDS = 60.0
POLL_SECONDS = 0.5
LEADER_SECONDS = 5.0
"""How long the shell above a killed program may take to write down how it ended."""
END_SECONDS = 60.0

GONE = re.compile("Invalid job id|already completing or completed|Invalid job step")
OVER_MEMORY = re.compile(
    r"^slurmstepd\S* error: .*(?:exceeded memory limit|oom[_-]kill).*$", re.MULTILINE
)
COMPLAINT_BYTES = 2**16
STATES: Mapping[str, tuple[State, Reason | None]] = {
    "PENDING": ("queued", None),
    "CONFIGURING": ("queued", None),
    "REQUEUED": ("queued", None),
    "COMPLETED": ("succeeded", None),
    "FAILED": ("failed", "exit"),
    "TIMEOUT": ("failed", "timeout"),
    "DEADLINE": ("failed", "timeout"),
    "OUT_OF_MEMORY": ("failed", "oom"),
    "CANCELLED": ("failed", "cancelled"),
    "NODE_FAIL": ("failed", "lost"),
    "BOOT_FAIL": ("failed", "lost"),
    "PREEMPTED": ("failed", "lost"),
}


def build(
    *,
    folder: str | Path,
    options: Sequence[str] = (),
    torchrun: Sequence[str] = ("torchrun",),
    configuration: str | None = None,
) -> Launcher:
    """Return a launcher that keeps its runs below `folder`.

    Args:
        folder: one that every node of the cluster sees under the same path.
        options: passed to sbatch, such as `--partition=gpu` or `--account=research`.
        torchrun: how the nodes start torchrun.
        configuration: the path of slurm.conf; by default what the commands find by themselves.
    """
    return Slurm(Path(folder).absolute(), tuple(options), tuple(torchrun), configuration)


class Slurm:
    """Launches programs through Slurm's own commands, of this machine."""

    name = NAME

    def __init__(
        self,
        root: Path,
        options: tuple[str, ...],
        torchrun: tuple[str, ...],
        configuration: str | None,
    ) -> None:
        self._root = root
        self._options = options
        self._torchrun = torchrun
        self._configuration = configuration

    def submit(self, spec: Spec, *, key: str) -> Handle:
        handle = handle_for(NAME, key)
        run_id = _runs.id_of(handle, launcher=NAME)
        environment = _runs.environment_of(spec) | _ranks.meeting(spec)
        state = self._root / run_id
        _runs.remember(state, spec)
        with _runs.only_one(state / "lock"):
            if not (state / "job").exists():
                number = self._found(run_id) or self._sbatch(spec, state, environment=environment)
                if not _runs.once(state / "job", f"{number}\n") and _number(state) != number:
                    self._call("scancel", number)
        return handle

    def poll(self, handle: Handle) -> Status:
        state = self._state(handle)
        if (told := _runs.told(state)) is not None:
            return told
        status = self._now(state)
        if not status.is_finished:
            return status
        if (state / "cancelled").exists():
            status = _runs.ended(status.exit_code, reason="cancelled")
        return _runs.tell(state, status)

    def logs(self, handle: Handle, *, offset: int = 0) -> Log:
        path = self._state(handle) / "output.log"
        text, taken = _runs.whole_characters(_runs.read_file(path, offset))
        return Log(text, offset + taken)

    def cancel(self, handle: Handle, *, grace_seconds: float = GRACE_SECONDS) -> None:
        state = self._state(handle)
        status = self.poll(handle)
        if status.is_finished:
            return
        (state / "cancelled").touch()
        number = _number(state)
        if status.state == "running":
            self._call("scancel", "--signal=TERM", number)
            if not self._ends_within(grace_seconds, handle):
                # Of the step: of a whole job, Slurm would only ask again, and wait for KillWait.
                self._call("scancel", "--signal=KILL", f"{number}.0")
                self._ends_within(LEADER_SECONDS, handle)
        if not self.poll(handle).is_finished:
            self._call("scancel", number)
            if not self._ends_within(END_SECONDS, handle):
                raise NotReady(f"Slurm has not yet ended job {number}; try again")

    def reattach(self, text: str) -> Handle:
        self._state(text)
        return Handle(text)

    def _state(self, handle: str) -> Path:
        state = _runs.known(self._root, handle, launcher=NAME)
        if not (state / "job").exists():
            raise NotFound("run", handle)
        return state

    def _found(self, run_id: str) -> str | None:
        """Return the number of a job that was submitted for this run and not written down."""
        listed = self._call("squeue", "--me", "--noheader", "--states=all", "--format=%i %k")
        numbers = [line.split()[0] for line in listed.splitlines() if line.split()[1:] == [run_id]]
        return min(numbers, key=int, default=None)

    def _sbatch(self, spec: Spec, state: Path, *, environment: Mapping[str, str]) -> str:
        script = _batch.script(spec, state, torchrun=self._torchrun)
        arguments = [*_batch.requests(spec), *self._options, f"--comment={state.name}"]
        arguments += [f"--chdir={state}", f"--output={state / 'output.log'}", "--parsable"]
        answer = self._call("sbatch", *arguments, script=script, environment=environment)
        return answer.strip().partition(";")[0]

    def _now(self, state: Path) -> Status:
        """Return what the controller knows and what the run wrote down at its end, as one."""
        number = _number(state)
        known = self._known(number, comment=state.name)
        ended = _ended(state)
        if known is None and ended is None:
            message = f"Slurm has forgotten job {number}, and it left no record"
            return _runs.ended(None, reason="lost", message=message)
        if known is not None and (ended is None or known.reason != "exit"):
            # Also a code of 0 is no success if a node died: srun returns it then.
            return known
        code, seconds = ended or (None, 0.0)
        return self._by_code(state, code, seconds)

    def _known(self, number: str, *, comment: str) -> Status | None:
        """Return what the controller says; it forgets a job some minutes after its end."""
        try:
            record = self._call("scontrol", "show", "job", number, "--oneliner")
        except NotFound:
            return None
        fields = dict(re.findall(r"(\w+)=(\S*)", record))
        if fields.get("Comment") != comment:  # a cluster set up anew counts from 1 again
            return None
        message = f"Slurm job {number}: {fields['JobState']}"
        if fields.get("Reason", "None") != "None":
            message += f", {fields['Reason']}"
        state, reason = STATES.get(fields["JobState"], ("running", None))
        if state in {"queued", "running"}:
            return Status(state, message=message)
        code, _, killed_by = fields["ExitCode"].partition(":")
        exit_code = -int(killed_by) if killed_by != "0" else _runs.signed(int(code))
        return Status(state, exit_code, reason, message)

    def _by_code(self, state: Path, code: int | None, seconds: float) -> Status:
        limit = _runs.recalled(state).time_limit_seconds
        if code is None or code == 0:
            return _runs.ended(code)
        if limit is not None and _limits.was_reached(limit, code=code, seconds=seconds):
            return _runs.ended(code, reason="timeout")
        if code == -signal.SIGKILL and (said := _complaint(state)):
            return _runs.ended(code, reason="oom", message=said)
        return _runs.ended(code)

    def _ends_within(self, seconds: float, handle: Handle) -> bool:
        deadline = time.monotonic() + seconds
        while not self.poll(handle).is_finished:
            if time.monotonic() >= deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def _call(
        self,
        program: str,
        *arguments: str,
        script: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> str:
        """Run one of Slurm's commands; the environment is that of the job, for sbatch."""
        variables = dict(os.environ if environment is None else environment)
        if self._configuration is not None:
            variables["SLURM_CONF"] = self._configuration
        elif "SLURM_CONF" in os.environ:
            variables["SLURM_CONF"] = os.environ["SLURM_CONF"]
        try:
            done = subprocess.run(
                [program, *arguments],
                input=script,
                env=variables,
                capture_output=True,
                text=True,
                timeout=COMMAND_SECONDS,
            )
        except FileNotFoundError:
            raise InvalidConfiguration(
                f"{program!r} is not on the PATH; install Slurm's commands on this machine"
            ) from None
        except subprocess.TimeoutExpired:
            raise NotReady(f"{program} did not answer within {COMMAND_SECONDS:g} s") from None
        if done.returncode != 0:
            _explain(program, done.stderr.strip())
        return done.stdout


def _explain(program: str, said: str) -> None:
    if program == "scancel" and GONE.search(said):
        return  # as was asked
    if "Invalid job id" in said:
        raise NotFound("Slurm job", said)
    if re.search(r"[Uu]nable to contact|Connection refused|timed out|Socket timed out", said):
        raise NotReady(f"Slurm's controller does not answer: {said}")
    if program == "sbatch":
        raise InvalidRequest(f"Slurm refuses the run: {said}")
    raise NotReady(f"{program} failed: {said}")


def _complaint(state: Path) -> str:
    """Return the line in which a node says that the run took too much memory.

    A job whose step was killed for it is not always told as such by the controller.
    """
    path = state / "output.log"
    size = path.stat().st_size if path.exists() else 0
    end = _runs.read_file(path, max(0, size - COMPLAINT_BYTES))
    found = OVER_MEMORY.findall(end.decode(errors="replace"))
    return found[-1] if found else ""


def _number(state: Path) -> str:
    return (state / "job").read_text(encoding="ascii").strip()


def _ended(state: Path) -> tuple[int, float] | None:
    """Return the exit code that the job wrote down, and how many seconds the program ran."""
    try:
        code, seconds = (state / "ended").read_text(encoding="ascii").split()
    except FileNotFoundError:
        return None
    return _runs.signed(int(code)), float(seconds)
