"""What became of a retraining: what a challenger was asked, what was decided, and why."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from infra.artifacts.publishing import Made
from infra.artifacts.store import ArtifactStore
from infra.tracking.handle import Run
from infra.tracking.tracker import Tracker
from training.tabular import artifact

RUN_KIND = "retraining"
EVIDENCE_KIND = "retraining"
"""Of the artifact that holds the evidence."""
EVIDENCE = "evidence.json"
Decision = Literal["promoted", "staged", "withheld", "refused"]
"""`staged`: it passed, and is compared in production before it may take over."""
Kind = Literal["superior", "non_inferior"]


@dataclass(frozen=True, slots=True, eq=False)
class Question:
    """What a challenger must show on some rows, in the loss of each of them."""

    name: str
    kind: Kind
    limit: float
    """By how much its mean loss must be lower, or may be higher."""
    champion: NDArray[np.float64]
    challenger: NDArray[np.float64]
    is_wrong_or_right: bool
    """Whether each loss is 1 or 0."""
    bounds: tuple[float, float] | None = None
    """Of losses that have a least and a most: few rows say more then."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Whether a challenger showed it."""

    name: str
    passed: bool
    reason: str
    numbers: Mapping[str, Any]


Judge = Callable[[Sequence[Question]], Sequence[Answer]]
"""The same gates that every other change has to pass."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a retraining."""

    decision: Decision
    reasons: tuple[str, ...]
    champion: str | None
    challenger: str | None
    answers: tuple[Answer, ...]
    rows: Mapping[str, Any]
    evidence: str
    """The artifact that holds all of this."""
    run: str | None
    data: Mapping[str, str] = field(default_factory=dict)
    """By role, datasets that it was trained and asked on."""


class Asked(Protocol):
    """A specification of a retraining."""

    @property
    def name(self) -> str:
        """Of the model, and of the evidence."""

    def model_dump(self, *, mode: Literal["json"]) -> dict[str, Any]: ...


def keep(
    store: ArtifactStore,
    asked: Asked,
    result: Result,
    *,
    cause: Mapping[str, Any] | None,
) -> Result:
    """Store the evidence, before anything moves by it; returns the result with its name."""
    values = {**asdict(result), "spec": asked.model_dump(mode="json"), "cause": dict(cause or {})}
    values.pop("evidence")
    named = {
        "champion": result.champion,
        "challenger": result.challenger,
        "cause": (cause or {}).get("evidence"),
    }
    named.update(result.data)
    parents = tuple((role, name) for role, name in named.items() if name is not None)
    made = Made(metadata={"decision": result.decision}, parents=parents, job=result.run)
    with store.writer(f"{EVIDENCE_KIND}/{asked.name}", made) as draft:
        text = json.dumps(artifact.finite(values), indent=1, ensure_ascii=False, default=str)
        (draft.folder / EVIDENCE).write_text(text + "\n", encoding="utf-8")
    reference = draft.reference
    assert reference is not None
    return replace(result, evidence=str(reference))


def tell(store: ArtifactStore, run: Run | None, result: Result) -> None:
    """Say on the run what was decided, and why."""
    if run is None:
        return
    run.tag({"decision": result.decision})
    run.add_parameters({"outcome": {"decision": result.decision, "reasons": result.reasons}})
    run.log({f"rows/{key}": each for key, each in result.rows.items() if key != "newest"})
    run.made(result.evidence, role="evidence", digest=store.find(result.evidence).digest)


@contextmanager
def tracked(
    asked: Asked, tracker: Tracker | None, cause: Mapping[str, Any] | None
) -> Iterator[Run | None]:
    """Yield the run of a retraining; None where nothing is tracked."""
    if tracker is None:
        yield None
        return
    parameters = {**asked.model_dump(mode="json"), "cause": dict(cause or {})}
    with tracker.run(RUN_KIND, name=asked.name, parameters=parameters) as run:
        yield run
