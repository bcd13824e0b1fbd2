"""Exemplars: the trace in which an observation was made, so that a graph leads to one request."""

from __future__ import annotations

from infra import telemetry

_SAMPLED = "01"


def current() -> dict[str, str] | None:
    """Return the trace of the request at hand; None where it has none, or none that is kept."""
    parts = (telemetry.traceparent.get() or "").split("-")
    if len(parts) != 4 or parts[3] != _SAMPLED:
        return None
    return {"trace_id": parts[1]}
