"""What a classical model's artifact says of itself: its columns, its classes, how it is run.

`model.onnx` has an input for each raw column, named as the column, of shape (rows, 1): text, or
numbers as float64 or float32. What it is given is what `infra.classical_rows.encode` returns, and
so is the frame of polars that `model.skops` predicts from. Its outputs are `probabilities`, in the
order of `classes`, and `label`, or for regression `prediction` of shape (rows, 1). `decide` says
which class is chosen; `label` knows no thresholds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
    model_validator,
)

from infra.errors import InvalidRequest, NotFound, TooLarge
from infra.feature_views import JoinedView
from infra.section import Section

FILE = "model.json"
KIND = "model"
"""Of the artifact: `model/NAME@vN`."""
VERSION = 1
MAX_BYTES = 4 << 20
MAX_COLUMNS = 10_000
MAX_CLASSES = 10_000
MAX_SHOWN = 8
SAME_WITHIN = 0.01
"""By which share of the larger two numbers may differ that say the same."""
_NAME = r"^[^\x00-\x1f\x7f]{1,128}$"
_FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"

Format = Literal["onnx", "skops", "xgboost", "lightgbm"]
Kind = Literal["float64", "int64", "string", "bool"]
Label = StrictBool | StrictInt | StrictFloat | StrictStr
"""A class as it stands in the data."""


class Column(Section):
    """A raw column that the model is given."""

    name: str = Field(pattern=_NAME)
    type: Kind
    categories: tuple[Label, ...] | None = Field(default=None, max_length=MAX_COLUMNS)
    """What was seen in training; another value is read as unknown."""
    nullable: bool = False
    """Whether a value may be missing."""
    low: float | None = None
    high: float | None = None
    """What was seen in training; values beyond are answered, and worth a warning."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Column:
        if self.low is not None and self.high is not None and not self.low <= self.high:
            raise ValueError(f"column {self.name!r}: low {self.low!r} is above high {self.high!r}")
        return self


class ModelFile(Section):
    """The file `model.json` of an artifact."""

    schema_version: Literal[1] = 1
    format: Format
    file: str = Field(pattern=_FILE_NAME)
    """Beside this one; the model itself."""
    task: Literal["classification", "regression"]
    inputs: tuple[Column, ...] = Field(min_length=1, max_length=MAX_COLUMNS)
    """Raw columns in their order, before any feature is made of them."""
    target: str = Field(pattern=_NAME)
    classes: tuple[Label, ...] | None = Field(default=None, max_length=MAX_CLASSES)
    """In the order of the probabilities."""
    thresholds: dict[str, float] | None = None
    """By the text of a class; see `decide`. None: the most probable class."""
    features: tuple[str, ...] = ()
    """What the pipeline makes of the columns."""
    views: tuple[JoinedView, ...] = ()
    """From which some of the columns are joined, in training and for requests alike."""
    time: str | None = Field(default=None, pattern=_NAME)
    """The rows' column of the moment as of which they are."""
    seed: int = 0
    libraries: dict[str, str] = Field(default_factory=dict)
    """Versions of the packages it was made with."""
    trusted: tuple[str, ...] = ()
    """Types that `model.skops` holds beside what skops trusts; each must also be reviewed here."""

    @model_validator(mode="after")
    def _fits_together(self) -> ModelFile:
        names = [each.name for each in self.inputs]
        if len(set(names)) < len(names):
            raise ValueError("inputs: two columns have the same name")
        if self.task == "regression" and (self.classes or self.thresholds):
            raise ValueError("classes and thresholds are of classification")
        if self.task == "classification":
            _check_classes(self.classes, self.thresholds)
        _check_views(self.views, self.time, names)
        return self

    @property
    def joined(self) -> frozenset[str]:
        """Names of the columns that come from views, and not with a row."""
        return frozenset(name for view in self.views for name in view.features)

    @property
    def asked_for_views(self) -> tuple[str, ...]:
        """Names of what a row has for the join alone: keys, and the time."""
        keys = dict.fromkeys(view.asked_key for view in self.views)
        return (*keys, *([] if self.time is None else [self.time]))


def text_of(label: Any) -> str:
    """Return a class as the key of `thresholds`: as JSON writes it, text without its quotes.

    >>> text_of("yes"), text_of(True), text_of(3)
    ('yes', 'true', '3')
    """
    return label if isinstance(label, str) else json.dumps(label)


def is_same(one: Any, two: Any) -> bool:
    """Whether two predictions say the same: the same class, or numbers that are almost equal.

    >>> is_same("yes", "no"), is_same(200.0, 201.0), is_same(200.0, 210.0)
    (False, True, False)
    """
    if isinstance(one, float) and isinstance(two, float):
        return math.isclose(one, two, rel_tol=SAME_WITHIN)
    return text_of(one) == text_of(two)


def decide(probabilities: NDArray[Any], model: ModelFile) -> NDArray[np.intp]:
    """Return the place of the chosen class for each row: the largest of probability / threshold.

    With a threshold t of one of two classes and 1 - t of the other, that one is chosen from t on.

    Args:
        probabilities: of shape (rows, classes).
        model: whose thresholds are used; without any, the most probable class is chosen.
    """
    if len(probabilities) == 1:
        return np.array([_decided(probabilities[0].tolist(), model)])
    weighed = np.asarray(probabilities, dtype=np.float64)
    if model.thresholds is not None and model.classes is not None:
        limits = [model.thresholds[text_of(each)] for each in model.classes]
        weighed = weighed / np.asarray(limits)
    # The last of equals: exactly at its threshold, the second class of two is chosen.
    last: NDArray[np.intp] = weighed.shape[1] - 1 - np.argmax(weighed[:, ::-1], axis=1)
    return last


def _decided(weighed: list[float], model: ModelFile) -> int:
    """Return the same for one row, which NumPy takes longer for."""
    if model.thresholds is not None and model.classes is not None:
        thresholds = [model.thresholds[text_of(each)] for each in model.classes]
        weighed = [value / limit for value, limit in zip(weighed, thresholds, strict=True)]
    return len(weighed) - 1 - weighed[::-1].index(max(weighed))


def read(folder: Path) -> ModelFile:
    """Read what an artifact laid out in a folder says of itself.

    Raises:
        NotFound: there is no `model.json`.
        TooLarge: it is longer than any is.
        InvalidRequest: it is damaged, of a later release, or does not fit together.
    """
    path = folder / FILE
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise NotFound("classical model", str(folder)) from None
    if len(data) > MAX_BYTES:
        raise TooLarge(f"{str(path)!r} is larger than {MAX_BYTES:,} bytes")
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        raise InvalidRequest(f"{str(path)!r} is not JSON; put the model again") from None
    return parse(values, source=repr(str(path)))


def parse(values: Any, *, source: str = FILE) -> ModelFile:
    """Check values that came from outside.

    Raises:
        InvalidRequest: names every key that is unknown, missing or wrong.
    """
    if not isinstance(values, Mapping):
        raise InvalidRequest(f"{source} holds no mapping")
    version = values.get("schema_version", VERSION)
    if type(version) is int and version > VERSION:
        raise InvalidRequest(
            f"{source} is of a later release: schema_version {version}, this one reads up to "
            f"{VERSION}; update ragstone"
        )
    try:
        return ModelFile.model_validate(values)
    except ValidationError as error:
        said = [
            f"{'.'.join(map(str, each['loc'])) or 'the whole'}: {each['msg']}"
            for each in error.errors(include_url=False, include_context=False)
        ]
        more = f"; and {len(said) - MAX_SHOWN} more" if len(said) > MAX_SHOWN else ""
        raise InvalidRequest(f"{source}: {'; '.join(said[:MAX_SHOWN])}{more}") from None


def write(folder: Path, model: ModelFile) -> Path:
    """Write `model.json` into an artifact's folder and return its path."""
    path = folder / FILE
    text = json.dumps(model.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _check_views(views: tuple[JoinedView, ...], time: str | None, inputs: list[str]) -> None:
    if bool(views) != (time is not None):
        raise ValueError("time: views are joined as of a column of times, and nothing else is")
    features = [name for view in views for name in view.features]
    asked = {time, *(view.asked_key for view in views)}
    if len(set(features)) < len(features) or not set(features) <= set(inputs):
        raise ValueError("views: a column is joined twice, or is none of the inputs")
    if views and asked & set(inputs):
        raise ValueError("views: a key, or the time, is one of the inputs")


def _check_classes(classes: tuple[Any, ...] | None, thresholds: Mapping[str, float] | None) -> None:
    if classes is None or len(classes) < 2:
        raise ValueError("classes: classification needs at least two")
    names = [text_of(each) for each in classes]
    if len(set(names)) < len(names):
        raise ValueError("classes: two of them read the same")
    if thresholds is None:
        return
    if set(thresholds) != set(names):
        raise ValueError("thresholds: there must be one for each class, by its text")
    if not all(0 < each < np.inf for each in thresholds.values()):
        raise ValueError("thresholds: each must be a number above 0")
