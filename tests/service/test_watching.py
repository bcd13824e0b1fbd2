"""The watch: interactions that drift raise an alarm, are told of, and start what they should."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from typer.testing import CliRunner

import hook_server
import mail_server
from infra.contracts import Interaction, Usage
from infra.errors import InvalidConfiguration, NotFound, StorageFailed
from infra.plugins import available, load
from monitoring import interaction_exports, watch
from monitoring.alarm import Judged
from monitoring.comparison import compare
from monitoring.feedback import Statement
from monitoring.interactions import Query
from monitoring.untold import UntoldEvents
from monitoring.watch import Seen
from monitoring.watch_results import Result
from monitoring.windows import Window
from service import standing
from service.cli.entry import app
from service.wiring import Components
from service.work import monitors, watching

START = datetime(2026, 11, 2, tzinfo=UTC)
HOUR = timedelta(hours=1)
ROWS = 200


def traffic(
    parts: Components,
    start: datetime,
    *,
    tokens: float = 200,
    support: float = 0.8,
    tenants: Mapping[str, float] | None = None,
) -> None:
    """An hour of answers; `tenants` have questions of other lengths, in turns."""
    chance = random.Random(start.isoformat())
    lengths = tenants or {"": tokens}
    for number in range(ROWS):
        tenant = list(lengths)[number % len(lengths)]
        tokens = lengths[tenant]
        parts.interactions.add(
            Interaction(
                id=f"answer-{start:%d%H}-{number}",
                kind="answer",
                at=start + HOUR * (number / ROWS),
                model="rag/x",
                tenant=tenant or None,
                outcome="answered" if chance.random() < 0.9 else "abstained",
                status=200,
                usage=Usage(int(chance.gauss(tokens, 30)), int(chance.gauss(50, 10))),
                seconds=chance.lognormvariate(0, 0.5),
                support=min(1.0, max(0.0, chance.gauss(support, 0.1))),
            )
        )
    parts.interactions.flush()


@pytest.fixture
def hooks() -> Iterator[hook_server.Hooks]:
    with hook_server.serving() as found:
        yield found


def watched(settings: Any, hooks: hook_server.Hooks, **monitor: Any) -> dict[str, Any]:
    """Return sections of settings with one monitor and a webhook."""
    of = {"reference": "answers", "kind": "answer", **monitor}
    receivers = {"webhook": {"url": f"{hooks.url}/drift"}}
    return {"watch": {"monitors": {"answers": of}, "receivers": receivers}}


def pinned(parts: Components) -> datetime:
    """Pin two hours as the reference; returns when the third begins."""
    for number in range(2):
        traffic(parts, START + number * HOUR)
    query = Query(START, START + 2 * HOUR)
    interaction_exports.export(parts.database, parts.artifacts, query, "answers")
    return START + 2 * HOUR


def hours(parts: Components, start: datetime, *, number: int, **how: float) -> datetime:
    """Let hours pass, each looked at when it ends."""
    for _ in range(number):
        traffic(parts, start, **how)
        start += HOUR
        (found,) = watching.look(parts, now=start)
        assert not watching.look(parts, now=start + HOUR / 2), "the next window has not ended"
        assert found.report["rows"] == {"reference": 2 * ROWS, "measurement": ROWS}
    return start


def test_quiet_hours_tell_nobody_and_drift_is_told_once_and_resolved_once(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks
) -> None:
    client: TestClient = open_client(fast_settings(**watched(fast_settings, hooks)))
    parts = client.app.state.components  # type: ignore[attr-defined]
    now = hours(parts, pinned(parts), number=4)
    assert hooks.posted == {}, "nothing has drifted"
    now = hours(parts, now, number=4, tokens=320)
    (told,) = hooks.posted["/drift"]
    assert (told["action"], told["monitor"]) == ("ticket", "answers")
    assert "prompt_tokens" in told["summary"]
    moved = [each["feature"] for each in told["evidence"]["features"] if each["verdict"] == "drift"]
    assert moved == ["prompt_tokens"]
    standing.watch(parts)
    series = {
        f"{sample.name}{sorted(sample.labels.values())}": sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    }
    assert series["ragstone_drift_alarm['answers']"] == 1
    assert series["ragstone_drift_verdict['answers', 'drift']"] == 1
    assert series["ragstone_drift_effect_ratio['answers', 'prompt_tokens']"] > 1
    assert series["ragstone_drift_due_timestamp_seconds['answers']"] == (now + HOUR).timestamp()
    hours(parts, now, number=4)
    assert [each["action"] for each in hooks.posted["/drift"]] == ["ticket", "resolved"]


def test_what_moves_for_one_tenant_alone_is_told_as_its_own(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks
) -> None:
    asked = {"features": ["prompt_tokens"], "slices": ["tenant"], "level": 0.01}
    parts = open_client(
        fast_settings(**watched(fast_settings, hooks, **asked))
    ).app.state.components
    usual = {"acme": 200.0, "globex": 300.0}
    for number in range(2):
        traffic(parts, START + number * HOUR, tenants=usual)
    query = Query(START, START + 2 * HOUR)
    interaction_exports.export(parts.database, parts.artifacts, query, "answers")
    now = START + 2 * HOUR
    told = []
    for lengths in (usual, {**usual, "acme": 240.0}):
        traffic(parts, now, tenants=lengths)
        now += HOUR
        (found,) = watching.look(parts, now=now)
        told.append({each["feature"]: each["verdict"] for each in found.report["features"]})
    sliced = ("prompt_tokens [tenant=acme]", "prompt_tokens [tenant=globex]")
    assert told[0] == dict.fromkeys(("prompt_tokens", *sliced), "stable")
    assert [told[1][name] for name in sliced] == ["drift", "stable"]


def test_a_column_of_slices_is_compared_once_and_only_where_it_is_a_feature(
    fast_settings: Any, hooks: hook_server.Hooks
) -> None:
    window = Window.of(
        {"tenant": ["acme", "globex"] * 20, "seconds": [float(n) for n in range(40)]}
    )
    seen = Seen(window, window, lambda *_: window, lambda *_: pytest.fail("no labels"))
    found = []
    for features in (["seconds"], ["seconds", "tenant"], []):
        asked = {"features": features, "slices": ["tenant"]}
        parts = Components(fast_settings(**watched(fast_settings, hooks, **asked)))
        monitor, _ = monitors.opened(parts, "answers")
        report = compare(*watch.features(monitor, seen), monitor.plan)
        found.append([each.feature for each in report.findings if not each.slice])
    assert found == [["seconds"], ["seconds", "tenant"], ["tenant", "seconds"]]


def test_a_change_in_how_features_go_together_is_seen_where_all_are_looked_at(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks
) -> None:
    asked = {"features": ["support", "groundedness"], "together": "mmd"}
    parts = open_client(
        fast_settings(**watched(fast_settings, hooks, **asked))
    ).app.state.components
    chance = random.Random(7)
    for hour, sign in enumerate((1, 1, -1)):
        for number in range(ROWS):
            centred = chance.random() - 0.5
            parts.interactions.add(
                Interaction(
                    id=f"answer-{hour}-{number}",
                    kind="answer",
                    at=START + HOUR * (hour + number / ROWS),
                    model="rag/x",
                    outcome="answered",
                    status=200,
                    support=0.5 + centred,
                    groundedness=0.5 + sign * centred,
                )
            )
    parts.interactions.flush()
    query = Query(START, START + 2 * HOUR)
    interaction_exports.export(parts.database, parts.artifacts, query, "answers")
    (found,) = watching.look(parts, now=START + 3 * HOUR)
    told = {each["feature"]: each for each in found.report["features"]}
    assert {name: each["verdict"] for name, each in told.items()} == {
        "all columns": "drift",
        "support": "stable",
        "groundedness": "stable",
    }


def test_drift_with_harm_starts_the_pipeline_with_the_evidence(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks
) -> None:
    trigger = {"pipeline": "/srv/again.yml", "evidence_parameter": "why", "arguments": {"rows": 9}}
    asked = {"floors": {"support": 0.7}, "trigger": trigger}
    settings = fast_settings(**watched(fast_settings, hooks, **asked), jobs={"in_process": False})
    parts = open_client(settings).app.state.components
    now = hours(parts, pinned(parts), number=1)
    now = hours(parts, now, number=3, tokens=320)
    assert parts.jobs.list(name="pipeline.run") == [], "drift alone retrains nothing"
    hours(parts, now, number=3, tokens=320, support=0.5)
    (job,) = parts.jobs.list(name="pipeline.run")
    assert job.arguments["file"] == "/srv/again.yml"
    assert job.arguments["params"]["rows"] == "9"
    evidence = job.arguments["params"]["why"]
    assert evidence == "evidence/answers@v1"
    folder = parts.artifacts.checkout(evidence, Path("checked-out"))
    said = json.loads((folder / "evidence.json").read_text())
    (performance,) = said["evidence"]["performance"]
    assert performance["high"] < performance["floor"] == 0.7
    assert [each["action"] for each in hooks.posted["/drift"]] == ["ticket", "started"]
    assert hooks.posted["/drift"][1]["summary"].endswith("its floor is 0.7")
    (started,) = [each for each in results(parts) if each.judged.action == "started"]
    assert started.report["started"] == job.id


def results(parts: Components) -> list[Any]:
    return watching.stored(parts).latest("answers")


def test_harm_without_drift_starts_a_job_and_only_with_what_is_stored(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks
) -> None:
    trigger = {"when": "harm", "job": "watch", "cool_down_hours": 1}
    asked = {"floors": {"support": 0.7}, "features": ["outcome"], "trigger": trigger}
    settings = fast_settings(**watched(fast_settings, hooks, **asked), jobs={"in_process": False})
    parts = open_client(settings).app.state.components
    now = hours(parts, pinned(parts), number=1)
    now = hours(parts, now, number=1, support=0.5)
    assert parts.jobs.list(name="watch") == [], "one window is no proof"
    traffic(parts, now, support=0.5)
    with parts.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE watch_result RENAME TO elsewhere")
    with pytest.raises(StorageFailed):
        watching.look(parts, now=now + HOUR)
    with parts.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO watch_result")
    assert parts.jobs.list(name="watch") == []
    (found,) = watching.look(parts, now=now + HOUR)
    assert (found.judged.action, found.judged.verdict) == ("started", "stable")
    (job,) = parts.jobs.list(name="watch")
    assert results(parts)[-1].report["started"] == job.id
    assert [each["action"] for each in hooks.posted["/drift"]] == ["started"]


def voted(parts: Components, start: datetime, *, up: float) -> None:
    """Have people vote on a third of an hour's answers."""
    chance = random.Random(7)
    for number in range(0, ROWS, 3):
        vote = "up" if chance.random() < up else "down"
        said = Statement(f"answer-{start:%d%H}-{number}", "thumbs", vote)
        parts.feedback.add(said)


def test_few_votes_say_how_many_answers_are_right(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks
) -> None:
    right = {"label": "thumbs", "right": ["up"], "judged": "support", "days": 0.05, "floor": 0.7}
    settings = fast_settings(**watched(fast_settings, hooks, labelled={"right": right}))
    client = open_client(settings)
    parts = client.app.state.components
    now = pinned(parts)
    traffic(parts, now)
    voted(parts, now, up=0.4)
    (found,) = watching.look(parts, now=now + HOUR)
    (told,) = found.report["performance"]
    assert told["low"] < 0.4 < told["high"] < 0.7
    assert (told["method"], told["rows"]) == ("labels", len(range(0, ROWS, 3)))
    series = client.get("/metrics").text
    assert 'ragstone_performance_floor{metric="right",monitor="answers"} 0.7' in series
    assert 'ragstone_performance_refused{metric="right",monitor="answers"} 0.0' in series
    assert 'bound="high",metric="right"' in series
    (later,) = watching.look(parts, now=now + 3 * HOUR)
    (told,) = later.report["performance"]
    assert "0 labels of the 50" in told["refused"]


def test_harm_from_before_the_last_start_starts_nothing_again(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks
) -> None:
    right = {"label": "thumbs", "right": ["up"], "floor": 0.9}
    trigger = {"when": "harm", "job": "watch", "cool_down_hours": 1}
    asked = {"labelled": {"right": right}, "features": ["outcome"], "confirm": 1}
    sections = watched(fast_settings, hooks, **asked, trigger=trigger)
    settings = fast_settings(**sections, jobs={"in_process": False})
    parts = open_client(settings).app.state.components
    now = pinned(parts)
    told = []
    for up in (0.3, 1.0, 0.3):
        traffic(parts, now)
        voted(parts, now, up=up)
        now += HOUR
        (found,) = watching.look(parts, now=now)
        told.append((found.judged.action, found.report["performance"][0]["rows"]))
    assert told == [("started", 67), (None, 67), ("started", 134)]


def predicted(parts: Components, start: datetime, *, rows: int = ROWS, shift: float = 0.0) -> None:
    """An hour of predictions, as the runtime of classical models records them."""
    chance = random.Random(start.isoformat())
    for number in range(rows):
        leaves = chance.random()
        features = {"age": chance.gauss(40 + shift, 10), "plan": chance.choice(["a", "b"])}
        content = {
            "features": features,
            "prediction": "leaves" if leaves >= 0.5 else "stays",
            "probabilities": {"stays": 1 - leaves, "leaves": leaves},
        }
        parts.interactions.add(
            Interaction(
                id=f"prediction-{start:%d%H}-{number}",
                kind="prediction",
                at=start + HOUR * (number / rows),
                model="model/churn",
                outcome="answered",
                status=200,
                content=content,
            )
        )
    parts.interactions.flush()


def test_predictions_are_watched_by_their_features_and_estimated_without_labels(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks
) -> None:
    f1 = {"metric": "f1", "probabilities": {"leaves": "probability.leaves"}, "floor": 0.2}
    watch = watched(
        fast_settings,
        hooks,
        kind="prediction",
        features=["feature.age", "feature.plan", "prediction"],
        estimates={"f1": f1, "weighted": {**f1, "features": ["feature.age"]}},
        streams={"feature.age": {"parameters": {"horizon": 1000}}},
    )
    client = open_client(fast_settings(**watch))
    parts = client.app.state.components
    for number in range(2):
        predicted(parts, START + number * HOUR)
    for number in range(0, ROWS, 2):
        for hour in range(2):
            leaves = random.Random(number).random() < 0.5
            said = Statement(
                f"prediction-{START + hour * HOUR:%d%H}-{number}",
                "label",
                "leaves" if leaves else "stays",
            )
            parts.feedback.add(said)
    query = Query(START, START + 2 * HOUR)
    interaction_exports.export(parts.database, parts.artifacts, query, "answers")
    now = START + 2 * HOUR
    predicted(parts, now)
    (found,) = watching.look(parts, now=now + HOUR)
    assert {each["feature"] for each in found.report["features"]} == {
        *("feature.age", "feature.plan", "prediction")
    }
    assert found.judged.verdict == "stable"
    plain, weighted = found.report["performance"]
    assert 0.3 < plain["low"] < plain["high"] < 0.7, "labels are a coin's"
    assert weighted["method"] == "confidence, weighted by density"
    predicted(parts, now + HOUR, shift=80)
    (found,) = watching.look(parts, now=now + 2 * HOUR)
    assert found.judged.verdict == "drift"
    assert found.judged.is_alarm, "a stream that is sure needs no second window"
    (stream,) = found.report["streams"]
    assert stream["verdict"] == "drift"
    assert "outside the support" in found.report["performance"][1]["refused"]
    series = client.get("/metrics").text
    assert 'ragstone_drift_stream_alarm{detector="e_detector",feature="feature.age"' in series
    (hour_without,) = watching.look(parts, now=now + 4 * HOUR)
    assert hour_without.report["streams"][0]["verdict"] == "not_enough_data"


def test_hours_are_compared_with_the_same_hours_of_the_week(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks
) -> None:
    sections = watched(fast_settings, hooks, seasonal=True, features=["prompt_tokens"])
    parts = open_client(fast_settings(**sections)).app.state.components
    week = timedelta(days=7)
    for number in range(2):
        traffic(parts, START + number * HOUR, tokens=200 + 100 * number)
    query = Query(START, START + 2 * HOUR)
    interaction_exports.export(parts.database, parts.artifacts, query, "answers")
    traffic(parts, START + week + HOUR, tokens=300)
    (found,) = watching.look(parts, now=START + week + 2 * HOUR)
    assert found.judged.verdict == "stable"
    assert found.report["rows"]["reference"] == ROWS, "of two hours the one"
    sections["watch"]["monitors"]["answers"] |= {"time_zone": "Mars/Olympus"}
    with pytest.raises(InvalidConfiguration, match="Mars"):
        monitors.opened(Components(fast_settings(**sections)), "answers")


def test_the_shape_of_a_metric_is_named_over_the_windows_so_far(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks
) -> None:
    asked = {"floors": {"support": 0.1}, "features": ["outcome"]}
    parts = open_client(
        fast_settings(**watched(fast_settings, hooks, **asked))
    ).app.state.components
    now = hours(parts, pinned(parts), number=6)
    assert results(parts)[-1].report["performance"][0]["shape"] is None, "of six windows nothing"
    hours(parts, now, number=5, support=0.6)
    (told,) = results(parts)[-1].report["performance"]
    assert told["shape"]["shape"] == "instantaneous"
    assert "in window 6" in told["shape"]["explanation"]


def test_a_clock_that_was_ahead_blinds_no_monitor_and_suppresses_nothing(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks
) -> None:
    trigger = {"when": "harm", "job": "watch", "cool_down_hours": 2}
    right = {"label": "thumbs", "right": ["up"], "floor": 0.9}
    asked = {"labelled": {"right": right}, "features": ["outcome"], "confirm": 1}
    sections = watched(fast_settings, hooks, **asked, trigger=trigger)
    settings = fast_settings(**sections, jobs={"in_process": False})
    parts = open_client(settings).app.state.components
    now = pinned(parts)
    year = timedelta(weeks=52)
    traffic(parts, now + year)
    voted(parts, now + year, up=0.3)
    (ahead,) = watching.look(parts, now=now + year + HOUR)
    assert ahead.judged.action == "started"
    told = []
    for _ in range(4):
        traffic(parts, now)
        voted(parts, now, up=0.3)
        now += HOUR
        told += [each.judged.action for each in watching.look(parts, now=now)]
    assert told == [None, "suppressed", "started", "suppressed"]


def test_an_hour_in_which_the_clock_was_ahead_is_compared_with_nothing(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks
) -> None:
    asked = {"features": ["prompt_tokens"], "level": 0.001}
    settings = fast_settings(**watched(fast_settings, hooks, **asked))
    parts = open_client(settings).app.state.components
    now = pinned(parts)
    traffic(parts, now)
    traffic(parts, now + timedelta(weeks=52), tokens=320)
    (found,) = watching.look(parts, now=now + HOUR)
    assert found.judged.verdict == "incomparable"
    (told,) = found.report["features"]
    assert told["explanation"].startswith("A clock jumped: 200 of 400 rows have a time")
    traffic(parts, now + HOUR)
    (found,) = watching.look(parts, now=now + 2 * HOUR)
    assert found.judged.verdict == "stable", "what was dated wrongly before says nothing of it"


def test_a_receiver_that_is_down_keeps_nobody_else_from_being_told(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks
) -> None:
    sections = watched(fast_settings, hooks)
    with mail_server.serving() as mail:
        sections["watch"]["receivers"] = {
            "alertmanager": {"url": "http://127.0.0.1:9"},
            "email": {
                "host": "127.0.0.1",
                "port": mail.port,
                "starttls": False,
                "sender": "ragstone@example.com",
                "recipients": ["ops@example.com"],
            },
            **sections["watch"]["receivers"],
        }
        parts = open_client(fast_settings(**sections)).app.state.components
        hours(parts, pinned(parts), number=2, tokens=320)
    (message,) = mail.messages
    assert "Subject: [ticket] answers: Drift of prompt_tokens" in message
    assert "- prompt_tokens:" in message
    assert len(hooks.posted["/drift"]) == 1


def test_a_receiver_that_answers_nonsense_or_has_a_wrong_header_ends_no_watch_and_shows_no_key(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks, caplog: pytest.LogCaptureFixture
) -> None:
    sections = watched(fast_settings, hooks, features=["prompt_tokens"])
    sections["watch"]["receivers"] = {
        "alertmanager": {"url": f"{hooks.url}/a s3cret"},
        "webhook": {"url": f"{hooks.url}/drift", "headers": {"Authorization": "s3cret\n"}},
    }
    parts = open_client(fast_settings(**sections)).app.state.components
    hours(parts, pinned(parts), number=2, tokens=320)
    assert "alertmanager was not told of drift, and is tried again: no answer of" in caplog.text
    assert "webhook was not told of drift, and is tried again: ValueError" in caplog.text
    assert "s3cret" not in caplog.text


def test_who_could_not_be_told_is_told_once_it_answers_and_in_order(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks
) -> None:
    sections = watched(fast_settings, hooks, features=["prompt_tokens"], clear=1)
    sections["watch"]["receivers"]["alertmanager"] = {"url": hooks.url}
    parts = open_client(fast_settings(**sections)).app.state.components
    now = pinned(parts)
    hooks.status = 503
    now = hours(parts, now, number=2, tokens=320)
    now = hours(parts, now, number=1)
    assert {each["action"] for each in hooks.posted["/drift"]} == {"ticket"}
    hooks.status, hooks.posted["/drift"] = 200, []
    tried, minute = now + HOUR / 2, timedelta(minutes=1)
    watching.look(parts, now=tried + minute / 2)
    assert hooks.posted["/drift"] == [], "it is tried again after a minute"
    for _ in range(2):
        watching.look(parts, now=tried + minute)
        told = hooks.posted["/drift"]
        assert [each["action"] for each in told] == ["ticket", "resolved"]
        assert told[0]["summary"].startswith("Drift of prompt_tokens")
        assert told[0]["evidence"]["features"][0]["verdict"] == "drift"
    assert UntoldEvents(parts.database).all() == []


def test_what_nobody_could_be_told_for_days_is_let_go_and_others_receivers_are_left_to_them(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks
) -> None:
    parts = open_client(fast_settings(**watched(fast_settings, hooks))).app.state.components
    now = pinned(parts)
    report = {"due": 0.0, "rows": {}, "features": [], "streams": [], "performance": []}
    for days, receiver in ((4, "webhook"), (4, "pager"), (1, "pager"), (1, "webhook")):
        judged = Judged(now - timedelta(days=days), "drift", True, "ticket")
        summary = f"{days} days ago"
        result = Result("elsewhere", judged, {**report, "summary": summary})
        watching.stored(parts).add(result, receivers=[receiver])
    watching.look(parts, now=now)
    assert [each["summary"] for each in hooks.posted["/drift"]] == ["1 days ago"]
    (left,) = UntoldEvents(parts.database).all()
    assert (left.receiver, left.event.summary) == ("pager", "1 days ago")


def test_hours_without_traffic_say_that_there_is_too_little(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks
) -> None:
    parts = open_client(fast_settings(**watched(fast_settings, hooks))).app.state.components
    start = pinned(parts)
    for number in range(1, 6):
        (found,) = watching.look(parts, now=start + number * HOUR + HOUR)
        assert found.judged.verdict in {"not_enough_data", "incomparable"}
    assert hooks.posted == {}


def test_the_terminal_looks_once(
    fast_settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parts = Components(fast_settings())
    pinned(parts)
    parts.close()
    monkeypatch.setenv("RAGSTONE_DATA_FOLDER", str(parts.settings.data_folder))
    nothing = CliRunner().invoke(app, ["watch", "--once"])
    assert nothing.exit_code == 0, nothing.output
    monkeypatch.setenv("RAGSTONE_WATCH__MONITORS", '{"answers": {"reference": "answers"}}')
    looked = CliRunner().invoke(app, ["watch", "--once", "--json"])
    assert looked.exit_code == 0, looked.output
    (found,) = json.loads(looked.stdout)
    assert found["monitor"] == "answers"


def test_the_terminal_shows_what_was_found_beside_a_monitor_that_fails(
    fast_settings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    parts = Components(fast_settings())
    pinned(parts)
    parts.close()
    monkeypatch.setenv("RAGSTONE_DATA_FOLDER", str(parts.settings.data_folder))
    watched = {"gone": {"reference": "nothing"}, "answers": {"reference": "answers"}}
    monkeypatch.setenv("RAGSTONE_WATCH__MONITORS", json.dumps(watched))
    looked = CliRunner().invoke(app, ["watch", "--once", "--json"])
    assert looked.exit_code == 1
    assert [each["monitor"] for each in json.loads(looked.stdout)] == ["answers"]


def test_what_is_not_there_is_said_by_name(fast_settings: Any, hooks: hook_server.Hooks) -> None:
    parts = Components(fast_settings(**watched(fast_settings, hooks)))
    with pytest.raises(NotFound, match="answers"):
        watching.look(parts, now=START)
    with pytest.raises(NotFound, match="there are 'answers'"):
        monitors.opened(parts, "question")
    parts.close()
    assert available("monitoring.receivers") == ["alertmanager", "email", "webhook"]
    with pytest.raises(InvalidConfiguration, match="no address of the web"):
        load("monitoring.receivers", "webhook")({"url": "file:///etc/passwd"})


def test_a_trigger_that_could_not_start_is_said_before_there_is_harm(
    fast_settings: Any, hooks: hook_server.Hooks, tmp_path: Path
) -> None:
    file = tmp_path / "again.yml"
    file.write_text("name: again\nparams: {rows: 1}\nsteps: {count: {run: wc}}\n")
    fine = {"pipeline": str(file), "arguments": {"rows": 9}}
    for trigger, said in (
        ({"job": "watch", "arguments": {"speed": 1}}, "'watch': got an unexpected .* 'speed'"),
        ({"job": "watch", "evidence_parameter": "why"}, "unexpected keyword argument 'why'"),
        ({**fine, "evidence_parameter": "why"}, "No parameter 'why'"),
    ):
        parts = Components(fast_settings(**watched(fast_settings, hooks, trigger=trigger)))
        with pytest.raises(InvalidConfiguration, match=f"answers.trigger would .*{said}"):
            monitors.opened(parts, "answers")
        parts.close()
    parts = Components(fast_settings(**watched(fast_settings, hooks, trigger=fine)))
    assert monitors.opened(parts, "answers")[0].trigger is not None
    parts.close()
    with pytest.raises(InvalidConfiguration, match="name all of it"):
        fast_settings(**watched(fast_settings, hooks, trigger={"pipeline": "again.yml"}))


def test_metrics_of_a_monitor_have_names_of_their_own(
    fast_settings: Any, hooks: hook_server.Hooks
) -> None:
    asked = {"floors": {"support": 0.7}, "labelled": {"support": {}}}
    with pytest.raises(InvalidConfiguration, match="'support' names several metrics"):
        fast_settings(**watched(fast_settings, hooks, **asked))


def test_a_page_shows_what_moved_and_loads_nothing(
    fast_settings: Any, open_client: Any, hooks: hook_server.Hooks
) -> None:
    parts = open_client(fast_settings(**watched(fast_settings, hooks))).app.state.components
    now = hours(parts, pinned(parts), number=1, tokens=320)
    markup = "<script>alert(1)</script>"
    parts.interactions.add(
        Interaction("x", "answer", now - HOUR / 2, "rag/x", markup, 200)  # type: ignore[arg-type]
    )
    parts.interactions.flush()
    page = watching.report(parts, "answers", now=now).decode()
    assert len(page) < 500_000
    assert "answers: drift" in page
    assert page.count("<svg") >= 5
    assert page.index("prompt_tokens") < page.index("completion_tokens"), "what moved comes first"
    assert "Rows that moved most" in page
    assert "<script" not in page
    assert not [each for each in ("http://", "https://", "src=", "@import") if each in page]
    with pytest.raises(NotFound):
        watching.report(parts, "questions", now=now)
