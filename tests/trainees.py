"""What checks of training train in tests: sound code, and code with the faults that are usual."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.tree import DecisionTreeClassifier

CALLS: Iterator[int] = iter(range(10**9))


def tree() -> Any:
    """Learns any rows by heart."""
    return make_pipeline(DictVectorizer(sparse=False), DecisionTreeClassifier(random_state=0))


def line() -> Any:
    return make_pipeline(DictVectorizer(sparse=False), LinearRegression())


class _Shuffled:
    """Loses which label belongs to which row, as a wrong join does."""

    def __init__(self) -> None:
        self._model = tree()

    def fit(self, inputs: list[Any], labels: list[Any]) -> None:
        mixed = list(labels)
        random.Random(1).shuffle(mixed)
        self._model.fit(inputs, mixed)

    def predict(self, inputs: list[Any]) -> Any:
        return self._model.predict(inputs)


def shuffled() -> Any:
    return _Shuffled()


class _Short:
    """Drops the last row."""

    def fit(self, inputs: list[Any], labels: list[Any]) -> None:
        del inputs, labels

    def predict(self, inputs: list[Any]) -> list[int]:
        return [0] * (len(inputs) - 1)


def short() -> Any:
    return _Short()


class _Raising:
    def fit(self, inputs: list[Any], labels: list[Any]) -> None:
        raise RuntimeError(f"{len(inputs)} rows and {len(labels)} labels are too many")


def raising() -> Any:
    return _Raising()


def descend(
    inputs: list[Any], labels: list[Any], *, epochs: int, seed: int, rate: float = 0.1
) -> list[float]:
    """Fit a line by gradient descent, a row at a time, and return the loss of each step."""
    given = np.array([[row["a"], row["b"], 1.0] for row in inputs], dtype=float)
    given[:, :2] /= max(1.0, np.abs(given[:, :2]).max())
    wanted = np.array([float(each) for each in labels])
    weights = np.random.default_rng(seed).normal(size=3)
    losses = []
    for _ in range(epochs):
        for row, label in zip(given, wanted, strict=True):
            error = row @ weights - label
            losses.append(float(error**2))
            weights -= rate * error * row
    return losses


def stuck(inputs: list[Any], labels: list[Any], *, epochs: int, seed: int) -> list[float]:
    """Forgets to update."""
    return descend(inputs, labels, epochs=epochs, seed=seed, rate=0.0)


def diverging(inputs: list[Any], labels: list[Any], *, epochs: int, seed: int) -> list[float]:
    del inputs, labels, epochs, seed
    return [1.0, 1e9, float("nan")]


def same(seed: int) -> dict[str, float]:
    """Trains and evaluates; depends on the seed alone."""
    return {"accuracy": random.Random(seed).random(), "loss": 0.25}


def unlike(seed: int) -> float:
    """Depends on how often it was called."""
    return next(CALLS) / 1e6 + seed
