"""DeepEval: its exact-match metric over test cases, with its runner at its defaults."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path
from typing import Any

from benchmarks.peers.job import answer_lines


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Evaluate the answer of a target that always says the same.

    Args:
        request: `file`, the cases in JSON Lines; `answer`, what the target says.

    Returns:
        `seconds`, `processor` and `mib`, and how many cases are `right`.
    """
    os.environ.update(DEEPEVAL_TELEMETRY_OPT_OUT="YES", DEEPEVAL_UPDATE_WARNING_OPT_OUT="YES")
    os.chdir(Path(request["file"]).parent)  # it keeps its last run in the working folder
    from deepeval import evaluate  # type: ignore[import-not-found]
    from deepeval.evaluate.configs import DisplayConfig  # type: ignore[import-not-found]
    from deepeval.metrics import ExactMatchMetric  # type: ignore[import-not-found]
    from deepeval.test_case import LLMTestCase  # type: ignore[import-not-found]

    rows = map(json.loads, Path(request["file"]).read_text(encoding="utf-8").splitlines())
    cases = [
        LLMTestCase(
            input=row["question"], actual_output=request["answer"], expected_output=row["answer"]
        )
        for row in rows
    ]
    quiet = DisplayConfig(show_indicator=False, print_results=False)
    wall, processor = time.perf_counter(), time.process_time()
    found = evaluate(cases, metrics=[ExactMatchMetric()], display_config=quiet)
    spent = time.perf_counter() - wall, time.process_time() - processor
    return {
        "seconds": spent[0],
        "processor": spent[1],
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "right": sum(bool(each.success) for each in found.test_results),
    }


if __name__ == "__main__":
    answer_lines(answer)
