"""What became of a retraining: what a challenger was asked, what was decided, and why."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from infra.artifacts.aliases import Guard, targets
from infra.artifacts.publishing import Made
from infra.artifacts.store import ArtifactStore
from infra.errors import Conflict
from infra.tracking.handle import Run
from infra.tracking.tracker import Tracker
from training.tabular import artifact

if TYPE_CHECKING:
    from sqlalchemy import Connection

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


@dataclass(frozen=True, slots=True)
class Aliases:
    """What a challenger stands against, by digests; None where an alias points nowhere."""

    kind: str
    """Of the artifacts."""
    champion: str | None
    staged: str | None
    """What `promotion.to` points at."""


class Promotion(Protocol):
    """How far a challenger may go by itself."""

    @property
    def to(self) -> str | None: ...


class Asked(Protocol):
    """A specification of a retraining."""

    @property
    def name(self) -> str:
        """Of the model, and of the evidence."""

    @property
    def alias(self) -> str:
        """Of the champion."""

    @property
    def promotion(self) -> Promotion: ...

    def model_dump(self, *, mode: Literal["json"]) -> dict[str, Any]: ...


def settle(
    store: ArtifactStore,
    run: Run | None,
    asked: Asked,
    aliases: Aliases,
    result: Result,
    *,
    cause: Mapping[str, Any] | None,
) -> Result:
    """Keep the evidence, then move the alias if the challenger passed; returns what became of it.

    Raises:
        Conflict: the alias moved meanwhile; nothing was promoted, and the evidence says so.
    """
    result = replace(result, run=None if run is None else run.id)
    result = keep(store, asked, result, cause=cause)
    try:
        if result.decision in {"promoted", "staged"}:
            _promote(store, asked, aliases, result)
    except Conflict as error:
        said = f"it passed, and an alias moved meanwhile: {error.message}"
        result = replace(result, decision="withheld", reasons=(said,))
        tell(store, run, keep(store, asked, result, cause=cause))
        raise
    tell(store, run, result)
    return result


def _promote(store: ArtifactStore, asked: Asked, aliases: Aliases, result: Result) -> None:
    """Move the alias, if what was compared with is still where it was."""
    to, guard = asked.alias, Guard(expect=aliases.champion)
    if result.decision == "staged":

        def holds(connection: Connection) -> None:
            found = targets(connection, aliases.kind).get((asked.name, asked.alias))
            if found != aliases.champion:
                raise Conflict(f"{asked.alias!r} points at {found!r} by now")

        to, guard = str(asked.promotion.to), Guard(expect=aliases.staged, holds=holds)
    store.tag(str(result.challenger), to, guard=guard, actor=result.run)


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


def described(result: Result) -> dict[str, Any]:
    """Return what became of a retraining in short, as JSON can hold it."""
    return {
        "decision": result.decision,
        "reasons": list(result.reasons),
        "champion": result.champion,
        "challenger": result.challenger,
        "rows": dict(result.rows),
        "evidence": result.evidence,
        "run": result.run,
    }
