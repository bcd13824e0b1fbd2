"""A suite that asks a model for one answer, as specifications of fine-tunings name it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.expectations import yaml_text

CASES = 24
SUITE: Mapping[str, Any] = {
    "name": "answers",
    "target": {"kind": "model", "model": "support", "max_tokens": 6},
    "metrics": ["exact_match"],
    "concurrency": 8,
}
ANSWERS: Mapping[str, Any] = {
    "evaluate.suites": [{"suite": "suite.yaml", "metric": "exact_match", "min_gain": 0.5}]
}
"""Changes to a specification: the tuned model must surely be half better than its base."""


def write_answers(folder: Path, answer: str, *, name: str = "suite", **changes: Any) -> None:
    """Write the suite, whose every case expects `answer`; `changes` are to its keys."""
    suite = {**SUITE, "dataset": {"file": f"{name}.jsonl"}, **changes}
    (folder / f"{name}.yaml").write_text(yaml_text.write(suite), encoding="utf-8")
    rows = [{"id": str(n), "question": f"Asked {n}?", "answer": answer} for n in range(CASES)]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
