"""What is noted of predictions becomes the same interactions as those of the long way."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from classical_models import Made, classifier, put, regressor, rows
from gateway_outcomes import made_outcome
from infra import classical
from infra.artifacts.store import ArtifactStore
from infra.contracts import Interaction
from infra.database.engine import Database
from infra.model_settings import Models as Options
from migrated import put_schema
from monitoring.interaction_queue import PLAIN_BYTES, InteractionQueue, Taken, Waiting
from monitoring.interaction_spool import InteractionSpool
from monitoring.interactions import Interactions, Query
from service.callers import Caller
from service.gateway.recording import InteractionRecorder
from service.prediction.columns import Table
from service.prediction.loading import Loaded, read
from service.prediction.recording import LIVE, Kept, Origin, Predicted, record
from service.prediction.together import Together

AT = datetime(2026, 11, 30, 12, tzinfo=UTC)
CALLER = Caller(key_id="key_1", name="ada", tenant="acme")
COUNT = 5


MODELS: dict[str, Callable[[], Made]] = {
    "two classes": classifier,
    "three classes": lambda: classifier(2, labels=(0, 1, 2)),
    "regression": regressor,
}


@pytest.fixture(params=MODELS)
def loaded(request: pytest.FixtureRequest, store: ArtifactStore, tmp_path: Path) -> Loaded:
    return read(store, str(put(store, MODELS[request.param](), tmp_path / "model")), Options())


@pytest.fixture
def churn(store: ArtifactStore, tmp_path: Path) -> Loaded:
    return read(store, str(put(store, classifier(), tmp_path / "model")), Options())


def both(loaded: Loaded, kept: Kept) -> tuple[list[Taken], list[Interaction]]:
    """Return what is noted of rows that were answered together, and what the long way records."""
    quick = loaded.reader.quick
    assert quick is not None
    read = [row for each in rows(40) if (row := quick.of_row(each)) is not None][:COUNT]
    assert len(read) == COUNT
    values = loaded.runtime.run(quick.arrays(read))
    model = loaded.model
    chosen = None if model.classes is None else classical.decide(values, model)
    noted: list[Taken] = []
    Together([f"pred-{n}" for n in range(COUNT)], loaded, read, values, LIVE).record(
        noted.append,
        origin=Origin(CALLER, AT, None),
        request_ids=[f"req_{n}" for n in range(COUNT)],
        seconds=[n / 7 for n in range(COUNT)],
        kept=kept,
    )
    expected: list[Interaction] = []
    for n, row in enumerate(read):
        own = None if chosen is None else chosen[n : n + 1]
        record(
            Predicted(f"pred-{n}", loaded, Table(1, row), values[n : n + 1], own),
            expected.append,
            origin=Origin(CALLER, AT, f"req_{n}"),
            seconds=n / 7,
            kept=kept,
        )
    return noted, expected


@pytest.mark.parametrize("kept", ["inputs", "predictions", "nothing"])
def test_predictions_among_other_things_are_written_in_order_as_on_the_long_way(
    loaded: Loaded, database: Database, kept: Kept
) -> None:
    noted, expected = both(loaded, kept)
    calls: list[Taken] = []
    InteractionRecorder(calls.append, has_content=False).record(made_outcome())
    other = Interaction("answer-1", "answer", AT, "rag/handbook", "failed", 502, error="no_engine")
    log = Interactions(database)
    for each in (noted[0], *calls, noted[1], other, *noted[2:]):
        log.add(each)
    log.flush()
    found = log.find(Query())[::-1]
    assert [found[0], found[2], *found[4:]] == expected
    assert [each.id for each in (found[1], found[3])] == [calls[0].id, "answer-1"]
    assert (found[1].upstream, found[1].cached_tokens, found[1].cost_nano) == ("gpu", 8, 3_000_000)
    assert found[3] == other


def test_predictions_wait_on_disk_while_the_database_is_down(
    loaded: Loaded, tmp_path: Path
) -> None:
    path = put_schema(tmp_path / "log.db")
    noted, expected = both(loaded, "inputs")
    waiting = Waiting(spool=InteractionSpool(tmp_path / "spool"), patience_seconds=0.02)
    with closing(Database(f"sqlite:///{path}")) as database:
        log = Interactions(database, waiting=waiting)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            for each in noted:
                log.add(each)
            log.stop()
        assert (log.waiting, log.spooled_bytes() > 0) == (0, True)
        after = Interactions(database, waiting=waiting)
        after.drain()
        assert after.find(Query())[::-1] == expected


def test_personal_data_are_taken_out_of_predictions_and_each_text_is_looked_at_once(
    churn: Loaded, database: Database
) -> None:
    looked: Counter[str] = Counter()

    def mask(text: str) -> str:
        looked.update([text])
        return text.upper()

    noted, expected = both(churn, "inputs")
    log = Interactions(database, mask=mask)
    for each in noted:
        log.add(each)
    log.flush()
    told = [each.content or {} for each in log.find(Query())[::-1]]
    before = [each.content or {} for each in expected]
    assert [each["prediction"] for each in told] == [each["prediction"].upper() for each in before]
    plans = [each["features"]["plan"] for each in before]
    assert [each["features"]["plan"] for each in told] == [plan and plan.upper() for plan in plans]
    assert set(looked.values()) == {1}
    assert {*filter(None, plans)} <= looked.keys()


@pytest.mark.parametrize(("kept", "fit"), [("nothing", COUNT), ("inputs", COUNT - 2)])
def test_what_is_noted_of_content_counts_among_the_bytes_that_wait(
    churn: Loaded, kept: Kept, fit: int
) -> None:
    queue = InteractionQueue(capacity_bytes=COUNT * PLAIN_BYTES)
    assert sum(map(queue.put, both(churn, kept)[0])) == fit
