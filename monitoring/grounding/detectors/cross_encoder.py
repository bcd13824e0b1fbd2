"""A classifier of pairs, by hub id or path: does the text entail the claim, as HHEM tells it."""

from __future__ import annotations

from functools import partial
from typing import Any

from monitoring.grounding.detectors import _pairs
from monitoring.grounding.detectors._pairs import PairDetector, Reading

HEAD = "AutoModelForSequenceClassification"
SUPPORTED = ("entailment", "entailed", "supported", "consistent", "factual", "faithful")
"""Names of the label that says yes, of models that have several."""


def build(
    *,
    model: str,
    label: str | None = None,
    grounded_below: float = 0.4,
    unsupported_from: float = 0.6,
    **reading: Any,
) -> PairDetector:
    """Open a model, whose risk is what it leaves to a claim that no text entails.

    Nothing of its own code is run.

    Args:
        model: a folder or a hub id (`name` or `name@revision`).
        label: the one that says yes, where the model has several and none is called so.
        grounded_below: the risk.
        unsupported_from: the risk.
        reading: `device`, `batch_size`, `max_tokens`.

    Raises:
        InvalidConfiguration: there is no such model.
    """
    opened = _pairs.opened(model, HEAD, Reading(**reading))
    place = partial(_place, label=label)
    return PairDetector(model, opened, grounded_below, unsupported_from, place, _risks)


def _place(config: Any, label: str | None) -> int:
    if config.num_labels == 1:
        return 0
    return _pairs.place_of(config, label, SUPPORTED, what="says that a text carries a claim")


def _risks(logits: Any, _: Any, place: int) -> list[float]:
    """Return what is left to no of each pair; of one output, by its sigmoid."""
    said = logits.sigmoid() if logits.shape[1] == 1 else _pairs.chances(logits)
    return [1 - float(each) for each in said[:, place]]
