"""A small table of loans with every kind of column, and what trains a model on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml

PLACES = ("north", "south", "west", "east")


def table(rows: int = 600, *, seed: int = 3) -> pl.DataFrame:
    """Return loans of which about a third fail, by income, age, place and guarantee."""
    draw = np.random.default_rng(seed)
    age = draw.integers(18, 80, size=rows)
    income = np.round(draw.lognormal(8, 0.4, size=rows), 2)
    place = draw.choice(PLACES, size=rows)
    guarantee = draw.random(rows) < 0.3
    leaning = -1.2 + 1.8 * (income < 2_600) + 0.8 * (place == "north") - 1.5 * guarantee
    fails = draw.random(rows) < 1 / (1 + np.exp(-2 * leaning))
    missing = draw.random(rows) < 0.1
    return pl.DataFrame(
        {
            "age": age,
            "income": [None if gone else each for gone, each in zip(missing, income, strict=True)],
            "place": [None if each == "east" else each for each in place],
            "guarantee": guarantee,
            "rating": draw.integers(1, 4, size=rows),
            "month": np.arange(rows) // 10,
            "customer": draw.integers(0, rows // 3, size=rows),
            "weight": draw.uniform(0.5, 2.0, size=rows),
            "amount": np.round(income * 3 + 40 * age + draw.normal(0, 50, size=rows), 2),
            "outcome": ["failed" if each else "paid" for each in fails],
        }
    )


def asked(**changes: Any) -> dict[str, Any]:
    """Return a specification that trains in a second; `data__time` is the key `data.time`."""
    values: dict[str, Any] = {
        "version": 1,
        "name": "loans",
        "task": "classification",
        "data": {
            "train": {"rows": "loans.csv"},
            "target": "outcome",
            "leave_out": ["customer", "month", "amount", "weight"],
        },
        "features": {"kinds": {"rating": "category"}},
        "split": {"folds": 3},
        "candidates": [
            {"estimator": "decision_tree", "parameters": {"max_depth": [3, 5]}},
        ],
    }
    for key, value in changes.items():
        *above, last = key.split("__")
        place = values
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return values


def write(folder: Path, rows: pl.DataFrame | None = None, **changes: Any) -> Path:
    """Write the loans and a specification of them, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    (table() if rows is None else rows).write_csv(folder / "loans.csv")
    path = folder / "loans.yaml"
    path.write_text(yaml.safe_dump(asked(**changes)), encoding="utf-8")
    return path
