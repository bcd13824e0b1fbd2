"""A judge's card: how far it agrees with people, on which labels, and how steady it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from evals.judges.instrument import Instrument
from evals.judges.rubric import Rubric
from evals.statistics.agreement import MIN_LABELS, Agreement, Weights
from evals.statistics.intervals import Interval
from infra.errors import StorageFailed

FORMAT = 2
KIND = "judge"


@dataclass(frozen=True, slots=True)
class Card:
    """What was found when a judge rated what people had rated."""

    instrument: Instrument
    agreement: Agreement
    """Over what the judge rated."""
    weights: Weights
    planned: int
    """Labels that there are, also those that the judge did not rate; but not those of outputs that
    are scored without asking it, such as refusals."""
    labels: str
    """The digest of what was rated and how people rated it."""
    confusion: tuple[tuple[str, str, int], ...] = ()
    """Label of people, of the judge, and how often."""
    position_inconsistency: float | None = None
    """Of a judge in pairs: the share of samples in which the order decided."""
    unrated: Mapping[str, int] = field(default_factory=dict)
    """Why the others were not rated, by state of the score."""

    @property
    def coverage(self) -> float:
        """The share of the labels for it that the judge rated."""
        return self.agreement.items / self.planned

    def objection(self, *, min_kappa: float, min_coverage: float) -> str:
        """Return why the judge may not decide a gate; empty if it may.

        What it would not rate counts: a judge that leaves out what is hard agrees with everybody.
        """
        kappa, items = self.agreement.kappa, self.agreement.items
        if items < MIN_LABELS:
            return f"it was held against {items} labels; {MIN_LABELS} are needed"
        if self.coverage < min_coverage:
            return f"it rated {self.coverage:.1%} of the labels; {min_coverage:.1%} are needed"
        if kappa.low < min_kappa:
            return (
                f"its kappa is {kappa.estimate:.2f}, surely only {kappa.low:.2f}; "
                f"{min_kappa:g} is needed"
            )
        return ""

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        instrument = self.instrument
        return {
            "format": FORMAT,
            "rubric": instrument.rubric.model_dump(mode="json"),
            **{name: value for name, value in instrument.as_dict().items() if name != "rubric"},
            "instrument": instrument.digest,
            "agreement": asdict(self.agreement),
            "weights": self.weights,
            "planned": self.planned,
            "labels": self.labels,
            "confusion": [list(row) for row in self.confusion],
            "position_inconsistency": self.position_inconsistency,
            "unrated": dict(self.unrated),
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Card:
        """Return what `as_dict` wrote.

        Raises:
            StorageFailed: it is damaged, or of a later release.
        """
        try:
            if value["format"] != FORMAT:
                raise StorageFailed(
                    f"The card of the judge has format {value['format']!r}; this is for {FORMAT}"
                )
            given = value["agreement"]
            return cls(
                Instrument(
                    Rubric.model_validate(value["rubric"]),
                    value["model"],
                    value["temperature"],
                    value["samples"],
                    value["prompt"],
                ),
                Agreement(Interval(**given["kappa"]), given["share"], given["items"]),
                value["weights"],
                value["planned"],
                value["labels"],
                tuple((label, said, count) for label, said, count in value["confusion"]),
                value["position_inconsistency"],
                value["unrated"],
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StorageFailed(f"The card of a judge cannot be read: {error!r}") from error
