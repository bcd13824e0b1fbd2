"""Several watches of one monitor, plug-ins that fail, and what is kept of old windows."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import mail_server
from infra.contracts import Interaction
from infra.database.engine import Database
from infra.plugins import load
from monitoring import interaction_exports, watch_results
from monitoring.alarm import Judged
from monitoring.columns import Column
from monitoring.detector import Parameters
from monitoring.findings import Finding
from monitoring.interactions import Query
from monitoring.triggers import Event
from monitoring.untold import UntoldEvents
from monitoring.watch_results import JudgedAlready, Result, WatchResults
from service import standing
from service.cli.watch import FAILED_SECONDS, go_on
from service.wiring import Components
from service.work import watching

START = datetime(2026, 11, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
REPORT = {"due": 0.0, "rows": {}, "features": [], "streams": [], "performance": []}
MEANWHILE: list[Callable[[], Any]] = []
"""What others do while a window is compared."""
TOLD: list[Event] = []


class Racing(Parameters):
    """A third party's detector, during which something else happens."""

    def compare(self, reference: Column, current: Column) -> Finding:
        while MEANWHILE:
            MEANWHILE.pop()()
        moved = f"{reference.present.size} rows became {current.present.size}"
        return Finding("racing", "drift", moved, p_value=0.001, effect=1.0, least_effect=0.1)


class Failing(Parameters):
    def compare(self, reference: Column, current: Column) -> Finding:
        del reference, current
        raise ZeroDivisionError("no rows of a kind")


def listening(options: Any) -> Callable[[Event], None]:
    return TOLD.append


def nonsense(options: Any) -> Callable[[Event], None]:
    def tell(event: Event) -> None:
        raise KeyError("s3cret")

    return tell


racing, failing = Racing.model_validate, Failing.model_validate


@pytest.fixture
def opened(fast_settings: Any, open_components: Any) -> Callable[..., Components]:
    """Components with some monitors, and an hour of answers that is their reference, too."""

    def open_(*receivers: str, **detectors: str) -> Components:
        TOLD.clear()
        asked = {
            name: {"reference": "answers", "features": ["outcome"], "confirm": 1}
            | {"detectors": {"outcome": f"{__name__}.{detector}"}}
            for name, detector in detectors.items()
        }
        told = {f"{__name__}.{each}": {} for each in receivers}
        settings = fast_settings(watch={"monitors": asked, "receivers": told})
        parts: Components = open_components(settings)
        for number in range(60):
            parts.interactions.add(
                Interaction(f"answer-{number}", "answer", START, "rag/x", "answered", 200)
            )
        parts.interactions.flush()
        interaction_exports.export(parts.database, parts.artifacts, Query(), "answers")
        return parts

    return open_


def result(number: int, **judged: Any) -> Result:
    values = {"at": START + number * HOUR, "verdict": "stable", "is_alarm": False, **judged}
    return Result("answers", Judged(**values), {**REPORT, "summary": f"window {number}"})


def test_of_watches_that_judge_one_hour_at_a_time_one_stores_and_tells_it(
    opened: Callable[..., Components],
) -> None:
    parts = opened("listening", answers="racing")
    inner: list[Result] = []
    MEANWHILE.append(lambda: inner.extend(watching.look(parts, now=START + HOUR / 2)))
    assert watching.look(parts, now=START + HOUR / 2) == []
    assert [each.judged.action for each in inner] == ["ticket"]
    assert len(watching.stored(parts).latest("answers")) == 1
    assert [each.action for each in TOLD] == ["ticket"]


def test_a_schedule_as_wide_as_the_windows_leaves_none_out(
    opened: Callable[..., Components],
) -> None:
    parts = opened(answers="racing")
    late, second = timedelta(seconds=2), timedelta(seconds=1)
    assert len(watching.look(parts, now=START + HOUR + late, early=watching.EARLY)) == 1
    assert watching.look(parts, now=START + HOUR + HOUR / 2, early=watching.EARLY) == []
    assert watching.look(parts, now=START + 2 * HOUR + second) == [], "who waits can wait"
    assert len(watching.look(parts, now=START + 2 * HOUR + second, early=watching.EARLY)) == 1


def test_a_window_is_judged_after_one_other_in_postgresql_too(postgresql_url: str) -> None:
    database = Database(postgresql_url)
    results, start = WatchResults(database), Barrier(4)
    results.add(result(0))
    last = results.last("answers")

    def add(number: int) -> bool:
        start.wait(10)
        try:
            results.add(result(number), after=last)
        except JudgedAlready:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(add, range(1, 5))) == [False, False, False, True]
    assert len(results.latest("answers")) == 2
    database.close()


def test_what_windows_led_to_is_known_and_told_for_longer_than_they_are_kept(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_results, "KEPT", 3)
    results = WatchResults(database)
    results.add(result(0, action="started"), receivers=["webhook"])
    for number in range(1, 9):
        results.add(result(number))
    kept = results.judged("answers")
    assert [(each.at - START) // HOUR for each in kept] == [0, 6, 7, 8]
    assert kept[0].action == "started", "its cool-down goes on"
    (untold,) = UntoldEvents(database).all()
    assert untold.event.summary == "window 0"
    for number in range(9, 13):
        results.add(result(number, action="ticket"))
    assert [each.action for each in results.judged("answers")] == [None] * 3 + ["ticket"] * 3


def test_a_detector_that_fails_blinds_no_other_monitor_and_ends_no_watch(
    opened: Callable[..., Components], capsys: pytest.CaptureFixture[str]
) -> None:
    parts = opened(broken="failing", whole="racing")
    with pytest.raises(ZeroDivisionError):
        watching.look(parts, now=START + HOUR / 2)
    assert [each.monitor for each in watching.stored(parts).latest("whole")] == ["whole"]
    assert go_on(parts) == FAILED_SECONDS
    assert capsys.readouterr().err.endswith("no rows of a kind; the watch goes on\n")


def test_a_column_whose_name_has_two_lines_is_told_by_mail() -> None:
    with mail_server.serving() as mail:
        options = {"host": "127.0.0.1", "port": mail.port, "starttls": False, "sender": "a@b.org"}
        tell = load("monitoring.receivers", "email")({**options, "recipients": ["c@d.org"]})
        tell(Event("answers", "ticket", START, "Drift of monthly\nfee", REPORT))
    (message,) = mail.messages
    assert "Subject: [ticket] answers: Drift of monthly fee" in message


def test_a_receiver_that_fails_as_nobody_foresaw_is_tried_again_and_shows_nothing(
    opened: Callable[..., Components], caplog: pytest.LogCaptureFixture
) -> None:
    parts = opened("nonsense", "listening", answers="racing")
    (found,) = watching.look(parts, now=START + HOUR / 2)
    assert found.judged.action == "ticket"
    assert [each.action for each in TOLD] == ["ticket"]
    assert "was not told of drift, and is tried again: KeyError" in caplog.text
    assert "s3cret" not in caplog.text
    (untold,) = UntoldEvents(parts.database).all()
    assert untold.receiver.endswith("nonsense")


def test_a_monitor_that_nobody_looks_at_is_due_since_the_process_began(
    opened: Callable[..., Components],
) -> None:
    parts = opened(answers="racing", other="racing")
    standing.watch(parts, clock=lambda: 7.0)

    def due() -> dict[str, float]:
        family = "ragstone_drift_due_timestamp_seconds"
        return {
            sample.labels["monitor"]: sample.value
            for each in text_string_to_metric_families(parts.metrics.render().decode())
            for sample in each.samples
            if each.name == family
        }

    assert due() == {"answers": 7.0, "other": 7.0}
    watching.look(parts, now=START + HOUR / 2)
    standing.watch(parts, clock=lambda: 7.0)
    assert due() == dict.fromkeys(("answers", "other"), (START + HOUR * 3 / 2).timestamp())
