"""Settings of monitoring: how answers are scored, and what is watched for drift."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from infra.section import Section


class Groundedness(Section):
    """How each answer over documents is held against its passages."""

    when: Literal["within", "after", "off"] = "within"
    """Before the end of an answer is told, after it (for the record alone), or never."""
    timeout_seconds: float = Field(default=2.0, gt=0)
    """An answer that waits longer for its score is told without one; only where it is `within`."""
    detector: str = "trees"
    """A file of `monitoring/grounding/detectors/`, or a dotted path."""
    detector_options: dict[str, Any] = Field(default_factory=dict)
    """Passed to the detector, such as `model` (a file, or a hub id)."""
    review_share: float = Field(default=0.01, ge=0, le=1)
    """Of scored answers, marked for a person to look at, beside all that are not carried."""


class Monitor(Section):
    """What is watched: a stretch of the interactions, beside a pinned window of the past."""

    reference: str
    """The artifact it is compared with, such as `window/answers@v3`."""
    every_minutes: float = Field(default=60.0, gt=0)
    """Between two looks, and the length of each window."""
    kind: Literal["answer", "completion", "prediction"] | None = None
    model: str | None = None
    tag: str | None = None
    tenant: str | None = None
    features: tuple[str, ...] = (
        *("outcome", "verdict", "prompt_tokens", "completion_tokens"),
        *("seconds", "support", "groundedness"),
    )
    """Columns of interactions that are compared; those that the reference lacks are left out."""
    detectors: dict[str, str] = Field(default_factory=dict)
    """By column, files of `monitoring/drift/` instead of those that its kind asks for."""
    level: float = Field(default=0.05, gt=0, lt=1)
    """Share of false ones among what is called drift, of one window."""
    floors: dict[str, float] = Field(default_factory=dict)
    """Columns of numbers whose mean must not fall below: then drift does harm."""
    confirm: int = Field(default=2, ge=1)
    """Windows with drift, of the latest `among`, that raise an alarm."""
    among: int = Field(default=3, ge=1)
    clear: int = Field(default=3, ge=1)
    """Stable windows in a row that end it."""
    cool_down_hours: float = Field(default=24.0, ge=0)
    """After a pipeline was started, until another may be."""
    pipeline: str | None = None
    """The file of the pipeline that drift with harm starts; all of its path."""
    evidence_parameter: str | None = None
    """The parameter of the pipeline that is given the artifact with the evidence."""


class Watch(Section):
    """What `ragstone watch` looks at, and who is told."""

    monitors: dict[str, Monitor] = Field(default_factory=dict)
    """By name."""
    receivers: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """By file of `monitoring/receivers/` (`webhook`, `email`, `alertmanager`), its options."""
