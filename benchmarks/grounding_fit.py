"""`python -m benchmarks.grounding_fit`: fits the model that scores answers for groundedness."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.grounding_data import DATASETS
from benchmarks.grounding_training import (
    FALSE_ALARMS,
    MISSED,
    PARAMETERS,
    Example,
    count_rarity,
    fit,
    training_examples,
)
from monitoring.grounding.model import SHIPPED, GroundingModel, as_json

VERSION = 1
UNSURE_LICENCE = "FActScore"
"""Its copy is marked CC BY-NC in one place: tested on, never in the model that is shipped."""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grounding_fit", description=__doc__)
    parser.add_argument("data", type=Path, help="the folder of real datasets")
    parser.add_argument("--output", type=Path, default=Path("monitoring/grounding") / SHIPPED)
    parser.add_argument("--with", dest="chosen", nargs="*", help="datasets to fit on")
    options = parser.parse_args(arguments)
    chosen = options.chosen or [name for name in DATASETS if name != UNSURE_LICENCE]
    rarity = count_rarity(options.data)
    found = training_examples(options.data, rarity, chosen)
    model = fit(found, rarity, name=f"trees-{VERSION}")
    model = replace(model, card=card(model, found, at=datetime.now(UTC)))
    write(model, options.output)
    print(f"{len(found)} claims; {len(model.trees.roots)} trees written to {options.output}")
    return 0


def card(model: GroundingModel, found: Sequence[Example], *, at: datetime) -> dict[str, Any]:
    """Return what a reader of the file has to know; the figures are in the documentation."""
    counts = Counter(each.dataset for each in found)
    wrong = Counter(each.dataset for each in found if each.is_wrong)
    return {
        "what": "The risk that no passage carries a sentence, from words, numbers, names, denial.",
        "made_by": "python -m benchmarks.grounding_fit",
        "date": at.date().isoformat(),
        "claims": {name: {"all": counts[name], "not_carried": wrong[name]} for name in counts},
        "parameters": dict(PARAMETERS),
        "thresholds": f"{FALSE_ALARMS:.0%} false alarms above, {MISSED:.0%} missed below, measured "
        "on a quarter of the groups that the trees were not grown on",
        "limits": "English; what is implied and said in other words is often taken for not "
        "carried, and an opposite that no list has for carried. Figures: docs/reference.",
        **model.card,
        "trees": len(model.trees.roots),
    }


def write(model: GroundingModel, path: Path) -> None:
    """Write a model, an array a line: short enough, and its changes can be read."""
    stored = as_json(model)
    parts = {
        name: {key: _Line(each) for key, each in value.items()}
        if name in {"trees", "calibration"}
        else _Line(value)
        if name == "rarity"
        else value
        for name, value in stored.items()
    }
    path.write_text(_text(parts) + "\n", encoding="utf-8")


class _Line:
    """A value that is written on one line."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _text(value: Any, indent: str = "") -> str:
    if isinstance(value, _Line):
        return json.dumps(value.value, separators=(",", ":"), ensure_ascii=False)
    if isinstance(value, dict):
        inner = indent + " "
        lines = [f"{inner}{json.dumps(key)}: {_text(each, inner)}" for key, each in value.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
