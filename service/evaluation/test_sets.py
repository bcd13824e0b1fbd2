"""Test sets from what this process holds: documents, interactions, and what models trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals import cases
from evals.testsets import asked, grounded, leakage
from evals.testsets.leakage import Leak
from evals.testsets.review import Row
from infra.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from datetime import datetime

    from evals.suite import Suite
    from infra.contracts import Interaction
    from retrieval.collections import Collection
    from service.wiring import Components

PAGE = 1_000
NEWEST = 20_000
"""Interactions that are drawn from, so that a long record does not have to fit into memory."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be made of a collection."""

    collection: str
    count: int = 50
    unanswerable: int = 0
    others: Sequence[str] = ()
    """Collections whose topics are foreign; all others if none is named."""
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Leakage:
    """What a training set gives away of a suite."""

    cases: int
    rows: int
    """Of the training set."""
    leaks: tuple[Leak, ...]


def from_documents(parts: Components, wanted: Wanted) -> list[Row]:
    """Return cases grounded in a collection, and some that it cannot answer.

    Raises:
        NotFound: there is no such collection.
        InvalidRequest: unanswerable ones are wanted, and there is no other collection.
    """
    from retrieval.drawing import drawn

    chosen = parts.collections.get(wanted.collection)
    passages = drawn(parts.database, chosen, seed=wanted.seed)
    rows = grounded.propose(passages, wanted.count)
    if not wanted.unanswerable:
        return rows
    others = _others(parts, chosen, wanted.others)
    foreign = chain.from_iterable(drawn(parts.database, each, seed=wanted.seed) for each in others)
    known: set[str] = set()
    for passage in drawn(parts.database, chosen):
        known |= grounded.words(passage.text)
    return [*rows, *grounded.propose_unanswerable(foreign, wanted.unanswerable, known=known)]


def from_model(
    parts: Components, wanted: Wanted, *, model: str
) -> tuple[list[Row], Mapping[str, int]]:
    """Return cases that a model wrote about a collection, and how many it wrote in vain, by why.

    Raises:
        NotFound: there is no such collection.
        EngineFailed: the model fails again and again.
        MissingDependency: the extra `ragas` is not installed.
    """
    import asyncio

    from evals.testsets import generated
    from evals.testsets.generated import Written
    from retrieval.drawing import drawn
    from service.evaluation import case_writers

    chosen = parts.collections.get(wanted.collection)
    passages = drawn(parts.database, chosen, seed=wanted.seed)

    async def write() -> Written:
        async with case_writers.opened(parts, model) as ask:
            return await generated.propose(
                passages, wanted.count, ask=ask, model=model, seed=wanted.seed
            )

    written = asyncio.run(write())
    return written.rows, written.left_out


def from_interactions(
    parts: Components, count: int, *, model: str | None = None, seed: int = 0
) -> list[Row]:
    """Return what was asked over HTTP as cases without a right answer.

    Raises:
        InvalidRequest: no interaction has its question kept.
        MissingDependency: the extra `data` is not installed.
    """
    held = list(islice(interactions_of(parts, model), NEWEST))
    rows = asked.propose(held, count, seed=seed)
    if not rows:
        raise InvalidRequest(
            f"None of {len(held)} interactions has its question kept; set telemetry.content to "
            "true, and those from then on have it"
        )
    return rows


def leaks(
    parts: Components, suite: Suite, folder: Path, trainset: str, *, similarity: float
) -> Leakage:
    """Look for a suite's cases in a training set.

    Args:
        parts: of this process.
        suite: whose cases; its target is not opened.
        folder: of the suite's file.
        trainset: a file of rows, or a dataset of the artifact store such as `dataset/chats@v3`.
        similarity: from which a text is nearly the same.

    Raises:
        NotFound: there is no such file or dataset.
        MissingDependency: the extra `data` is not installed.
    """
    from infra.datasets.datasets import Datasets

    store = Datasets(parts.artifacts)
    found = cases.load(suite, folder=folder, datasets=lambda: store)
    count = 0

    def counted() -> Iterator[tuple[str, Mapping[str, Any]]]:
        nonlocal count
        for count, row in enumerate(_rows(store, trainset), 1):  # noqa: B007  the last is the count
            yield row

    worst = leakage.find(found.cases, counted(), similarity=similarity)
    return Leakage(len(found.cases), count, tuple(worst))


def _rows(store: Any, trainset: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
    path = Path(trainset)
    if path.is_file():
        return cases.rows_of(path)
    try:
        reference = store.find(trainset)
    except NotFound as error:
        raise NotFound("file or dataset", trainset, among=_names(store)) from error
    return (
        (f"row {number} of {reference}", row)
        for number, row in enumerate(store.rows(reference.pinned), 1)
    )


def _names(store: Any) -> list[str]:
    return [f"{each.kind}/{each.name}" for each in store.names()]


def _others(parts: Components, chosen: Collection, names: Sequence[str]) -> list[Collection]:
    if names:
        return [parts.collections.get(name) for name in names]
    others = [each for each in parts.collections.list(limit=100).items if each.id != chosen.id]
    if not others:
        raise InvalidRequest(
            "Unanswerable questions come from the topics of other collections, and "
            f"{chosen.name!r} is the only one; ingest another, or ask for none"
        )
    return others


def interactions_of(
    parts: Components, model: str | None, since: datetime | None = None
) -> Iterator[Interaction]:
    """Yield what is recorded of a model, or of all, from a moment on, newest first."""
    from monitoring.interactions import Query

    after = None
    while found := parts.interactions.find(
        Query(since=since, model=model, copies=False), limit=PAGE, after=after
    ):
        yield from found
        after = found[-1].id
