"""A suite: what is asked of which target, how it is scored, and what must hold; read from YAML."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from evals import problems
from evals.target_kinds import Strict, Target, Text
from infra.errors import InvalidRequest, NotFound, TooLarge
from infra.expectations import yaml_text
from infra.plugins import available

MAX_BYTES = 1 << 20
METRICS = "evals.metrics"
PERTURBATIONS = "evals.perturbations"
CHECKS = "evals.checks"
SHIPPED = Path(__file__).parent / "suites"
ALL = "all"
"""The slice that every case is in."""
WHERE = frozenset({"url", "key_variable", "judge_seconds"})
"""Parameters that say where a judge is asked and for how long: its name decides scores."""
_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

Name = Annotated[str, StringConstraints(pattern=_NAME)]
Share = Annotated[float, Field(ge=0, le=1)]


class Fields(Strict):
    """Which columns of the dataset hold what; all others become metadata."""

    id: Text = "id"
    """If there is no such column, cases are numbered from 1."""
    input: Text | tuple[str, ...] = "question"
    """Of a classical model several columns, the features."""
    expected: str = "answer"
    answerable: str = "answerable"
    relevant: str = "relevant"
    """A source, a list of them, or a mapping from sources to grades."""
    cluster: str = "cluster"


class Dataset(Strict):
    """The cases: a file beside the suite, or a dataset of the artifact store."""

    file: Text | None = None
    """JSON Lines, CSV or Parquet."""
    artifact: Text | None = None
    """Such as `dataset/faq@v3`."""
    split: str | None = None
    """Of an artifact; all by default."""
    fields: Fields = Fields()
    limit: int | None = Field(default=None, ge=1)
    """Only the first so many cases."""
    unreviewed: bool = False
    """Whether cases run that were proposed and that nobody has accepted yet."""

    @model_validator(mode="after")
    def _one_source(self) -> Dataset:
        if (self.file is None) == (self.artifact is None):
            raise ValueError("needs either `file` or `artifact`")
        if self.split is not None and self.artifact is None:
            raise ValueError("`split` is for an `artifact`; a file has none")
        return self


class MetricUse(Strict):
    """A metric with its parameters."""

    metric: Text
    """A file of `evals/metrics`, or the dotted path of one outside."""
    name: Name = ""
    """By which gates and reports know it; the metric's own if absent."""
    parameters: dict[str, Any] = Field(default_factory=dict, alias="with")

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return _named(value, "metric")

    @field_validator("metric")
    @classmethod
    def _known(cls, value: str) -> str:
        return _known("metric", value, METRICS)


class Slice(Strict):
    """Cases that are looked at by themselves."""

    name: Name
    where: dict[str, Any] = Field(min_length=1)
    """Columns and the value, or list of values, that they must have."""
    protected: bool = False
    """Every gate on all cases must hold here too."""


class Perturb(Strict):
    """Copies of the cases with another input and the same label: a slice of their own."""

    perturbation: Text
    """A file of `evals/perturbations`, or the dotted path of one outside."""
    name: Name = ""
    """By which gates and reports know the slice; the perturbation's own if absent."""
    parameters: dict[str, Any] = Field(default_factory=dict, alias="with")
    slice: str = ALL
    """Of which cases there are copies."""
    copies: int = Field(default=1, ge=1, le=20)
    """Of each case."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return _named(value, "perturbation")

    @field_validator("perturbation")
    @classmethod
    def _known(cls, value: str) -> str:
        return _known("perturbation", value, PERTURBATIONS)


class CheckUse(Strict):
    """A test of another kind than a gate: golden cases, data, training, a shadow."""

    check: Text
    """A file of `evals/checks`, or the dotted path of one outside."""
    name: Name = ""
    """By which reports know it; the check's own if absent."""
    parameters: dict[str, Any] = Field(default_factory=dict, alias="with")
    action: Literal["block", "warn"] = "block"
    """Whether the suite's verdict depends on it."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return _named(value, "check")

    @field_validator("check")
    @classmethod
    def _known(cls, value: str) -> str:
        return _known("check", value, CHECKS)


class Gate(Strict):
    """What must hold of one metric for the verdict to be a pass."""

    metric: str
    slice: str = ALL
    margin: Annotated[float, Field(ge=0)] | None = None
    """The most by which it may be worse than the baseline."""
    gain: Annotated[float, Field(ge=0)] | None = None
    """The least by which it must be better than the baseline; 0 is any at all."""
    floor: float | None = None
    """The mean is above this."""
    ceiling: float | None = None
    """The mean is below this, of a metric that is better when smaller."""
    drop: Annotated[float, Field(gt=0)] | None = None
    """The most by which perturbed copies may be worse than the cases that they are copies of."""
    alpha: float | None = Field(default=None, gt=0, lt=0.5)
    """The risk of passing what does not hold, 0.05 if absent; with `warn`, the share of findings
    that may be false, 0.10 if absent."""
    power: float = Field(default=0.8, gt=0, le=0.999)
    """The chance of passing what is as good as the baseline that there must be beforehand."""
    discordance: float | None = Field(default=None, gt=0, le=1)
    """From history, to plan cases by: the share that passes in one of two versions alone."""
    sd: float | None = Field(default=None, gt=0)
    """From history, to plan cases by: the standard deviation of a case's score, with `margin` of
    its difference from the baseline's."""
    correlation: float | None = Field(default=None, ge=0, le=1)
    """From history, to plan cases by: how alike cases of a cluster are (intraclass correlation)."""
    expected: float | None = None
    """The mean that is thought to be true, to plan cases by; with `margin` the difference, 0."""
    looks: int = Field(default=1, ge=1, le=1_000)
    """How often the verdict is read in all, reruns included; alpha is divided by it."""
    anytime: bool = False
    """Whether it may be read as often as one likes while cases are appended to the dataset."""
    coverage: Share | None = None
    """The share of its cases that must be scored; of the suite if absent."""
    action: Literal["block", "warn"] = "block"
    """Whether the suite's verdict depends on it."""

    @model_validator(mode="after")
    def _one_demand(self) -> Gate:
        demands = (self.margin, self.gain, self.floor, self.ceiling, self.drop)
        if sum(each is not None for each in demands) != 1:
            raise ValueError("needs one of `margin`, `gain`, `floor`, `ceiling` and `drop`")
        if self.discordance is not None and (self.sd is not None or not (self.margin or self.drop)):
            raise ValueError("`discordance` is for a `margin` above 0, and in place of `sd`")
        if self.anytime and self.looks > 1:
            raise ValueError("`anytime` takes no `looks`; there may be any number of them")
        return self


class Suite(Strict):
    """An evaluation; equal suites have equal digests."""

    name: Name
    description: str = ""
    """For people; not part of the digest."""
    dataset: Dataset
    target: Target
    metrics: tuple[MetricUse, ...] = Field(min_length=1)
    slices: tuple[Slice, ...] = ()
    robustness: tuple[Perturb, ...] = ()
    gates: tuple[Gate, ...] = ()
    checks: tuple[CheckUse, ...] = ()
    baseline: str | None = None
    """The evaluation to compare with, such as `evaluation/faq@baseline`."""
    calls: Text | None = None
    """A folder beside the suite with what judges answered; in `evaluations/calls` if absent."""
    min_kappa: float = Field(default=0.6, ge=0, lt=1)
    """What a judge's agreement with people must surely be for it to decide a gate."""
    min_coverage: Share = 0.98
    """Below this share of scores there is no verdict but `infrastructure`."""
    repeats: int = Field(default=1, ge=1, le=100)
    """How often each case is tried."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    concurrency: int = Field(default=4, ge=1, le=1024)
    """Cases at a time."""
    timeout_seconds: float = Field(default=120.0, gt=0)
    """For one attempt at one case, and for one score."""
    retries: int = Field(default=2, ge=0, le=20)
    """Further attempts where a server failed or was overloaded."""
    deadline_seconds: float | None = Field(default=None, gt=0)
    """For all cases, of which those not done by then can be resumed; and as long for all checks."""

    @model_validator(mode="after")
    def _consistent(self) -> Suite:
        metrics, slices = [each.name for each in self.metrics], self.slice_names
        checks = [each.name for each in self.checks]
        for kind, names in (("metrics", metrics), ("slices", slices), ("checks", checks)):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{kind}: {twice!r} stands twice; give one another name")
        for number, gate in enumerate(self.gates):
            for kind, name, names in (
                ("metric", gate.metric, metrics),
                ("slice", gate.slice, slices),
            ):
                if name not in names:
                    raise ValueError(f"gates.{number}: {problems.unknown(kind, name, names)}")
        self._require_sense_of_copies()
        return self

    def _require_sense_of_copies(self) -> None:
        copied = [each.name for each in self.robustness]
        own = [name for name in self.slice_names if name not in copied]
        for number, use in enumerate(self.robustness):
            if use.slice not in own:
                words = problems.unknown("slice", use.slice, own)
                raise ValueError(f"robustness.{number}: {words}")
        for number, gate in enumerate(self.gates):
            if gate.drop is not None and gate.slice not in copied:
                raise ValueError(
                    f"gates.{number}: `drop` is for the slice of a perturbation, not "
                    f"{gate.slice!r}{problems.nearest(gate.slice, copied)}"
                )
            if (gate.margin, gate.gain) != (None, None) and gate.slice in copied:
                raise ValueError(
                    f"gates.{number}: {gate.slice!r} holds perturbed copies, which may have been "
                    "others in the baseline; give `drop`, `floor` or `ceiling`"
                )

    @property
    def slice_names(self) -> list[str]:
        """All cases, the slices, and the copies by each perturbation."""
        copies = (each.name for each in self.robustness)
        return [ALL, *(each.name for each in self.slices), *copies]

    @property
    def digest(self) -> str:
        """`sha256:` and the hash of all that decides scores and what gates say; not of checks."""
        content = self.model_dump(mode="json", exclude=_UNDECIDING)
        for use, dumped in zip(self.metrics, content["metrics"], strict=True):
            dumped["parameters"] = deciding(use.parameters)
        text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
        return f"sha256:{hashlib.sha256(text).hexdigest()}"


def deciding(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a metric's parameters that decide its scores."""
    return {name: value for name, value in parameters.items() if name not in WHERE}


_UNDECIDING = {
    *("description", "concurrency", "deadline_seconds", "retries", "baseline", "calls"),
    # They look at what a run has found, or away from it, and change nothing in it.
    "checks",
}


def parse(text: str, *, source: str = "the suite") -> Suite:
    """Read a suite from YAML, or from JSON, which is YAML too.

    Raises:
        InvalidRequest: it is malformed, or has keys, names or values that do not exist; the message
            names each with its line and the nearest that does.
        TooLarge: it is longer or deeper than YAML may be.
    """
    content = yaml_text.parse(text, source=source)
    if not isinstance(content, dict):
        raise InvalidRequest(f"{source} holds no mapping; write 'name: ...', 'dataset: ...', ...")
    try:
        return Suite.model_validate(content)
    except ValidationError as error:
        raise InvalidRequest(problems.words(error, Suite, text=text, source=source)) from None


def read(path: Path) -> Suite:
    """Read a suite from a file, or the shipped one of that name. Raises as `parse` does.

    Raises:
        NotFound: there is no such file and no such suite.
    """
    path = locate(path)
    if path.stat().st_size > MAX_BYTES:
        raise TooLarge(f"{str(path)!r} is larger than {MAX_BYTES:,} bytes; a suite names its data")
    try:
        return parse(path.read_text(encoding="utf-8-sig"), source=str(path))
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{str(path)!r} is not text in UTF-8: {error.reason}") from None


def locate(path: Path) -> Path:
    """Return the file that is meant: itself, or a shipped suite by its name."""
    if path.is_file():
        return path
    shipped = {each.stem: each for each in SHIPPED.glob("*.yaml")}
    if str(path) in shipped:
        return shipped[str(path)]
    near = [str(each) for each in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    raise NotFound("suite", str(path), among=[*near[:200], *shipped])


def schema() -> Mapping[str, Any]:
    """Return the JSON Schema of a suite, with the plug-ins that there are."""
    found = Suite.model_json_schema()
    for place, model, key, folder in (
        ("metrics", "MetricUse", "metric", METRICS),
        ("robustness", "Perturb", "perturbation", PERTURBATIONS),
        ("checks", "CheckUse", "check", CHECKS),
    ):
        names = available(folder)
        use = found["$defs"][model]
        use["properties"][key]["examples"] = names
        use["required"] = [key]
        found["properties"][place]["items"] = {
            "anyOf": [{"type": "string", "examples": names}, {"$ref": f"#/$defs/{model}"}]
        }
    return found


def _named(value: Any, key: str) -> Any:
    """Let a plug-in stand for itself, and have its own name where no other is given."""
    if isinstance(value, str):
        value = {key: value}
    if isinstance(value, dict) and isinstance(value.get(key), str):
        return {"name": value[key].rpartition(".")[2], **value}
    return value


def _known(kind: str, value: str, folder: str) -> str:
    if "." not in value and value not in available(folder):
        raise ValueError(problems.unknown(kind, value, available(folder)))
    return value
