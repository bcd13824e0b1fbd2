"""Boosted trees over what claim and text have in common: milliseconds on a CPU; the default."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monitoring.grounding import model as models
from monitoring.grounding.detectors import Finding
from monitoring.grounding.evidence import Evidence
from monitoring.grounding.features import Claim
from monitoring.grounding.model import GroundingModel


class TreesDetector:
    """Judges by the shipped model, or by another that was fitted in its way."""

    def __init__(self, model: GroundingModel) -> None:
        self._model = model
        self.name = model.name
        self.grounded_below = model.grounded_below
        self.unsupported_from = model.unsupported_from

    def judge(self, claims: Sequence[str], evidence: Evidence) -> list[Finding]:
        """Return a finding for each claim; one that says nothing is carried."""
        return [self._judge(Claim.of(each, self._model.rarity), evidence) for each in claims]

    def _judge(self, claim: Claim, evidence: Evidence) -> Finding:
        if not claim.terms:
            return Finding(0.0)
        judged = self._model.judge(claim, evidence)
        if judged.window is None:
            return Finding(judged.risk)
        window = judged.window
        above = evidence.sources[evidence.pieces[window.piece].source].above
        text = evidence.text(window.first, window.last)
        return Finding(judged.risk, f"{above}\n{text}" if above else text)


def build(*, model: str | None = None) -> TreesDetector:
    """Open a model.

    Args:
        model: a file that `python -m benchmarks.grounding_fit` wrote, or a folder with one; the
            shipped one if absent.

    Raises:
        InvalidConfiguration: the file holds no such model.
    """
    return TreesDetector(models.shipped() if model is None else models.read(Path(model)))
