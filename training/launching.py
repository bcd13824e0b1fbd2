"""A durable job that launches a program elsewhere, watches it, and finds it after a crash."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, fields
from typing import Any

from pydantic import TypeAdapter, ValidationError

from infra.errors import Conflict, InvalidRequest, NotFound, NotReady, StorageFailed
from infra.jobs.attempt import Attempt, Interrupted
from infra.jobs.definitions import Behaviour, Json, Registry, Resources, Retries
from training.launchers import Handle, Launcher, Spec, Status, handle_for

logger = logging.getLogger(__name__)

JOB = "launch"
POLL_SECONDS = 2.0
MAX_MESSAGE_CHARACTERS = 500


class RunFailed(Conflict):
    """A program ended otherwise than well; its log tells more."""

    def __init__(self, message: str, status: Status) -> None:
        super().__init__(message)
        self.status = status


def register(
    registry: Registry,
    open_launcher: Callable[[str], Launcher],
    *,
    poll_seconds: float = POLL_SECONDS,
) -> None:
    """Add the job `launch` to a registry.

    Its arguments are the name of a launcher, and the fields of a `Spec`; its result is what
    `watch` returns. Requeued `from_scratch` it launches anew, otherwise it looks again at the
    run it launched.

    Args:
        registry: of the worker that is to watch.
        open_launcher: builds a launcher with the operator's options.
        poll_seconds: how often it looks at what it launched.
    """
    retries = Retries(permanent=(*Retries().permanent, RunFailed))

    @registry.job(
        JOB,
        resources=Resources(cpu=0.05),
        retries=retries,
        behaviour=Behaviour(detached=True),
    )
    def launch(attempt: Attempt, *, launcher: str, spec: dict[str, Json]) -> dict[str, Json]:
        read = read_spec(spec)
        return watch(attempt, open_launcher(launcher), read, poll_seconds=poll_seconds)


def watch(
    attempt: Attempt,
    launcher: Launcher,
    spec: Spec,
    *,
    poll_seconds: float = POLL_SECONDS,
    key: str | None = None,
    look: Callable[[], object] = lambda: None,
) -> dict[str, Json]:
    """Launch a program, or find the one that an earlier attempt launched, and wait for its end.

    A job that is cancelled ends it. A worker that stops or dies does not: the job's next attempt
    finds it.

    Args:
        attempt: of the job.
        launcher: where the program runs.
        spec: of the program; the same in every attempt.
        poll_seconds: how often it is looked at.
        key: that it is launched under, for a job that launches several; else that of the job.
        look: is called whenever the program was looked at, and after its end.

    Returns:
        `handle`, by which its log can be read, and the fields of its last `Status`.

    Raises:
        RunFailed: it failed, or was cancelled by somebody else.
    """
    key = key or attempt.claim.workflow_id

    def submit() -> Handle:
        while True:
            try:
                return launcher.submit(spec, key=key)
            except NotReady as error:
                _report(attempt, error.message)
                attempt.wait(poll_seconds)

    try:
        handle = attempt.step("submit", submit)
        attempt.log(f"watching {handle}")
        status = _wait(attempt, launcher, handle, poll_seconds=poll_seconds, look=look)
    except Interrupted as interruption:
        if interruption.reason == "cancelled":
            cancel(launcher, key, grace_seconds=spec.grace_seconds)
        raise
    if status.state == "failed":
        code = "no exit code" if status.exit_code is None else f"exit code {status.exit_code}"
        said = status.message[-MAX_MESSAGE_CHARACTERS:]
        raise RunFailed(f"{handle} failed ({status.reason}, {code}): {said}", status)
    return {"handle": handle, **asdict(status)}


def cancel(launcher: Launcher, key: str, *, grace_seconds: float) -> None:
    """End what was launched under a key, also by an attempt that died before it could say so."""
    with suppress(NotFound):
        handle = launcher.reattach(handle_for(launcher.name, key))
        launcher.cancel(handle, grace_seconds=grace_seconds)


def read_spec(values: dict[str, Any]) -> Spec:
    """Check what came from outside, such as the arguments of a job.

    Raises:
        InvalidRequest: names what is unknown, missing or wrong.
    """
    known = [each.name for each in fields(Spec)]
    if unknown := sorted(set(values) - set(known)):
        raise InvalidRequest(
            f"A specification has no {unknown[0]!r}; it has {', '.join(known)}", parameter="spec"
        )
    try:
        return TypeAdapter(Spec).validate_python(values)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, each['loc']))}: {each['msg']}"
            for each in error.errors(include_url=False)
        ]
        raise InvalidRequest(
            f"The specification cannot be read: {'; '.join(problems)}", parameter="spec"
        ) from None


def _wait(
    attempt: Attempt,
    launcher: Launcher,
    handle: Handle,
    *,
    poll_seconds: float,
    look: Callable[[], object],
) -> Status:
    while True:
        try:
            status = launcher.poll(handle)
        except NotReady as error:  # the place does not answer; the program may run all the same
            status = Status("running", message=error.message)
        look()
        if status.is_finished:
            return status
        _report(attempt, f"{status.state}: {status.message}" if status.message else status.state)
        attempt.wait(poll_seconds)


def _report(attempt: Attempt, message: str) -> None:
    """Say how far a job is; a report that cannot be kept is left out, and the next one comes."""
    try:
        attempt.progress(None, message[:MAX_MESSAGE_CHARACTERS])
    except StorageFailed as error:
        logger.warning("job %s cannot say how far it is: %s", attempt.job_id, error.message)
