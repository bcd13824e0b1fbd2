"""Runs programs on a Ray cluster, through its Jobs API."""

from __future__ import annotations

import math
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from infra.errors import InvalidConfiguration, InvalidRequest, NotFound, NotReady, Unauthenticated
from infra.plugins import require
from infra.security import new_id
from training.launchers import (
    GRACE_SECONDS,
    Handle,
    Launcher,
    Log,
    Reason,
    Spec,
    State,
    Status,
    _limits,
    _ranks,
    _runs,
    handle_for,
)

NAME = "ray"
POLL_SECONDS = 0.5
SLACK_SECONDS = 30.0
# Ray shows the variables of a job to everybody who reaches the cluster, and puts them on command
# lines; so secrets come in a file, which goes as soon as it is read.
SCRIPT = 'cd "$1" || exit 126; [ -z "$2" ] || { . "$2"; rm -f "$2"; }; shift 2; exec "$@"'
STATES: Mapping[str, tuple[State, Reason | None]] = {
    "PENDING": ("queued", None),
    "RUNNING": ("running", None),
    "STOPPED": ("failed", "cancelled"),
    "SUCCEEDED": ("succeeded", None),
    "FAILED": ("failed", "lost"),
}
Answer = TypeVar("Answer")


def build(
    *,
    address: str,
    folder: str | Path | None = None,
    torchrun: Sequence[str] = ("torchrun",),
    headers: Mapping[str, str] | None = None,
) -> Launcher:
    """Return a launcher for one cluster.

    Args:
        address: of the dashboard, like `http://head:8265`.
        folder: one that the cluster's nodes see under the same path; only secrets need it.
        torchrun: how the nodes start torchrun.
        headers: sent with each request, such as those that authenticate.
    """
    place = None if folder is None else Path(folder).absolute()
    return Ray(address, place, tuple(torchrun), dict(headers or {}))


class Ray:
    """Launches jobs on one Ray cluster; the ids of jobs are ours, so that each is taken once."""

    name = NAME

    def __init__(
        self,
        address: str,
        folder: Path | None,
        torchrun: tuple[str, ...],
        headers: dict[str, str],
    ) -> None:
        self._address = address
        self._folder = folder
        self._torchrun = torchrun
        self._headers = headers

    def submit(self, spec: Spec, *, key: str) -> Handle:
        handle = handle_for(NAME, key)
        run_id = _runs.id_of(handle, launcher=NAME)
        secrets = _runs.secrets_of(spec)
        command = [*_limits.timeout(spec), *_ranks.on_one_node(spec, torchrun=self._torchrun)]
        known = self._find(run_id)
        if known is None:
            self._start(spec, run_id, command=command, secrets=secrets)
            known = self._find(run_id)
        if known is not None:
            _runs.check_digest((known.metadata or {}).get("specification"), spec)
        return handle

    def poll(self, handle: Handle) -> Status:
        run_id = _runs.id_of(handle, launcher=NAME)
        job = self._find(run_id)
        if job is None:
            return _runs.ended(None, reason="lost", message=f"Ray does not know {run_id!r}")
        state, reason = STATES[str(job.status.value)]
        if state in {"queued", "running"}:
            return Status(state, message=job.message or "")
        code = None if job.driver_exit_code is None else _runs.signed(job.driver_exit_code)
        if code is not None:
            reason = _reason(job, code)
        return _runs.ended(code, reason=reason, message=job.message or "")

    def logs(self, handle: Handle, *, offset: int = 0) -> Log:
        """Return what the run wrote; Ray sends all of it each time, and only what is UTF-8."""
        run_id = _runs.id_of(handle, launcher=NAME)
        try:
            written: str = self._ask(lambda client: client.get_job_logs(run_id))
        except NotReady as error:
            if "UnicodeDecodeError" not in error.message:
                raise
            return Log("", offset)  # half a character stands at its end now
        data = written.encode()[offset : offset + _runs.MAX_LOG_BYTES]
        text, taken = _runs.whole_characters(data)
        return Log(text, offset + taken)

    def cancel(self, handle: Handle, *, grace_seconds: float = GRACE_SECONDS) -> None:
        """End a run; Ray's grace is that of the specification, and cannot be changed later."""
        if self.poll(handle).is_finished:
            return
        run_id = _runs.id_of(handle, launcher=NAME)
        allowed = max(grace_seconds, float(self._metadata(run_id).get("grace_seconds", 0)))
        self._ask(lambda client: client.stop_job(run_id))
        deadline = time.monotonic() + allowed + SLACK_SECONDS
        while not self.poll(handle).is_finished:
            if time.monotonic() >= deadline:
                raise NotReady(f"Ray has not yet ended {run_id!r}; try again")
            time.sleep(POLL_SECONDS)

    def reattach(self, text: str) -> Handle:
        if self._find(_runs.id_of(text, launcher=NAME)) is None:
            raise NotFound("run", text)
        return Handle(text)

    def _start(
        self, spec: Spec, run_id: str, *, command: Sequence[str], secrets: Mapping[str, str]
    ) -> None:
        path = self._write(secrets, run_id)
        name = "" if path is None else str(path)
        entrypoint = shlex.join(["sh", "-c", SCRIPT, "sh", spec.folder, name, *command])
        waits = {"RAY_JOB_STOP_WAIT_TIME_S": str(math.ceil(spec.grace_seconds))}
        metadata = {
            "name": spec.name,
            "specification": spec.digest,
            "grace_seconds": str(spec.grace_seconds),
        }
        if spec.time_limit_seconds is not None:
            metadata["time_limit_seconds"] = str(spec.time_limit_seconds)
        try:
            self._ask(
                lambda client: client.submit_job(
                    entrypoint=entrypoint,
                    submission_id=run_id,
                    runtime_env={"env_vars": {**spec.environment, **waits}},
                    metadata=metadata,
                    entrypoint_num_cpus=spec.cpus,
                    entrypoint_num_gpus=spec.gpus or None,
                    entrypoint_memory=spec.memory_bytes or None,
                )
            )
        except InvalidRequest:
            if path is not None:
                path.unlink(missing_ok=True)
            if self._find(run_id) is None:
                raise
            # Another process was faster with the same key.

    def _write(self, secrets: Mapping[str, str], run_id: str) -> Path | None:
        """Write secrets into a file of its own, which only this account can read."""
        if not secrets:
            return None
        if self._folder is None:
            raise InvalidConfiguration(
                "Secrets reach a Ray cluster through a folder that all its nodes see; give the "
                "launcher 'ray' one as `folder`"
            )
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = self._folder / new_id(f"{run_id}-")
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in secrets.items()]
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.writelines(lines)
        return path

    def _metadata(self, run_id: str) -> Mapping[str, str]:
        job = self._find(run_id)
        return (job and job.metadata) or {}

    def _find(self, run_id: str) -> Any:
        """Return what Ray knows of a job, or `None`."""
        try:
            return self._ask(lambda client: client.get_job_info(run_id))
        except NotFound:
            return None

    def _ask(self, question: Callable[[Any], Answer]) -> Answer:
        sdk = require("ray.job_submission", extra="ray")
        requests = require("requests", extra="ray")
        refused = require("ray.exceptions", extra="ray").AuthenticationError
        try:
            return question(sdk.JobSubmissionClient(self._address, headers=self._headers))
        except (ConnectionError, requests.exceptions.RequestException) as error:
            raise NotReady(f"Ray at {self._address!r} does not answer: {error}") from error
        except refused as error:
            raise Unauthenticated(
                f"Ray at {self._address!r} wants a valid token; give the launcher 'ray' `headers` "
                "with an Authorization"
            ) from error
        except RuntimeError as error:
            said = str(error)
        if "status code 404" in said or "does not exist" in said:
            raise NotFound("Ray job", said)
        if "status code 5" in said and "already exists" not in said:
            raise NotReady(f"Ray at {self._address!r} failed: {said}")
        raise InvalidRequest(f"Ray refuses: {said}")


def _reason(job: Any, code: int) -> Reason | None:
    started, ended = job.start_time or 0, job.end_time or 0
    limit = (job.metadata or {}).get("time_limit_seconds")
    seconds = (ended - started) / 1000
    if limit is not None and _limits.was_reached(float(limit), code=code, seconds=seconds):
        return "timeout"
    return None
