"""Groundedness of answers: which sentences no passage carries, told while the service answers."""

from __future__ import annotations

from collections.abc import Sequence

from infra.contracts import Answer, Citation, Groundedness, Passage, Ungrounded, Verdict
from monitoring.grounding.claims import MOST_CLAIMS, Stated, claims
from monitoring.grounding.detectors import Detector, Finding
from monitoring.grounding.disagreements import disagreements
from monitoring.grounding.evidence import Evidence, Source

MIN_COVERAGE = 0.7
"""Of passages and answer; where less was read, there is no verdict of what is not carried."""


class Scorer:
    """Holds each sentence against what it cites, and where that does not do, against all passages.

    Blocks for milliseconds; several threads may ask at once.
    """

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def score(self, answer: Answer) -> Groundedness:
        """Return how well the passages carry an answer; never raises for what is in it."""
        if not answer.answerable:
            return self._unscored("the answer declines")
        stated = claims(answer.text, answer.citations)
        if not stated:
            return self._unscored("the answer claims nothing")
        if not any(passage.text.strip() for passage in answer.passages):
            return self._unscored("there is no passage")
        evidence = Evidence([_source(passage) for passage in answer.passages])
        read = stated[:MOST_CLAIMS]
        found = [self._judge(each, evidence) for each in read]
        return self._told(stated, found, evidence)

    def _judge(self, claim: Stated, evidence: Evidence) -> tuple[Finding, bool]:
        """Return what was found, and whether it was in what the claim cites."""
        detector = self._detector
        if claim.citations:
            cited = Evidence([_cited(each) for each in claim.citations])
            (finding,) = detector.judge([claim.text], cited)
            if finding.risk < detector.grounded_below:
                return finding, True
        (finding,) = detector.judge([claim.text], evidence)
        return finding, not claim.citations

    def _told(
        self, stated: Sequence[Stated], found: Sequence[tuple[Finding, bool]], evidence: Evidence
    ) -> Groundedness:
        risk = max(finding.risk for finding, _ in found)
        coverage = min(evidence.coverage, len(found) / len(stated))
        pairs = list(zip(stated, found, strict=False))
        detector = self._detector
        return Groundedness(
            verdict=self._verdict(risk, coverage),
            score=1 - risk,
            unsupported=tuple(
                _ungrounded(claim, finding, evidence)
                for claim, (finding, _) in pairs
                if finding.risk >= detector.unsupported_from
            ),
            doubtful=tuple(
                _ungrounded(claim, finding, evidence)
                for claim, (finding, _) in pairs
                if detector.grounded_below <= finding.risk < detector.unsupported_from
            ),
            uncited=tuple((each.start, each.end) for each in stated if not each.citations),
            miscited=tuple(
                (claim.start, claim.end)
                for claim, (finding, is_cited) in pairs
                if not is_cited and finding.risk < detector.grounded_below
            ),
            coverage=coverage,
            detector=detector.name,
            reason=None if coverage == 1 else f"only {coverage:.0%} of the text was read",
        )

    def _verdict(self, risk: float, coverage: float) -> Verdict:
        if risk >= self._detector.unsupported_from:
            return "unsupported" if coverage >= MIN_COVERAGE else "uncertain"
        if risk < self._detector.grounded_below and coverage == 1:
            return "grounded"
        return "uncertain"

    def _unscored(self, reason: str) -> Groundedness:
        return Groundedness("unscored", reason=reason, detector=self._detector.name)


def _source(passage: Passage) -> Source:
    return Source(passage.text, _above(passage.title, passage.heading))


def _cited(citation: Citation) -> Source:
    return Source(citation.text, citation.title)


def _above(*parts: str) -> str:
    return "\n".join(part for part in parts if part)


def _ungrounded(claim: Stated, finding: Finding, evidence: Evidence) -> Ungrounded:
    found = disagreements(claim.text, finding.window, evidence.everything)
    return Ungrounded(claim.start, claim.end, finding.risk, tuple(found))
