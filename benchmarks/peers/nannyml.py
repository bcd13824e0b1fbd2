"""NannyML: univariate drift at its defaults, by Jensen-Shannon, and by Kolmogorov-Smirnov."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]

from benchmarks.peers.job import answer_lines

METHODS = ("jensen_shannon", "kolmogorov_smirnov")
FEW = " of 6 chunks"
"""The fewest that its documentation calls reasonable; else the whole reference."""


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Say of each feature whether NannyML alarms on the window, a chunk of its own."""
    if request["do"] == "methods":
        return {"methods": [f"nannyml {method}{few}" for method in METHODS for few in ("", FEW)]}
    reference, current = (
        pd.DataFrame(np.load(file)).rename(columns=lambda n: f"x{n}") for file in request["files"]
    )
    method = request["method"].removeprefix("nannyml ")
    if method.endswith(FEW):
        reference = reference.head(6 * len(current))
    method = method.removesuffix(FEW)
    if request["do"] == "windows":
        return {"alarms": alarms(reference, current, method, rows=request["rows"])}
    return {"alarms": alarms(reference, current, method, rows=len(current))[0]}


def alarms(reference: Any, current: Any, method: str, *, rows: int) -> list[list[bool]]:
    """Fit on the reference in chunks as large as a window; thresholds are the defaults."""
    import nannyml  # type: ignore[import-untyped,import-not-found,unused-ignore]

    calculator = nannyml.UnivariateDriftCalculator(
        column_names=list(reference.columns),
        continuous_methods=[method],
        chunk_size=rows,
    )
    result = calculator.fit(reference).calculate(current)
    table = result.filter(period="analysis").to_df()
    columns = [table[(name, method, "alert")].astype(bool) for name in reference.columns]
    return [list(flags) for flags in zip(*(map(bool, each) for each in columns), strict=True)]


if __name__ == "__main__":
    answer_lines(answer)
