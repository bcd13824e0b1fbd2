"""A classifier of the claim's tokens beside a text, by hub id or path, as LettuceDetect is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from infra.errors import InvalidConfiguration
from monitoring.grounding.detectors import Finding, _pairs
from monitoring.grounding.detectors._pairs import PairModel, Reading
from monitoring.grounding.evidence import Evidence

HEAD = "AutoModelForTokenClassification"
UNSUPPORTED = ("hallucinated", "hallucination", "unsupported", "label_1")
"""Names of the label of tokens that no text carries."""
_CLAIM = 1
"""Which of a pair is the claim."""


class TokenClassifierDetector:
    """Its risk is that of the claim's riskiest token, beside the text that makes it least."""

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
            InvalidConfiguration: none of the model's labels is that of unsupported tokens.
        """
        place = self._place()

        def risks(logits: Any, pairs: Any) -> list[float]:
            chances = _pairs.chances(logits)[:, :, place]
            return [
                max(
                    (
                        float(chances[row, at])
                        for at, part in enumerate(pairs.sequence_ids(row))
                        if part == _CLAIM
                    ),
                    default=1.0,
                )
                for row in range(len(chances))
            ]

        return self._model.judge(claims, evidence, risks)

    def _place(self) -> int:
        _, model = self._model.open()
        names = {str(name).lower(): int(at) for at, name in model.config.id2label.items()}
        wanted = UNSUPPORTED if self._label is None else (self._label.lower(),)
        found = next((names[each] for each in wanted if each in names), None)
        if found is None:
            raise InvalidConfiguration(
                f"Which label of {self.name!r} is that of tokens that no text carries? It has "
                f"{', '.join(names)}; name it as `label`"
            )
        return found


def build(
    *,
    model: str,
    label: str | None = None,
    grounded_below: float = 0.4,
    unsupported_from: float = 0.6,
    **reading: Any,
) -> TokenClassifierDetector:
    """Open a model; nothing of its own code is run.

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
    return TokenClassifierDetector(model, opened, label, (grounded_below, unsupported_from))
