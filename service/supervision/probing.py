"""Asks a replica over HTTP whether it is well and how much it has to do."""

from __future__ import annotations

import http.client
import re
from dataclasses import dataclass

from infra.errors import EngineFailed

PROBE_SECONDS = 5.0
_GAUGE = re.compile(rb"^vllm:num_requests_(running|waiting)(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Load:
    """Requests at a replica."""

    running: int
    waiting: int

    @property
    def is_idle(self) -> bool:
        return self.running == self.waiting == 0


def is_healthy(port: int, *, timeout_seconds: float = PROBE_SECONDS) -> bool:
    """Return whether the server at a port of this machine says that it is well."""
    try:
        return _get(port, "/health", key=None, timeout_seconds=timeout_seconds)[0] == 200
    except EngineFailed:
        return False


def load(port: int, *, key: str, timeout_seconds: float = PROBE_SECONDS) -> Load:
    """Return how much a replica has to do.

    Raises:
        EngineFailed: it does not answer, or not with its metrics.
    """
    status, body = _get(port, "/metrics", key=key, timeout_seconds=timeout_seconds)
    counts = {b"running": 0, b"waiting": 0}
    found = _GAUGE.findall(body)
    for name, value in found:
        counts[name] += int(float(value))
    if status != 200 or not found:
        raise EngineFailed(f"Port {port} answered /metrics with {status} and without its gauges")
    return Load(counts[b"running"], counts[b"waiting"])


def _get(port: int, path: str, *, key: str | None, timeout_seconds: float) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_seconds)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {key}"} if key else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as error:
        raise EngineFailed(f"Port {port} does not answer {path!r}: {error}") from error
    finally:
        connection.close()
