"""evidently: its data drift preset at its defaults, and its kernel test of embeddings."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]

from benchmarks.peers.job import answer_lines

PRESET = "evidently preset"
EMBEDDING_METHODS = "evidently.legacy.metrics.data_drift.embedding_drift_methods"


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Say of each feature whether evidently calls it drift; of embeddings, whether of all."""
    if request["do"] == "methods":
        return {"methods": [PRESET]}
    if request["do"] == "embeddings":
        return {"alarms": [embeddings(*map(np.load, request["files"]))]}
    reference, current = (
        pd.DataFrame(np.load(file)).rename(columns=lambda n: f"x{n}") for file in request["files"]
    )
    if request["do"] == "windows":
        rows = request["rows"]
        cut = [current[at : at + rows] for at in range(0, len(current) - rows + 1, rows)]
        return {"alarms": [preset(reference, window) for window in cut]}
    return {"alarms": preset(reference, current)}


def preset(reference: Any, current: Any) -> list[bool]:
    """Run the preset as its quickstart shows; it chooses the tests and their thresholds."""
    presets: Any = importlib.import_module("evidently.presets")
    report = importlib.import_module("evidently").Report([presets.DataDriftPreset()])
    found = report.run(current, reference).dict()
    alarms = {}
    for metric in found["metrics"]:
        config = metric.get("config", {})
        if "column" not in config:
            continue
        value, threshold = float(metric["value"]), float(config["threshold"])
        # Of a test the value is a p-value, and small means drift; of a distance, large does.
        is_p = "p_value" in config["method"] or "p-value" in config["method"]
        alarms[config["column"]] = value < threshold if is_p else value >= threshold
    return [alarms[name] for name in reference.columns]


def embeddings(reference: Any, current: Any) -> bool:
    """Run the kernel test as its documentation shows."""
    method = importlib.import_module(EMBEDDING_METHODS).mmd(threshold=0.015, bootstrap=True)
    return bool(method(pd.DataFrame(current), pd.DataFrame(reference))[1])


if __name__ == "__main__":
    answer_lines(answer)
