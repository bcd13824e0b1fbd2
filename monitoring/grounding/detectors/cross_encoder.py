"""A classifier of pairs, by hub id or path: does the text entail the claim, as HHEM tells it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infra.errors import InvalidConfiguration
from monitoring.grounding.detectors import Finding, _pairs
from monitoring.grounding.detectors._pairs import PairModel, Reading
from monitoring.grounding.evidence import Evidence

HEAD = "AutoModelForSequenceClassification"
SUPPORTED = ("entailment", "entailed", "supported", "consistent", "factual", "faithful")
"""Names of the label that says yes, of models that have several."""


class CrossEncoderDetector:
    """Its risk is what the model leaves to a claim that no text entails."""

    def __init__(
        self, name: str, model: PairModel, label: str | None, bounds: tuple[float, float]
    ) -> None:
        self.name = name
        self.grounded_below, self.unsupported_from = bounds
        self._model = model
        self._label = label

    def judge(self, claims: Sequence[str], evidence: Evidence) -> list[Finding]:
        """Return a finding for each claim.

        Raises:
            InvalidConfiguration: none of the model's labels says yes.
        """
        place = self._place()
        return self._model.judge(
            claims, evidence, lambda logits, _: [1 - float(each) for each in _yes(logits, place)]
        )

    def _place(self) -> int:
        _, model = self._model.open()
        if model.config.num_labels == 1:
            return -1
        names = {str(name).lower(): int(at) for at, name in model.config.id2label.items()}
        wanted = SUPPORTED if self._label is None else (self._label.lower(),)
        found = next((names[each] for each in wanted if each in names), None)
        if found is None:
            raise InvalidConfiguration(
                f"Which label of {self.name!r} says that a text carries a claim? It has "
                f"{', '.join(names)}; name it as `label`"
            )
        return found


def _yes(logits: Any, place: int) -> list[float]:
    """Return the probability of yes of each pair; of one output, its sigmoid."""
    if place < 0:
        return [float(each) for each in logits.sigmoid()[:, 0]]
    return [float(each) for each in _pairs.chances(logits)[:, place]]


def build(
    *,
    model: str,
    label: str | None = None,
    grounded_below: float = 0.4,
    unsupported_from: float = 0.6,
    **reading: Any,
) -> CrossEncoderDetector:
    """Open a model; nothing of its own code is run.

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
    return CrossEncoderDetector(model, opened, label, (grounded_below, unsupported_from))
