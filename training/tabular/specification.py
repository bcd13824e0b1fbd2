"""The specification of a classical model: which rows, how they are divided, what is tried."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import Field, model_validator

from infra.feature_views import FeatureView
from training.specification.part import Part
from training.specification.sweep import Choice
from training.tabular.names import CLASSIFIERS, METRICS, REGRESSORS, Metric

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


class TableSource(Part):
    """Where rows are."""

    rows: str = Field(min_length=1)
    """A dataset such as `dataset/adult@v3`, or a path of CSV, JSON Lines or Parquet."""
    split: str | None = None
    """Of a dataset; by default all of its rows."""
    digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    """What the rows must be; they are refused if they are others."""


class FeastViews(Part):
    """Feature views of a Feast repository; each becomes a dataset and one of `features`."""

    repository: str = Field(min_length=1)
    """A path of the folder with `feature_store.yaml`; its registry and the rows of its offline
    store are files."""
    service: str | None = Field(default=None, min_length=1)
    """The name of a feature service: of each of its views the features that it takes."""
    views: tuple[str, ...] = Field(default=(), max_length=20)
    """Names of feature views, instead of a service."""
    row_keys: dict[str, str] = Field(default_factory=dict)
    """By join key, the rows' column with it, where it is called otherwise."""
    full_names: bool = False
    """Whether features are called `VIEW__FEATURE`, as Feast's `full_feature_names` has it."""
    lag_seconds: float = Field(default=0.0, ge=0, le=1e10)
    """As of a view in `features`."""
    required: bool = False
    """As of a view in `features`."""

    @model_validator(mode="after")
    def _names_views(self) -> FeastViews:
        if bool(self.views) == (self.service is not None):
            raise ValueError("name a service or views, and not both")
        return self


class TableData(Part):
    """What is learned from."""

    train: TableSource
    test: TableSource | None = None
    """Rows to measure on; by default a part of `train` is held out as `split` says."""
    target: str = Field(min_length=1)
    """The column that is predicted; rows without a value in it are left out, and counted."""
    leave_out: tuple[str, ...] = ()
    """Columns that the model is not given, such as an id or what is only known afterwards."""
    time: str | None = None
    """A column by which rows are ordered; the model is then measured on the latest."""
    group: str | None = None
    """A column of what rows share, such as a customer; no group is on both sides of a split."""
    expectations: tuple[str, ...] = ()
    """Paths of suites of expectations; training is refused where a required check fails."""
    max_categories: int = Field(default=100, ge=2, le=10_000)
    """A column of text with more different values is left out, and told."""
    features: tuple[FeatureView, ...] = Field(default=(), max_length=20)
    """Tables whose columns are joined to the rows by key, as of `time`; requests to the model get
    the same ones by the same code."""
    feast: tuple[FeastViews, ...] = Field(default=(), max_length=20)
    """The same, from Feast repositories."""

    @property
    def is_joined(self) -> bool:
        """Whether rows need a key and a time."""
        return bool(self.features or self.feast)

    @model_validator(mode="after")
    def _can_be_joined(self) -> TableData:
        if self.is_joined and self.time is None:
            raise ValueError("features are joined as of the rows' time; name its column in 'time'")
        asked = {self.target, self.time, *(view.asked_key for view in self.features)}
        names = [name for view in self.features for name in view.features]
        for name in names:
            if names.count(name) > 1 or name in asked:
                raise ValueError(
                    f"features: {name!r} is the name of two columns; give one of the views a prefix"
                )
        return self


class Sampling(Part):
    """How the rows that are trained on are drawn from those that are left for training."""

    plan: Literal["all", "stratified", "quota", "weighted", "convenience"] = "all"
    """`stratified`: `rows` of them with the shares of `by` kept. `quota`: as many of each value of
    `by` as `quotas` says. `weighted`: all, each counting as `weight` says. `convenience`: the rows
    are those that were at hand, so that nothing can be measured on them."""
    rows: int | None = Field(default=None, ge=2)
    by: str | None = None
    quotas: dict[str, int] = Field(default_factory=dict)
    """Rows by the text of a value of `by`."""
    weight: str | None = None
    """A column of numbers above 0, such as the inverse of the chance to be in the sample."""

    @model_validator(mode="after")
    def _is_whole(self) -> Sampling:
        needed = {"stratified": ("rows", "by"), "quota": ("by", "quotas"), "weighted": ("weight",)}
        for name in needed.get(self.plan, ()):
            if not getattr(self, name):
                raise ValueError(f"plan {self.plan!r} needs {name!r}")
        for name in ("rows", "by", "quotas", "weight"):
            if getattr(self, name) and name not in needed.get(self.plan, ()):
                raise ValueError(f"{name!r} means nothing for plan {self.plan!r}")
        if any(count < 1 for count in self.quotas.values()):
            raise ValueError("each of quotas must be at least 1")
        return self


class HoldOut(Part):
    """Which rows the model is measured on, and how the others are divided for the search."""

    method: Literal["auto", "random", "stratified", "time", "group"] = "auto"
    """`auto`: `time` or `group` where the data name such a column; else `stratified` for classes
    and `random` for amounts."""
    test: float = Field(default=0.2, gt=0, lt=1)
    """The share that is held out."""
    folds: int = Field(default=5, ge=2, le=20)
    gap: int = Field(default=0, ge=0)
    """Rows left out between what is trained on and what is measured, of `time`."""


class Numbers(Part):
    """What is made of columns of numbers."""

    imputation: Literal["median", "mean", "most_frequent", "zero"] = "median"
    scaling: Literal["standard", "range", "none"] = "standard"


class Features(Part):
    """How features are made; everything is learned from rows that are trained on alone."""

    numbers: Numbers = Numbers()
    categories: Literal["one_hot", "ordinal"] = "one_hot"
    """A value that was not trained on is no category at all, or -1."""
    kinds: dict[str, Literal["number", "category"]] = Field(default_factory=dict)
    """Of columns whose type does not tell, such as codes that are whole numbers."""


class Threshold(Part):
    """From which probability on one of two classes is chosen, by what the folds held out."""

    positive: str
    """The text of a class."""
    metric: Literal["f1", "balanced_accuracy", "cost"] = "f1"
    false_positive_cost: float = Field(default=1.0, gt=0)
    false_negative_cost: float = Field(default=1.0, gt=0)


class Imbalance(Part):
    """What is done about rare classes."""

    class_weight: Literal["none", "balanced"] = "none"
    resampling: Literal["none", "over", "under"] = "none"
    """Rows of rare classes repeated, or of frequent ones left out: in what is trained on, never
    in what is measured."""
    calibration: Literal["none", "sigmoid", "isotonic"] = "none"
    """So that of rows with a probability of 0.3, 30 % are of the class; needed after any other of
    these. Learned from rows apart: whole groups where rows are divided by group, and by time the
    latest quarter of those that are trained on."""
    threshold: Threshold | None = None


class Candidate(Part):
    """An estimator, and the values of its parameters to choose from."""

    estimator: str
    fixed: dict[str, Any] = Field(default_factory=dict)
    """Parameters that all trials share."""
    parameters: dict[str, Choice] = Field(default_factory=dict)


class Search(Part):
    """How trials are drawn and compared."""

    metric: Metric | None = None
    """By default `log_loss`, and `rmse` of amounts."""
    sampler: Literal["grid", "random", "tpe"] = "grid"
    """Every combination, any, or those that promise most by the scores so far; `tpe` needs optuna,
    which `ragstone[finetune]` brings."""
    trials: int = Field(default=20, ge=1, le=1_000)
    """Of each candidate, at most."""
    nested: bool = False
    """Whether the choosing itself is measured too, by a search within each fold."""


class Accept(Part):
    """What a model must show before it is registered."""

    min_gain: float = Field(default=0.0, ge=0)
    """Over the constant answer, in the metric of the search on the rows held out; must be more."""
    max_difference: float = Field(default=1e-5, gt=0, le=1e-2)
    """Between probabilities of the model and of its ONNX graph; otherwise it has no graph."""


class Register(Part):
    """What the model is called in the store."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    """It becomes the next version of `model/NAME`."""
    alias: str | None = "candidate"
    """That points at it at once; the version that `models.alias` means answers requests."""


class Classical(Part):
    """All that decides what comes out of the training of a classical model."""

    version: Literal[1] = 1
    name: str = Field(pattern=NAME)
    seed: int = Field(default=17, ge=0, lt=2**32)
    task: Literal["classification", "regression"]
    data: TableData
    sampling: Sampling = Sampling()
    split: HoldOut = HoldOut()
    features: Features = Features()
    imbalance: Imbalance = Imbalance()
    candidates: tuple[Candidate, ...] = Field(default=(), max_length=20)
    """Tried after a constant and a linear model, which always are."""
    search: Search = Search()
    accept: Accept = Accept()
    register_as: Register | None = Field(default=None, alias="register")
    """Without it, the model stays in the folder of the run."""

    @model_validator(mode="after")
    def _fits_together(self) -> Classical:
        known = CLASSIFIERS if self.task == "classification" else REGRESSORS
        for place, each in enumerate(self.candidates):
            if each.estimator not in known:
                raise ValueError(
                    f"candidates.{place}.estimator: {each.estimator!r} is none for {self.task}; "
                    f"there are {', '.join(sorted(known))}"
                )
        if self.search.metric is not None and METRICS[self.search.metric].task != self.task:
            raise ValueError(f"search.metric: {self.search.metric!r} is not of {self.task}")
        if self.task == "regression" and self.imbalance != Imbalance():
            raise ValueError("imbalance is of classification")
        self._check_split()
        self._check_views()
        return self

    def _check_split(self) -> None:
        method, data = self.split.method, self.data
        if method in {"time", "group"} and getattr(data, method) is None:
            raise ValueError(f"split.method {method!r} needs data.{method}, a column")
        if method == "stratified" and self.task == "regression":
            raise ValueError("split.method 'stratified' is of classification")
        if self.split.gap and self.method != "time":
            raise ValueError("split.gap is of method 'time'")
        if self.sampling.plan == "convenience" and data.test is None:
            raise ValueError(
                "sampling.plan 'convenience': what is measured on rows that were at hand says "
                "nothing of those that will come; give data.test, drawn by a plan"
            )

    def _check_views(self) -> None:
        for view in self.data.features:
            if self.register_as is not None and not view.rows.startswith("dataset/"):
                raise ValueError(
                    f"data.features: {view.rows!r} is a file, and requests are answered from the "
                    "newest version of a dataset; put it in the store, or leave out 'register'"
                )

    @property
    def method(self) -> str:
        """How rows are divided, once `auto` is decided."""
        if self.split.method != "auto":
            return self.split.method
        if self.data.time is not None:
            return "time"
        if self.data.group is not None:
            return "group"
        return "stratified" if self.task == "classification" else "random"

    @property
    def metric(self) -> Metric:
        """By which trials are compared."""
        return self.search.metric or ("log_loss" if self.task == "classification" else "rmse")

    @property
    def digest(self) -> str:
        """Equal for specifications that say the same, whatever the order of their keys."""
        text = json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True)
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
