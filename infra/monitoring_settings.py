"""Settings of monitoring: how answers are scored, and what is watched for drift."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

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
    """Passed to the detector, such as `model`: a file, a hub id, or an artifact such as
    `model/groundedness@v2`."""
    review_share: float = Field(default=0.01, ge=0, le=1)
    """Of scored answers, marked for a person to look at, beside all that are not carried."""


class Estimate(Section):
    """A metric of a classifier, estimated from its confidence where labels are not there yet."""

    metric: Literal[
        "accuracy",
        "precision",
        "recall",
        "f1",
        "auroc",
        "macro_precision",
        "macro_recall",
        "macro_f1",
    ] = "accuracy"
    """Of several classes `accuracy` and those that begin with `macro_`."""
    probabilities: dict[str, str] = Field(min_length=1)
    """By class, the column of its probability; of two classes that of the positive one alone."""
    label: str = "label"
    """The column of the reference that has the right class."""
    features: tuple[str, ...] = ()
    """Columns that the classifier saw, to weight the reference by; a window outside of it is
    refused."""
    threshold: float = Field(default=0.5, ge=0, le=1)
    """From which probability on a row is called positive."""
    floor: float | None = None
    """Below it, there is harm."""


class Labelled(Section):
    """The share of rows that are right, from labels of some and a score of all."""

    label: str = "label"
    """The column of what people say: `label`, or `thumbs`."""
    right: tuple[str, ...] = ()
    """What they say of a row that is right; empty where it is right if it is as predicted."""
    prediction: str = "prediction"
    """The column that the label is held against where `right` is empty."""
    judged: str | None = None
    """A column of numbers that goes with being right, such as `groundedness`: fewer labels do."""
    apart: dict[str, str] = Field(default_factory=lambda: {"review": "unsupported"})
    """Columns with the value whose rows are labelled more often than others; the labels have to be
    of a random sample of these, and of a random sample of the others."""
    least_labels: int = Field(default=50, ge=10)
    """Of all rows together; with fewer, nothing is said."""
    days: float = Field(default=7.0, gt=0)
    """How far back rows count; none from before the trigger last started something."""
    floor: float | None = None
    """Below it, there is harm."""


class Detector(Section):
    """How a column is compared; a name alone is one without parameters."""

    detector: str
    """A file of `monitoring/drift/` that compares windows, or a dotted path."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Such as `least_effect`, from which a change counts, `least_rows` or `draws`, the
    permutations; the level is the monitor's."""

    @model_validator(mode="before")
    @classmethod
    def _is_a_name(cls, given: Any) -> Any:
        return {"detector": given} if isinstance(given, str) else given


class Stream(Detector):
    """A column that is followed row by row."""

    detector: str = "e_detector"
    """A file of `monitoring/drift/` that watches streams, or a dotted path."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """Such as `level` and `horizon`, the values within which that is the chance of an alarm."""


class Questions(Section):
    """What questions to a collection are like, as columns of a monitor."""

    collection: str
    """Its embedder tells what they are about."""
    topics: int = Field(default=16, ge=2, le=256)
    """That are looked for among the questions of the reference."""
    most_rows: int = Field(default=1_000, ge=100, le=20_000)
    """Drawn of the window, and twice as many of the reference, half of which topics are found on:
    each is embedded at every look."""
    passages: bool = False
    """Whether what answers cite first is embedded and followed, too, as `passage_vector`."""


class Trigger(Section):
    """What a monitor starts, and when."""

    when: Literal["drift", "harm", "drift_with_harm"] = "drift_with_harm"
    """An alarm is raised; a metric is surely below its floor in `confirm` windows; or both at
    once."""
    pipeline: str | None = None
    """The file of a pipeline; all of its path."""
    job: str | None = None
    """Or the name of a job."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """Of the job, or parameters of the pipeline."""
    evidence_parameter: str | None = None
    """The argument or parameter that is given the artifact with the evidence."""
    cool_down_hours: float = Field(default=24.0, ge=0)
    """After something was started, until it may be again."""

    @model_validator(mode="after")
    def _names_one(self) -> Trigger:
        if (self.pipeline is None) == (self.job is None):
            raise ValueError("name a pipeline or a job, and not both")
        if self.pipeline is not None and not Path(self.pipeline).is_absolute():
            raise ValueError(f"{self.pipeline!r} is another file in every folder; name all of it")
        return self


class Monitor(Section):
    """What is watched: a stretch of the interactions, beside a pinned window of the past."""

    reference: str
    """The artifact it is compared with, such as `window/answers@v3`."""
    every_minutes: float = Field(default=60.0, gt=0)
    """Between two looks, and the length of each window, unless that is told in rows."""
    every_rows: int | None = Field(default=None, ge=10, le=1_000_000)
    """A window is the next so many rows, however long they take; every look judges all that are
    complete, and memory holds one."""
    kind: Literal["answer", "completion", "prediction"] | None = None
    model: str | None = None
    tag: str | None = None
    tenant: str | None = None
    features: tuple[str, ...] = (
        *("outcome", "verdict", "prompt_tokens", "completion_tokens"),
        *("seconds", "support", "groundedness"),
    )
    """Columns of interactions that are compared; those that the reference lacks are left out. Where
    none is named, all of the reference's are compared but for ids, times and texts."""
    questions: Questions | None = None
    """Adds to `features` what the questions are about, how far they are from those of the
    reference, how long they are, and how well the passages fit that are found for them; needs
    `telemetry.content`."""
    detectors: dict[str, Detector] = Field(default_factory=dict)
    """By column, instead of those that its kind asks for; a name, or one with its parameters."""
    together: Detector | None = None
    """A detector of vectors that is shown all features at once, by name or with its parameters:
    `mmd` sees a change in how they go together, `classifier_two_sample` small ones in many."""
    slices: tuple[str, ...] = ()
    """Columns of categories, such as `tenant`: the rows of each of their frequent values are
    compared by themselves, too."""
    level: float = Field(default=0.05, gt=0, lt=1)
    """Share of false ones among what is called drift, of one window."""
    correction: Literal["benjamini_hochberg", "benjamini_yekutieli", "holm", "none"] = (
        "benjamini_hochberg"
    )
    """Of the tests of a window for one another. By the second that share holds however features
    depend on one another, by `holm` any false one has the chance `level`; by `none` each of them
    has."""
    seasonal: bool = False
    """Compare with the same hours of the week alone, of which the reference should have several."""
    time_zone: str = "UTC"
    """Whose hours of the week those are."""
    floors: dict[str, float] = Field(default_factory=dict)
    """Columns of numbers whose mean must not fall below: then there is harm."""
    estimates: dict[str, Estimate] = Field(default_factory=dict)
    """By name, metrics without labels."""
    labelled: dict[str, Labelled] = Field(default_factory=dict)
    """By name, shares that are right, with few labels."""
    streams: dict[str, Stream] = Field(default_factory=dict)
    """By column, what is followed row by row, beside the windows."""
    confirm: int = Field(default=2, ge=1)
    """Windows with drift, of the latest `among`, that raise an alarm."""
    among: int = Field(default=3, ge=1)
    clear: int = Field(default=3, ge=1)
    """Stable windows in a row that end it."""
    trigger: Trigger | None = None
    """What is started, beside telling the receivers."""

    @model_validator(mode="after")
    def _tells_metrics_apart(self) -> Monitor:
        names = Counter((*self.floors, *self.estimates, *self.labelled))
        if twice := [name for name, number in names.items() if number > 1]:
            raise ValueError(
                f"{twice[0]!r} names several metrics; floors, estimates and labelled need names of "
                "their own"
            )
        return self

    @model_validator(mode="after")
    def _can_alarm(self) -> Monitor:
        if self.confirm > self.among:
            raise ValueError(
                f"of the latest {self.among} windows never {self.confirm} have drift; raise among "
                "to confirm at least"
            )
        return self

    @model_validator(mode="after")
    def _has_hours_to_compare(self) -> Monitor:
        if self.seasonal and self.every_rows is not None:
            raise ValueError(
                "seasonal compares the same hours, and a window of every_rows has none of its own; "
                "leave one out"
            )
        return self


class Watch(Section):
    """What `ragstone watch` looks at, and who is told."""

    monitors: dict[str, Monitor] = Field(default_factory=dict)
    """By name."""
    receivers: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """By file of `monitoring/receivers/` (`webhook`, `email`, `alertmanager`), its options."""
