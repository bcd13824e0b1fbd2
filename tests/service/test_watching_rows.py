"""Monitors whose windows are so many rows: each row in one window, in order, whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert
from typer.testing import CliRunner

from infra.contracts import Interaction
from infra.database.engine import Database
from infra.database.interaction_tables import interaction
from infra.errors import Conflict, InvalidConfiguration, StorageFailed
from monitoring import interaction_counts, interaction_exports
from monitoring.alarm import Judged
from monitoring.feedback import Statement
from monitoring.interactions import Query
from monitoring.watch_results import Moved, Position, Result, WatchResults
from service import standing
from service.cli.entry import app
from service.wiring import Components
from service.work import monitor_windows, monitors, watching

START = datetime(2026, 11, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
ROWS = 50

Opened = Callable[..., Components]


@pytest.fixture
def opened(fast_settings: Any, open_components: Any) -> Opened:
    """Components with one monitor of answers, and what was answered before as its reference."""

    def open_(**monitor: Any) -> Components:
        asked = {"reference": "answers", "kind": "answer", "features": ["outcome"], **monitor}
        asked = {"floors": {"seconds": -1.0}, "every_rows": ROWS, **asked}
        parts: Components = open_components(fast_settings(watch={"monitors": {"answers": asked}}))
        add(parts, range(-ROWS, 0))
        interaction_exports.export(parts.database, parts.artifacts, Query(), "answers")
        parts.interactions.delete(Query())
        return parts

    return open_


def add(parts: Components, seconds: Sequence[int], *, kind: str = "answer") -> None:
    """Have answers recorded that took so many seconds, all of them at the same moment."""
    for each in seconds:
        parts.interactions.add(
            Interaction(f"{kind}-{each}", kind, START, "rag/x", "answered", 200, seconds=each)  # type: ignore[arg-type]
        )
    parts.interactions.flush()


def look(parts: Components, hour: int) -> list[float]:
    """Look, and return the mean of the seconds of each window that was judged, so which rows."""
    found = watching.look(parts, now=START + hour * HOUR)
    assert all(each.report["rows"]["measurement"] == ROWS for each in found)
    return [each.report["performance"][0]["estimate"] for each in found]


def middle(first: int) -> float:
    """Return the mean of the seconds of a full window from a row on."""
    return first + (ROWS - 1) / 2


def test_windows_that_wait_are_judged_in_order_and_no_row_is_in_two_or_none(
    opened: Opened,
) -> None:
    parts = opened()
    add(parts, range(30))
    assert look(parts, 1) == []
    assert watching.missing(parts, "answers") == 20
    add(parts, range(30, 170))
    add(parts, range(60), kind="completion")
    assert look(parts, 1) == [], "the next look is an hour later"
    assert look(parts, 2) == [middle(0), middle(50), middle(100)]
    assert watching.missing(parts, "answers") == 30
    ats = [each.judged.at for each in watching.stored(parts).latest("answers")]
    assert ats == sorted(set(ats)), "their order is known"
    add(parts, range(170, 200))
    assert look(parts, 3) == [middle(150)]
    assert look(parts, 4) == []


def test_a_reference_of_all_that_came_is_compared_by_its_rows_of_the_kind(opened: Opened) -> None:
    parts = opened(reference="all", features=["seconds"])
    add(parts, range(ROWS))
    add(parts, range(1000, 1000 + 2 * ROWS), kind="completion")
    interaction_exports.export(parts.database, parts.artifacts, Query(), "all")
    assert look(parts, 1) == [middle(0)]
    (found,) = watching.stored(parts).latest("answers")
    assert found.report["rows"] == {"reference": ROWS, "measurement": ROWS}
    assert found.judged.verdict == "stable"


def test_where_no_feature_is_named_what_never_comes_again_is_none(opened: Opened) -> None:
    parts = opened(features=[], floors={"secnds": 1.0})
    add(parts, range(-ROWS, 0))
    assert look(parts, 1) == [None]
    (found,) = watching.stored(parts).latest("answers")
    assert found.judged.verdict == "stable", found.report["features"]
    compared = {each["feature"] for each in found.report["features"]}
    assert not compared & {"id", "request_id", "at", "question", "answer"}
    assert found.report["performance"][0]["refused"] == "the window has no column 'secnds'"


def test_the_first_window_is_the_latest_rows(opened: Opened) -> None:
    parts = opened()
    add(parts, range(120))
    assert look(parts, 1) == [middle(70)]


def test_late_labels_and_erased_rows_shift_no_window(opened: Opened) -> None:
    parts = opened()
    add(parts, range(80))
    assert look(parts, 1) == [middle(30)]
    for number in range(80):
        parts.feedback.add(Statement(f"answer-{number}", "label", "right"))
    assert watching.missing(parts, "answers") == ROWS
    with parts.database.write() as connection:
        connection.execute(interaction.delete().where(interaction.c.seconds < 80))
    add(parts, range(80, 95))
    with parts.database.write() as connection:
        connection.execute(interaction.delete().where(interaction.c.seconds.between(80, 84)))
    assert watching.missing(parts, "answers") == 40
    add(parts, range(95, 136))
    assert look(parts, 2) == [middle(85)]
    assert watching.missing(parts, "answers") == 49


def test_streams_follow_the_rows_of_each_window_and_begin_anew_where_windows_change(
    opened: Opened,
) -> None:
    parts = opened(streams={"seconds": {"detector": "adwin", "parameters": {"horizon": 120}}})
    with parts.database.write() as connection:
        rows = [row(n, seconds=17 * n % 50 - 50) for n in range(200)]
        connection.execute(insert(interaction), rows)
    results = watching.stored(parts)
    results.begin("answers", Position(0, ROWS, START))
    seen = [each.report["streams"][0] for each in watching.look(parts, now=START + HOUR)]
    assert [each["seen"] for each in seen] == [50, 100, 120, 50]
    assert len({each["after"] for each in seen}) == 2
    by_time = parts.settings.watch.monitors["answers"].model_copy(update={"every_rows": None})
    parts.settings.watch.monitors["answers"] = by_time
    (hour,) = watching.look(parts, now=START + 2 * HOUR)
    assert hour.report["streams"][0]["since"] == (START + HOUR).timestamp()
    assert results.position("answers") is None, "windows of rows would begin anew"
    by_rows = by_time.model_copy(update={"every_rows": ROWS})
    parts.settings.watch.monitors["answers"] = by_rows
    (told,) = watching.look(parts, now=START + 3 * HOUR)
    assert told.report["streams"][0]["seen"] == ROWS


def row(number: int, **values: Any) -> dict[str, Any]:
    """Return what is inserted of an answer."""
    named = {"id": f"answer-{number}", "at": START, "kind": "answer", "model": "rag/x"}
    counts = dict.fromkeys(("prompt_tokens", "completion_tokens", "cached_tokens", "cost_nano"), 0)
    plain = {"outcome": "answered", "status": 200, "upstream": "", "tag": "", "source": "model"}
    return {**named, **counts, **plain, "seconds": 1.0, **values}


def test_a_process_that_looks_at_the_same_time_judges_no_window_again(opened: Opened) -> None:
    parts = opened()
    add(parts, range(ROWS))
    results = watching.stored(parts)
    results.begin("answers", Position(0, ROWS, START))
    monitor, options = monitors.opened(parts, "answers")
    folder = parts.settings.data_folder / "scratch"
    seen = next(
        monitor_windows.waiting(parts, "answers", options, folder, results=results, now=START)
    )
    assert look(parts, 1) == [middle(0)]
    from monitoring.watch import look as judge

    with pytest.raises(Conflict, match="judged for 'answers' already"):
        judge(monitor, seen, results=results, now=START + HOUR)
    assert len(results.latest("answers")) == 1


def test_what_another_process_judged_stores_nothing(database: Database) -> None:
    results = WatchResults(database)
    report = {"due": 0.0, "rows": {}, "features": [], "streams": [], "performance": []}
    result = Result("answers", Judged(START, "stable", False), report)
    assert results.begin("answers", Position(7, 50, START)).number == 7
    assert results.begin("answers", Position(9, 50, START)).number == 7, "it stays"
    results.add(result, moved=Moved(7, 20))
    with pytest.raises(Conflict):
        results.add(result, moved=Moved(7, 20), start=lambda _: pytest.fail("started"))
    assert results.position("answers") == Position(20, 50, START)
    assert len(results.latest("answers")) == 1


def test_rows_that_are_being_written_are_waited_for_and_keep_nobody_from_writing(
    postgresql_url: str,
) -> None:
    database = Database(postgresql_url)
    with ThreadPoolExecutor() as threads, database.write() as slow:
        slow.execute(insert(interaction), row(0))
        with database.write() as quick:
            quick.execute(insert(interaction), row(1))
        waiting = threads.submit(interaction_counts.settled, database)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.3)
        with database.write(patience_seconds=0.1) as other:
            other.execute(insert(interaction), row(2))
        slow.commit()
        assert waiting.result(timeout=30) == 2, "who began to write meanwhile is not waited for"
    assert interaction_counts.count(database, Query(), after=0, until=2, most=9) == 2
    database.close()


def test_who_writes_for_too_long_is_told(postgresql_url: str) -> None:
    database = Database(postgresql_url)
    database.busy_seconds = 0.1  # type: ignore[assignment]
    with database.write() as slow:
        slow.execute(insert(interaction), row(0))
        with pytest.raises(StorageFailed, match=r"for 0\.1 s by one transaction"):
            interaction_counts.settled(database)
    database.close()


def test_the_metrics_tell_what_is_missing_and_when_the_next_look_is(opened: Opened) -> None:
    parts = opened()
    add(parts, range(ROWS + 20))
    watching.look(parts, now=START)
    add(parts, range(70, 80))
    watching.look(parts, now=START + HOUR)
    told = {each.gauge: each.value for each in standing.drift(parts, began=0.0)}
    assert told["ragstone_drift_due_timestamp_seconds"] == (START + 2 * HOUR).timestamp()
    assert told["ragstone_drift_run_timestamp_seconds"] == START.timestamp()
    rows = {
        each.labels[1]: each.value
        for each in standing.drift(parts, began=0.0)
        if "rows" in each.gauge
    }
    assert rows == {"reference": ROWS, "measurement": ROWS, "missing": 40}


def test_the_terminal_says_how_many_rows_are_missing(
    opened: Opened, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    parts = opened(every_rows=2_000)
    add(parts, range(60))
    folder, monitor = parts.settings.data_folder, parts.settings.watch.model_dump_json()
    parts.close()
    monkeypatch.setenv("RAGSTONE_DATA_FOLDER", str(folder))
    monkeypatch.setenv("RAGSTONE_WATCH", monitor)
    looked = CliRunner().invoke(app, ["watch", "--once", "--json"])
    assert looked.exit_code == 0, looked.output
    assert looked.stdout == "[]\n"
    assert looked.stderr == "answers: 1,940 rows are missing to a full window\n"
    page = tmp_path / "drift.html"
    shown = CliRunner().invoke(app, ["drift", "report", "answers", "-o", str(page)])
    assert shown.exit_code == 0, shown.output
    assert "1,940 rows are missing" in shown.stderr
    assert "60 rows beside 50 of the reference" in page.read_text()


def test_hours_of_the_week_are_no_windows_of_rows(fast_settings: Any) -> None:
    never = {"reference": "answers", "confirm": 4}
    with pytest.raises(InvalidConfiguration, match="of the latest 3 windows never 4 have drift"):
        fast_settings(watch={"monitors": {"answers": never}})
    monitor = {"reference": "answers", "every_rows": 1_000, "seasonal": True}
    with pytest.raises(InvalidConfiguration, match="seasonal compares the same hours"):
        fast_settings(watch={"monitors": {"answers": monitor}})
