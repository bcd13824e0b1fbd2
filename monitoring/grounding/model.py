"""The model of groundedness: trees and a line over the same features, and what they mean."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.errors import InvalidConfiguration
from monitoring.grounding import trees
from monitoring.grounding.evidence import Evidence
from monitoring.grounding.features import NAMES, Claim, Window, measure
from monitoring.grounding.terms import Rarity
from monitoring.grounding.trees import Trees

SHIPPED = "model.json"
STORED = "groundedness.json"
"""Of an artifact, whose `model.json` would say how a classical model is run."""
FORMAT = 1


@dataclass(frozen=True, slots=True)
class Judged:
    """How likely it is that no text carries a claim, and the window that carries it most."""

    risk: float
    window: Window | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """A logistic regression whose weights have the signs of the features."""

    weights: NDArray[np.float64]
    """Of each feature, in order."""
    intercept: float

    def logits(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the logit of each row of `(rows, features)`."""
        logits: NDArray[np.float64] = rows @ self.weights + self.intercept
        return logits


@dataclass(frozen=True, slots=True)
class GroundingModel:
    """What `python -m benchmarks.grounding_fit` writes."""

    name: str
    """With its version, as it is told beside scores."""
    trees: Trees
    line: Line
    logits: NDArray[np.float64]
    """Rising; where the calibration was measured."""
    risks: NDArray[np.float64]
    """The share of claims that were not carried there; between two, a straight line."""
    grounded_below: float
    unsupported_from: float
    """Risks between the two are no verdict."""
    rarity: Rarity
    card: Mapping[str, Any]
    """What it was made from, how, and how well it does."""

    def judge(self, claim: Claim, evidence: Evidence) -> Judged:
        """Return the least risk over the pieces: support anywhere is support."""
        windows, rows = measure(claim, evidence)
        if not windows:
            return Judged(1.0)
        logits = self.raw(rows)
        best = int(logits.argmin())
        risk = self.risk(float(logits[best]))
        # What is carried nowhere is told beside the text that shares most words with it.
        return Judged(risk, windows[best if risk < self.grounded_below else 0])

    def raw(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the logit of each row: the mean of both, which errs less than either."""
        return (self.trees.logits(rows) + self.line.logits(rows)) / 2

    def risk(self, logit: float) -> float:
        return float(np.interp(logit, self.logits, self.risks))


@lru_cache(maxsize=1)
def shipped() -> GroundingModel:
    """Return the model that comes with this release."""
    text = files(__package__).joinpath(SHIPPED).read_text(encoding="utf-8")
    return from_json(json.loads(text))


def read(path: Path) -> GroundingModel:
    """Read a model from a file, or from that of a folder which an artifact was laid out in.

    Raises:
        InvalidConfiguration: it is not there, or no such model.
    """
    if path.is_dir():
        path = path / STORED
    try:
        return from_json(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidConfiguration(
            f"No model of groundedness can be read from {str(path)!r} ({error!r}); "
            "`python -m benchmarks.grounding_fit` writes one"
        ) from error


def from_json(stored: Mapping[str, Any]) -> GroundingModel:
    """Read what `as_json` wrote.

    Raises:
        ValueError: it is of another format, or asks for other features.
    """
    if stored["format"] != FORMAT:
        raise ValueError(f"format {stored['format']!r}; this release reads {FORMAT}")
    found = trees.from_json(stored["trees"])
    if found.features != NAMES:
        raise ValueError(f"features {found.features!r}; this release has {NAMES!r}")
    return GroundingModel(
        name=str(stored["name"]),
        trees=found,
        line=Line(
            np.array([stored["line"]["weights"][name] for name in NAMES], dtype=np.float64),
            float(stored["line"]["intercept"]),
        ),
        logits=np.array(stored["calibration"]["logits"], dtype=np.float64),
        risks=np.array(stored["calibration"]["risks"], dtype=np.float64),
        grounded_below=float(stored["grounded_below"]),
        unsupported_from=float(stored["unsupported_from"]),
        rarity=Rarity(stored["rarity"]),
        card=stored["card"],
    )


def as_json(model: GroundingModel) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": model.name,
        "card": dict(model.card),
        "grounded_below": round(model.grounded_below, 4),
        "unsupported_from": round(model.unsupported_from, 4),
        "calibration": {
            "logits": [round(float(each), 4) for each in model.logits],
            "risks": [round(float(each), 4) for each in model.risks],
        },
        "line": {
            "intercept": round(model.line.intercept, 4),
            "weights": dict(
                zip(NAMES, (round(float(each), 4) for each in model.line.weights), strict=True)
            ),
        },
        "trees": trees.as_json(model.trees),
        "rarity": dict(model.rarity.weights),
    }
