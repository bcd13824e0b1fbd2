r"""Launchers: plug-ins that run a program somewhere, and find it again after a restart.

A plug-in is a file with `build(**options) -> Launcher`. The laws, run over each by
`tests/contracts/test_launchers.py`: one key launches once, whoever submits and however often; a
handle is a text by which another process finds the run; the log is read by offset; the exit code
and the reason of an end are told; a cancelled run is asked to end, then killed, with all its
children; what is secret stands on no command line. The smallest is `local`:

>>> import tempfile, time
>>> from training.launchers import Spec, open_launcher
>>> folder = tempfile.TemporaryDirectory()
>>> launcher = open_launcher("local", folder=folder.name)
>>> handle = launcher.submit(Spec(("echo", "hello"), folder=folder.name), key="first")
>>> while not launcher.poll(handle).is_finished:
...     time.sleep(0.02)
>>> launcher.poll(handle).exit_code, launcher.logs(handle).text
(0, 'hello\n')
>>> folder.cleanup()
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NewType, Protocol, cast

from infra.errors import InvalidRequest
from infra.plugins import load

GRACE_SECONDS = 30.0

Handle = NewType("Handle", str)
"""One run, as a text to be stored: the launcher's name, a colon, and the run's id there."""
State = Literal["queued", "running", "succeeded", "failed"]
Reason = Literal["exit", "oom", "timeout", "cancelled", "lost"]


@dataclass(frozen=True, slots=True)
class Spec:
    """A program, where it runs, and what it may use; resources are those of each node.

    With several processes, on one node or on many, each is started as `torch.distributed`
    expects: with RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.

    Raises:
        InvalidRequest: a value is impossible; the message names it.
    """

    command: tuple[str, ...]
    """A program and its arguments; no shell reads them."""
    folder: str
    """The absolute path of its working folder, where it runs."""
    name: str = "run"
    """For people: letters, digits, `.`, `_`, `-`."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Its variables, beside those that a program needs anywhere, such as PATH."""
    secrets: tuple[str, ...] = ()
    """Names of variables of the launching process that are passed on, their values written
    neither here nor on a command line."""
    nodes: int = 1
    processes_per_node: int = 1
    gpus: int = 0
    cpus: int = 1
    memory_bytes: int = 0
    """0: no limit of its own."""
    time_limit_seconds: float | None = None
    """Of running, not of waiting."""
    grace_seconds: float = GRACE_SECONDS
    """Between the request to end, when its time is over, and the kill."""

    def __post_init__(self) -> None:
        from training.launchers import _checks  # which knows what a Spec is

        _checks.check(self)

    @property
    def digest(self) -> str:
        """Equal for equal specifications; values of secrets do not enter."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Status:
    """How a run fares; `reason` is set if and only if it failed."""

    state: State
    exit_code: int | None = None
    """Negative for a signal; `None` while it runs, or where nobody knows it."""
    reason: Reason | None = None
    """`exit` (it returned another code than 0), `oom` (it took more memory than it may),
    `timeout`, `cancelled`, or `lost` (its machine or its record is gone)."""
    message: str = ""
    """What the place where it runs says of it."""

    @property
    def is_finished(self) -> bool:
        return self.state in {"succeeded", "failed"}


@dataclass(frozen=True, slots=True)
class Log:
    """A piece of what a run wrote, standard output and error together."""

    text: str
    offset: int
    """Where the next piece begins, in bytes from the start."""


class Launcher(Protocol):
    """Runs programs in one kind of place; safe to share between threads.

    Every method raises `NotReady` when the place does not answer at the moment, `InvalidRequest`
    for a handle that is not this launcher's, and `NotFound` for one that it does not know.
    """

    @property
    def name(self) -> str: ...

    def submit(self, spec: Spec, *, key: str) -> Handle:
        """Launch a program; or find it, if one was launched under this key before.

        Safe to call again after a crash at any moment.

        Raises:
            Conflict: the key was used for another specification.
            InvalidConfiguration: a secret is not set here, or the launcher cannot do this.
            InvalidRequest: this place can never run it.
            NotReady: it cannot run it now; try again.
        """
        ...

    def poll(self, handle: Handle) -> Status: ...

    def logs(self, handle: Handle, *, offset: int = 0) -> Log:
        """Return what was written from `offset` on, at most a megabyte, never half a character."""
        ...

    def cancel(self, handle: Handle, *, grace_seconds: float = GRACE_SECONDS) -> None:
        """End a run: SIGTERM to all its processes, SIGKILL to those left after the grace.

        Returns when it has ended. A run that is finished stays as it is.
        """
        ...

    def reattach(self, text: str) -> Handle:
        """Return the handle that a text stands for, once its run is found."""
        ...


def handle_for(launcher: str, key: str) -> Handle:
    """Return the handle that submitting under a key gives; `reattach` tells whether it has run.

    Raises:
        InvalidRequest: the key is empty.
    """
    if not key:
        raise InvalidRequest("The key is empty; give each run one of its own", parameter="key")
    return Handle(f"{launcher}:run-{hashlib.sha256(key.encode()).hexdigest()[:24]}")


def open_launcher(name: str, **options: Any) -> Launcher:
    """Build the launcher of plug-in `name`; heavy packages are imported at its first use."""
    return cast("Launcher", load("training.launchers", name)(**options))
