"""Texts as numbers that drift detectors read: length, language, topic, distance, search score."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from infra.errors import InvalidRequest
from infra.plugins import require
from monitoring.columns import EXTRA, Floats
from monitoring.windows import Window

_FEWEST = 100
_DETECTED = 1_000
"""Characters of a text that its language is told from."""


@dataclass(frozen=True, slots=True, eq=False)
class Domain:
    """What a reference's texts were about: topics, and how far from them its own texts lie.

    Topics are found on one half of the reference. The other half, `held_out`, is what a window may
    be compared with: rows lie nearer to centres that were fitted to them than new rows do, which
    would look like drift.
    """

    centres: Floats
    """Shape (topics, dimension)."""
    farthest: float
    """Distance to the nearest centre that 1 in 100 held-out rows exceeds."""
    held_out: npt.NDArray[np.int64]
    """Rows of the reference, rising."""

    @property
    def dimension(self) -> int:
        return int(self.centres.shape[1])

    def topics_of(self, vectors: npt.ArrayLike) -> tuple[npt.NDArray[np.int64], Floats]:
        """Return the nearest topic of each row and the distance to its centre, both (rows,).

        Raises:
            InvalidRequest: the vectors are of another dimension than the reference's.
        """
        rows = np.asarray(vectors, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.dimension:
            raise InvalidRequest(
                f"Vectors of shape {rows.shape!r} are not of dimension {self.dimension}; embed "
                "them with the model of the reference"
            )
        squares = (
            (rows**2).sum(axis=1)[:, None]
            - 2 * rows @ self.centres.T
            + (self.centres**2).sum(axis=1)[None, :]
        )
        nearest = squares.argmin(axis=1)
        distance = np.sqrt(np.maximum(squares[np.arange(len(rows)), nearest], 0.0))
        return nearest, distance


def fit_domain(vectors: npt.ArrayLike, *, topics: int = 16, seed: int = 0) -> Domain:
    """Find topics among a reference's vectors, (rows, dimension), by k-means of scikit-learn.

    Raises:
        InvalidRequest: fewer than 100 rows, or not four for each topic.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    if rows.ndim != 2 or len(rows) < max(_FEWEST, 4 * topics):
        raise InvalidRequest(
            f"Topics need {max(_FEWEST, 4 * topics)} vectors, not an array of {rows.shape!r}"
        )
    order = np.random.default_rng(seed).permutation(len(rows))
    fitted, held_out = order[: len(rows) // 2], np.sort(order[len(rows) // 2 :])
    cluster = require("sklearn.cluster", extra=EXTRA)
    means = cluster.MiniBatchKMeans(topics, random_state=seed, n_init=3).fit(rows[fitted])
    found = Domain(np.asarray(means.cluster_centers_, dtype=np.float64), 0.0, held_out)
    _, distance = found.topics_of(rows[held_out])
    return Domain(found.centres, float(np.quantile(distance, 0.99)), held_out)


def window_of(
    *,
    domain: Domain,
    vectors: npt.NDArray[Any],
    texts: Sequence[str] | None = None,
    scores: npt.ArrayLike | None = None,
    prefix: str = "",
) -> Window:
    """Return a window of features of texts; of a reference give the rows of `held_out` only.

    Args:
        domain: of the reference.
        vectors: of the texts, (rows, dimension), from the model of the reference.
        texts: for their length and language; left out where they are not kept.
        scores: of the best passage that was found for each, (rows,).
        prefix: of the columns' names, such as `question_`.
    """
    topic, distance = domain.topics_of(vectors)
    columns: dict[str, Any] = {
        "topic": np.array([f"topic {number}" for number in topic], dtype=object),
        "distance": distance,
        "out_of_domain": distance > domain.farthest,
        "vector": vectors,
    }
    if texts is not None:
        columns["length"] = lengths(texts)
        columns["language"] = languages(texts)
    if scores is not None:
        columns["retrieval_score"] = np.asarray(scores, dtype=np.float64)
    return Window.of({f"{prefix}{name}": values for name, values in columns.items()})


def lengths(texts: Sequence[str]) -> Floats:
    """Return the number of characters of each text."""
    return np.array([len(text) for text in texts], dtype=np.float64)


def languages(texts: Sequence[str]) -> list[str | None]:
    """Return each text's language as ISO 639-1, by py3langid; None where there is no letter."""
    detector = require("py3langid", extra="data")
    return [
        str(detector.classify(text[:_DETECTED])[0]) if any(map(str.isalpha, text)) else None
        for text in texts
    ]
