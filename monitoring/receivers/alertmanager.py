"""Raises and resolves an alert in an Alertmanager, by version 2 of its API."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict

from monitoring.posting import checked, post
from monitoring.triggers import Event
from monitoring.untold import Tell
from monitoring.wrong_options import checked_options

STANDS = timedelta(days=7)
"""An alert that is not resolved ends by itself then."""


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: str
    """Up to the port."""
    labels: dict[str, str] = {}
    headers: dict[str, str] = {}


def build(options: Mapping[str, object]) -> Tell:
    """Return what posts to the Alertmanager of the options."""
    chosen = checked_options(Options, options, what="watch.receivers.alertmanager")
    url = checked(chosen.url).rstrip("/") + "/api/v2/alerts"

    def tell(event: Event) -> None:
        post(url, [_alert(event, chosen.labels)], chosen.headers)

    return tell


def _alert(event: Event, labels: Mapping[str, str]) -> dict[str, Any]:
    is_over = event.action == "resolved"
    # The labels tell alerts apart: they must not change while one stands.
    named = {"alertname": "RagstoneWatch", "monitor": event.monitor, "severity": "ticket"}
    ends = event.at if is_over else event.at + STANDS
    return {
        "labels": {**named, **labels},
        "annotations": {"summary": event.summary, "action": event.action},
        "endsAt": ends.isoformat(),
        **({} if is_over else {"startsAt": event.at.isoformat()}),
    }
