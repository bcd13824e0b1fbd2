"""Detectors of what no text carries: plug-ins that give each claim a risk.

A plug-in is a file with `build(**options) -> Detector`. The laws, run over each by
`tests/contracts/test_detectors.py`: a risk for each claim, in order, from 0 to 1; what is copied
is below `unsupported_from`; more texts raise no risk by much; no text, no support.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from infra.errors import InvalidConfiguration
from infra.plugins import load
from monitoring.grounding.evidence import Evidence


@dataclass(frozen=True, slots=True)
class Finding:
    """How likely it is that no text carries a claim, and what carries it most."""

    risk: float
    window: str = ""
    """The stretch of a text, with what stands above it."""


class Detector(Protocol):
    """Blocks while it works; may be asked by several threads."""

    @property
    def name(self) -> str:
        """With its version, as it is told beside scores."""
        ...

    @property
    def grounded_below(self) -> float: ...

    @property
    def unsupported_from(self) -> float:
        """Risks between the two are no verdict."""
        ...

    def judge(self, claims: Sequence[str], evidence: Evidence) -> list[Finding]:
        """Return a finding for each claim; support anywhere is support."""
        ...


def open_detector(name: str, **options: Any) -> Detector:
    """Build the detector of plug-in `name`; heavy packages are imported at its first use.

    Raises:
        InvalidConfiguration: there is no such detector, or it does not take these options.
    """
    build = load("monitoring.grounding.detectors", name)
    taken = inspect.signature(build)
    try:
        taken.bind(**options)
    except TypeError as error:
        raise InvalidConfiguration(
            f"Detector {name!r}: {error}; its options are {', '.join(taken.parameters) or 'none'}"
        ) from None
    return cast("Detector", build(**options))
