"""What each feature contributes to a prediction: exactly, and so of linear models alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import EngineFailed, InvalidRequest, NotFound, first_line
from service.prediction.loading import PIPELINE, Key, Loaded
from service.prediction.recording import Predicted

MOST_KEPT = 8


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """The last step of a pipeline, and what turns raw columns into its features."""

    transform: Callable[[Any], Any]
    """From a data frame to features, (rows, features)."""
    weights: NDArray[np.float64]
    """(scores, features): one score of two classes or of a regression, else one for each class."""
    base: NDArray[np.float64]
    """(scores,)."""
    features: Sequence[str]

    def explain(self, frame: Any, chosen: NDArray[Any] | None) -> list[dict[str, Any]]:
        """Return, for each row, the contributions that add up with the base to its score."""
        found = self.transform(frame)
        dense = np.asarray(found.todense() if hasattr(found, "todense") else found, np.float64)
        explained = []
        for row, values in enumerate(dense):
            at = int(chosen[row]) if chosen is not None and len(self.base) > 1 else 0
            parts = self.weights[at] * values
            named = zip(self.features, parts.tolist(), strict=True)
            explained.append(
                {
                    "base": float(self.base[at]),
                    "contributions": {name: part for name, part in named if part},
                    "score": float(self.base[at] + parts.sum()),
                }
            )
        return explained


class Explainer:
    """Keeps the models that were explained last, and which of them cannot be; of any thread."""

    def __init__(self, load: Callable[[Loaded], Any]) -> None:
        """`load` returns the fitted pipeline of a model."""
        self._load = load
        self._lock = Lock()
        self._kept: OrderedDict[Key, Linear | InvalidRequest] = OrderedDict()

    def check(self, loaded: Loaded) -> None:
        """Refuse a model that cannot be explained; it blocks, the first time.

        Raises:
            InvalidRequest: the model is not linear, or has no pipeline beside it.
        """
        self._linear(loaded)

    def explain(self, predicted: Predicted) -> list[dict[str, Any]]:
        """Return base, contributions by feature, and score, for each row; it blocks.

        Of two classes the score is the log-odds of the second, of more that of the chosen one.

        Raises:
            InvalidRequest: as `check` does.
            EngineFailed: its features cannot be made of these rows.
        """
        from training.tabular.columns import as_frame

        linear = self._linear(predicted.loaded)
        try:
            return linear.explain(as_frame(predicted.table.columns), predicted.chosen)
        except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
            raise EngineFailed(
                f"The model cannot be explained on these rows: {first_line(error)}"
            ) from error

    def _linear(self, loaded: Loaded) -> Linear:
        with self._lock:
            found = self._kept.get(loaded.key)
            if found is not None:
                self._kept.move_to_end(loaded.key)
        if found is None:
            found = self._read(loaded)
            with self._lock:
                self._kept[loaded.key] = found
                while len(self._kept) > MOST_KEPT:
                    self._kept.popitem(last=False)
        if isinstance(found, InvalidRequest):
            raise InvalidRequest(found.message, parameter=found.parameter)
        return found

    def _read(self, loaded: Loaded) -> Linear | InvalidRequest:
        try:
            return _linear(loaded, self._pipeline(loaded))
        except InvalidRequest as error:  # of what never changes, as the key has the digest
            return error

    def _pipeline(self, loaded: Loaded) -> Any:
        try:
            return self._load(loaded)
        except NotFound as error:
            raise InvalidRequest(
                f"{loaded.served!r} has no {PIPELINE} beside it, and cannot be explained",
                parameter="explain",
            ) from error


def _linear(loaded: Loaded, pipeline: Any) -> Linear:
    last = pipeline[-1] if hasattr(pipeline, "steps") else pipeline
    if not (hasattr(pipeline, "steps") and hasattr(last, "coef_") and hasattr(last, "intercept_")):
        raise InvalidRequest(
            f"{loaded.served!r} is a {type(last).__name__}; only linear models are explained "
            "exactly",
            parameter="explain",
        )
    weights = np.atleast_2d(np.asarray(last.coef_, np.float64))
    base = np.atleast_1d(np.asarray(last.intercept_, np.float64))
    features = loaded.model.features
    if len(features) != weights.shape[1]:
        raise InvalidRequest(
            f"{loaded.served!r} names {len(features)} features and has {weights.shape[1]}",
            parameter="explain",
        )
    return Linear(pipeline[:-1].transform, weights, np.resize(base, len(weights)), features)
