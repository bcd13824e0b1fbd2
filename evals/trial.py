"""A case, what a target made of it, and how that scored: the records that evaluation is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from evals.scores import Score
from infra.contracts import Citation, Passage, Usage


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to ask or to predict, and what is known of the right answer."""

    id: str
    input: Any
    """A question, a list of messages, or a mapping of features."""
    expected: Any = None
    """A text, a list of texts of which any is right, a label or a number; None is no reference."""
    answerable: bool | None = None
    """Whether there is an answer; None is not known."""
    relevant: Mapping[str, float] = field(default_factory=dict)
    """Documents that should be found, with their grade: by source, or by the end of its path."""
    cluster: str = ""
    """Cases of one cluster are not independent: paraphrases, turns, questions on one document."""
    slices: tuple[str, ...] = ()
    """Names of the slices that it belongs to."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The other columns of its row."""
    original: str = ""
    """The id of the case that this is a perturbed copy of."""

    @property
    def question(self) -> str:
        """The input as text: of messages, the last one."""
        if isinstance(self.input, list) and self.input and isinstance(self.input[-1], Mapping):
            return str(self.input[-1].get("content", ""))
        return self.input if isinstance(self.input, str) else ""

    @property
    def references(self) -> tuple[str, ...]:
        """The texts of which any is right; none where there is no reference."""
        if self.expected is None:
            return ()
        many = self.expected if isinstance(self.expected, list | tuple) else (self.expected,)
        return tuple(str(one) for one in many if one is not None)


@dataclass(frozen=True, slots=True)
class Output:
    """What a target made of a case. A language model has a text, a classical one a prediction."""

    text: str = ""
    answerable: bool = True
    """False where the target says that it does not know."""
    reason: str | None = None
    """Why not."""
    citations: tuple[Citation, ...] = ()
    passages: tuple[Passage, ...] = ()
    """What was found, best first."""
    prediction: Any = None
    """A label, a number, or a mapping from labels to their probabilities."""
    decision: Any = None
    """The label that is chosen, where a threshold decides; None is the likeliest."""
    usage: Usage = Usage()
    cost: float | None = None
    """In the currency of the settings; None where it is not known."""
    raw: Mapping[str, Any] = field(default_factory=dict)
    """JSON values of the target's own."""
    confidence: float | None = None
    """How sure the target is, larger is surer; None where it does not say."""
    latency_seconds: float | None = None
    """Measured by the runner, not by the target; kept apart, because no two runs share it."""

    @property
    def label(self) -> Any:
        """The label that was chosen; a prediction that is no probabilities is it."""
        if self.decision is not None:
            return self.decision
        if isinstance(self.prediction, Mapping) and self.prediction:
            found = self.prediction
            return max(sorted(found, key=str), key=lambda name: found[name])
        return self.prediction

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values without the latency and without what is empty."""
        found = asdict(self)
        del found["latency_seconds"]
        if self.usage == Usage():
            del found["usage"]
        return {
            name: value
            for name, value in found.items()
            if name == "answerable" or value not in (None, "", (), {})
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Output:
        """Return what `as_dict` wrote."""
        given = dict(value)
        given["citations"] = tuple(Citation(**each) for each in given.get("citations", ()))
        given["passages"] = tuple(Passage(**each) for each in given.get("passages", ()))
        given["usage"] = Usage(**given.get("usage", {}))
        return cls(**given)


@dataclass(frozen=True, slots=True)
class Trial:
    """One attempt at one case, with a score by every metric."""

    case: Case
    repeat: int
    """From 0."""
    output: Output | None
    """None where the target failed."""
    scores: Mapping[str, Score] = field(default_factory=dict)
    """By the metric's name in the suite."""
    failure: str = ""
    """Why there is no output."""
    attempts: int = 1
    """Of asking the target."""

    @property
    def lasting(self) -> dict[str, Score]:
        """The scores that scoring again would not change."""
        return {name: each for name, each in self.scores.items() if not each.is_temporary}

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing left for `--resume`: an output, and every score of it."""
        return self.output is not None and len(self.lasting) == len(self.scores)

    @property
    def key(self) -> tuple[str, int]:
        return self.case.id, self.repeat
