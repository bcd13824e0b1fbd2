"""A classifier of the claim's tokens beside a text, by hub id or path, as LettuceDetect is one."""

from __future__ import annotations

from functools import partial
from typing import Any

from monitoring.grounding.detectors import _pairs
from monitoring.grounding.detectors._pairs import PairDetector, Reading

HEAD = "AutoModelForTokenClassification"
UNSUPPORTED = ("hallucinated", "hallucination", "unsupported", "label_1")
"""Names of the label of tokens that no text carries."""
_CLAIM = 1
"""Which of a pair is the claim."""


def build(
    *,
    model: str,
    label: str | None = None,
    grounded_below: float = 0.4,
    unsupported_from: float = 0.6,
    **reading: Any,
) -> PairDetector:
    """Open a model, whose risk is that of a claim's riskiest token beside the text that suits it.

    Nothing of its own code is run.

    Args:
        model: a folder or a hub id (`name` or `name@revision`).
        label: of tokens that no text carries, where none of the model's is called so.
        grounded_below: the risk.
        unsupported_from: the risk.
        reading: `device`, `batch_size`, `max_tokens`.

    Raises:
        InvalidConfiguration: there is no such model.
    """
    opened = _pairs.opened(model, HEAD, Reading(**reading))
    what = "is that of tokens that no text carries"
    place = partial(_pairs.place_of, label=label, known=UNSUPPORTED, what=what)
    return PairDetector(model, opened, grounded_below, unsupported_from, place, _risks)


def _risks(logits: Any, pairs: Any, place: int) -> list[float]:
    found = []
    for row, chances in enumerate(_pairs.chances(logits)[:, :, place]):
        parts = zip(chances, pairs.sequence_ids(row), strict=True)
        found.append(max((float(each) for each, part in parts if part == _CLAIM), default=1.0))
    return found
