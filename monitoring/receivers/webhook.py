"""Posts the event with its evidence as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from pydantic import BaseModel, ConfigDict

from monitoring.posting import checked, post
from monitoring.triggers import Event
from monitoring.untold import Tell
from monitoring.wrong_options import checked_options


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid")

    url: str
    headers: dict[str, str] = {}


def build(options: Mapping[str, object]) -> Tell:
    """Return what posts to the address of the options."""
    chosen = checked_options(Options, options, what="watch.receivers.webhook")
    url = checked(chosen.url)

    def tell(event: Event) -> None:
        post(url, asdict(event), chosen.headers)

    return tell
