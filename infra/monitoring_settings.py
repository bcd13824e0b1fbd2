"""Settings of monitoring: how answers are scored while the service answers."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from infra.section import Section


class Groundedness(Section):
    """How each answer over documents is held against its passages; see `explanation`."""

    when: Literal["within", "after", "off"] = "within"
    """Before the end of an answer is told, after it (for the record alone), or never."""
    detector: str = "trees"
    """A file of `monitoring/grounding/detectors/`, or a dotted path."""
    detector_options: dict[str, Any] = Field(default_factory=dict)
    """Passed to the detector, such as `model` (a file, or a hub id)."""
    review_share: float = Field(default=0.01, ge=0, le=1)
    """Of scored answers, marked for a person to look at, beside all that are not carried."""
