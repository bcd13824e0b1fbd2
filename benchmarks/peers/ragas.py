"""ragas: its exact-match metric over a dataset, with its executor at its defaults."""

from __future__ import annotations

import json
import os
import resource
import time
from pathlib import Path
from typing import Any, cast

from benchmarks.peers.job import answer_lines


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Evaluate the answer of a target that always says the same.

    Args:
        request: `file`, the cases in JSON Lines; `answer`, what the target says.

    Returns:
        `seconds`, `processor` and `mib`, and how many cases are `right`.
    """
    os.environ["RAGAS_DO_NOT_TRACK"] = "true"
    from ragas import EvaluationDataset, MultiTurnSample, SingleTurnSample, evaluate
    from ragas.dataset_schema import EvaluationResult
    from ragas.metrics import ExactMatch

    rows = map(json.loads, Path(request["file"]).read_text(encoding="utf-8").splitlines())
    samples: list[SingleTurnSample | MultiTurnSample] = [
        SingleTurnSample(
            user_input=row["question"], response=request["answer"], reference=row["answer"]
        )
        for row in rows
    ]
    dataset = EvaluationDataset(samples=samples)
    wall, processor = time.perf_counter(), time.process_time()
    found = cast("EvaluationResult", evaluate(dataset, metrics=[ExactMatch()], show_progress=False))
    spent = time.perf_counter() - wall, time.process_time() - processor
    return {
        "seconds": spent[0],
        "processor": spent[1],
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "right": sum(row["exact_match"] == 1.0 for row in found.scores),
    }


if __name__ == "__main__":
    answer_lines(answer)
