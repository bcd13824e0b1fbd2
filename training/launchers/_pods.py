"""What the pods of a run tell: why it failed, what it waits for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from training.launchers import Reason, Status, _runs
from training.launchers._manifests import INDEX, Manifest


def failure(condition: Mapping[str, Any], pods: Sequence[Manifest]) -> Status:
    """Return why a run failed: what its pods say, and else what its condition says."""
    message = condition.get("message", "")
    ended = partial(_runs.ended, exit_code(pods))
    reasons: list[tuple[Reason, Callable[[Manifest], bool]]] = [
        ("timeout", lambda pod: pod["status"].get("reason") == "DeadlineExceeded"),
        ("oom", lambda pod: any(end.get("reason") == "OOMKilled" for end in _ends(pod))),
        ("lost", _is_lost),
    ]
    if condition.get("reason") == "DeadlineExceeded":
        return ended(reason="timeout", message=message)
    for reason, holds in reasons:
        if any(holds(pod) for pod in pods):
            return ended(reason=reason, message=message)
    ends = sorted((end for pod in pods for end in _ends(pod)), key=_when)
    said = [end.get("message", "").strip() for end in ends]
    return ended(
        reason="exit" if ends else "lost",
        message="\n".join(filter(None, said)) or message,
    )


def _is_lost(pod: Manifest) -> bool:
    status = pod["status"]
    disrupted = any(
        condition["type"] == "DisruptionTarget" and condition["status"] == "True"
        for condition in status.get("conditions", [])
    )
    return disrupted or status.get("reason") in {"Evicted", "NodeLost", "Preempting", "Shutdown"}


def exit_code(pods: Sequence[Manifest]) -> int | None:
    """Return the first code that is not 0: one that fails has the others ended with it."""
    ends = sorted((end for pod in pods for end in _ends(pod)), key=_when)
    codes = [_runs.signed(end["exitCode"]) for end in ends]
    return next((code for code in codes if code != 0), codes[0] if codes else None)


def _when(end: Manifest) -> tuple[str, bool]:
    # Times are in whole seconds; within one, what was ended by a signal comes after its cause.
    return end.get("finishedAt") or "", end["exitCode"] > 128


def _ends(pod: Manifest) -> list[Manifest]:
    """Return how the containers of a pod ended."""
    states = [each.get("state", {}) for each in pod["status"].get("containerStatuses", [])]
    return [state["terminated"] for state in states if "terminated" in state]


def waiting(pod: Manifest) -> str:
    """Return what a pod waits for: an image, a secret, a node."""
    status = pod["status"]
    states = [each.get("state", {}) for each in status.get("containerStatuses", [])]
    for state in states:
        if waiting := state.get("waiting"):
            return f"{waiting.get('reason', '')} {waiting.get('message', '')}".strip()
    for condition in status.get("conditions", []):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("message", ""))
    return ""


def index(pod: Manifest) -> tuple[int, str]:
    number = pod["metadata"].get("annotations", {}).get(INDEX, "0")
    return int(number), pod["metadata"]["name"]
