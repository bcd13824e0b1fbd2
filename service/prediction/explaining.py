"""What each feature contributes to a prediction: exactly, and so of linear models alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidRequest, NotFound
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
    """Keeps the pipelines of the models that were explained last."""

    def __init__(self, load: Callable[[Loaded], Any]) -> None:
        """`load` returns the fitted pipeline of a model."""
        self._load = load
        self._kept: OrderedDict[Key, Linear] = OrderedDict()

    def explain(self, predicted: Predicted, frame: Any) -> list[dict[str, Any]]:
        """Return base, contributions by feature, and score, for each row; it blocks.

        Of two classes the score is the log-odds of the second, of more that of the chosen one.

        Raises:
            InvalidRequest: the model is not linear, or has no pipeline beside it.
        """
        linear = self._kept.get(predicted.loaded.key)
        if linear is None:
            linear = _linear(predicted.loaded, self._pipeline(predicted.loaded))
            self._kept[predicted.loaded.key] = linear
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return linear.explain(frame, predicted.chosen)

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
