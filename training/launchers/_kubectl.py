"""kubectl as a function: objects in and out, and what its errors mean."""

from __future__ import annotations

import json
import math
import re
import subprocess
from dataclasses import dataclass

from infra.errors import Conflict, InvalidConfiguration, InvalidRequest, NotFound, NotReady
from training.launchers._manifests import Manifest

REQUEST_SECONDS = 30
SLACK_SECONDS = 30.0
"""What a command may take beyond what it was told to wait for."""
UNREACHABLE = re.compile(
    r"[Uu]nable to connect|refused|timeout|timed out|\((ServiceUnavailable|TooManyRequests|"
    r"InternalError|Timeout|ServerTimeout)\)|EOF"
)
REFUSED = re.compile(r"\((Invalid|BadRequest|Forbidden)\)|error validating")


@dataclass(frozen=True, slots=True)
class Kubectl:
    """The program, and the flags that say which cluster."""

    command: tuple[str, ...]

    def create(self, manifest: Manifest) -> Manifest:
        """Create an object as it is given.

        Raises:
            Conflict: there is one of this kind and name.
        """
        made = self._call("create", "-f", "-", "--output=json", said=json.dumps(manifest))
        return _object(made)

    def get(self, what: str, *, selector: str | None = None) -> Manifest:
        chosen = [] if selector is None else [f"--selector={selector}"]
        return _object(self._call("get", what, *chosen, "--output=json"))

    def patch(self, what: str, change: Manifest) -> None:
        self._call("patch", what, "--type=merge", f"--patch={json.dumps(change)}")

    def logs(self, pod: str) -> bytes:
        try:
            return self._call("logs", pod)
        except (InvalidRequest, NotFound):  # its container has not started, or the pod is gone
            return b""

    def delete_pods(self, selector: str, *, grace_seconds: float) -> None:
        """Ask pods to end, and wait until they are gone."""
        seconds = math.ceil(grace_seconds)
        # No grace at all would forget the pod before its processes are known to be dead.
        arguments = [f"--grace-period={max(1, seconds)}", "--wait=true", "--ignore-not-found"]
        arguments.append(f"--timeout={seconds + REQUEST_SECONDS}s")
        self._call("delete", "pods", f"--selector={selector}", *arguments, seconds=seconds)

    def _call(self, *arguments: str, said: str | None = None, seconds: float = 0) -> bytes:
        command = [*self.command, *arguments]
        if arguments[0] != "delete":  # there it would cut the wait short
            command.append(f"--request-timeout={REQUEST_SECONDS}s")
        try:
            done = subprocess.run(
                command,
                input=None if said is None else said.encode(),
                capture_output=True,
                timeout=REQUEST_SECONDS + SLACK_SECONDS + seconds,
            )
        except FileNotFoundError:
            raise InvalidConfiguration(
                f"{self.command[0]!r} is not on the PATH; install kubectl on this machine"
            ) from None
        except subprocess.TimeoutExpired:
            raise NotReady(f"The cluster did not answer kubectl {arguments[0]} in time") from None
        if done.returncode != 0:
            raise _error(done.stderr.decode(errors="replace").strip())
        return done.stdout


def _object(answer: bytes) -> Manifest:
    found: Manifest = json.loads(answer)
    return found


def _error(said: str) -> Exception:
    """Return what kubectl's words mean; the reason of the API stands in brackets."""
    if "(NotFound)" in said:
        return NotFound("object", said)
    if "(AlreadyExists)" in said:
        return Conflict(said)
    if REFUSED.search(said):
        return InvalidRequest(f"Kubernetes refuses: {said}")
    if UNREACHABLE.search(said):
        return NotReady(f"Kubernetes does not answer: {said}")
    return InvalidConfiguration(f"kubectl failed: {said}")
