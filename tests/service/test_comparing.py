"""Challengers compared by what was recorded: told, promoted, rolled back, by rules and settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from classical_models import classifier, put, regressor
from infra.contracts import Interaction
from infra.errors import Conflict, InvalidRequest, NotFound, StorageFailed
from infra.settings import load_settings
from migrated import put_schema
from monitoring.feedback import Statement
from monitoring.prediction_pairs import copy_of
from service.app import create_app
from service.cli.entry import app
from service.models import alias_moves, comparing
from service.wiring import Components
from service.work import kinds

RULES = {"min_requests": 60, "max_failures": 0.1, "promote": True}
Open = Callable[..., Components]


@pytest.fixture
def open_parts(tmp_path: Path) -> Iterator[Open]:
    """Open the parts of a process with rules, and a model with a challenger if need be."""
    put_schema(tmp_path / ".ragstone" / "ragstone.db")
    with ExitStack() as opened:

        def open_(
            *,
            made: Any = classifier,
            name: str = "churn",
            price: Mapping[str, Any] | None = None,
            **rules: Any,
        ) -> Components:
            others = {} if price is None else {"price": price}
            settings = load_settings(
                retrieval={"embedder": "hashing"},
                generation={"engine": "echo"},
                models={"challengers": {name: {**RULES, **rules}, **others}},
            )
            parts = Components(settings)
            opened.callback(parts.close)
            put(parts.artifacts, made(0), tmp_path / "1", name=name)
            put(parts.artifacts, made(1), tmp_path / "2", name=name, alias="challenger")
            return parts

        yield open_


def record(
    parts: Components, said: Mapping[str, list[Any]], name: str = "churn", *, start: int = 0
) -> None:
    """Record what both said of one row of each request, and what was right; None has failed."""
    at = datetime.now(UTC)
    for place, told in enumerate(zip(said["live"], said["challenger"], strict=True), start):
        first = Interaction(
            f"pred-{place}-0", "prediction", at, f"model/{name}", "answered", 200, seconds=0.25
        )
        for item, version, each in (
            (replace(first, tag="live"), 1, told[0]),
            (replace(first, id=copy_of(first.id), tag="shadow", seconds=0.5), 2, told[1]),
        ):
            content = {"prediction": each}
            outcome = {"outcome": "failed", "status": 502} if each is None else {}
            upstream = f"{name}@v{version}"
            parts.interactions.add(replace(item, upstream=upstream, content=content, **outcome))  # type: ignore[arg-type]
    parts.interactions.flush()
    for place, label in enumerate(said.get("labels", [])):
        parts.feedback.add(Statement(f"pred-{place}-0", "label", label))


def answer_alike(parts: Components, request: str, *, rows: int) -> None:
    """Record a request of several rows, of which both say the same."""
    at = datetime.now(UTC)
    for row in range(rows):
        first = Interaction(
            f"{request}-{row}",
            "prediction",
            at,
            "model/churn",
            "answered",
            200,
            upstream="churn@v1",
        )
        first = replace(first, content={"prediction": "yes", "features": {"age": row}})
        copy = replace(first, id=copy_of(first.id), upstream="churn@v2", tag="shadow")
        parts.interactions.add(first)
        parts.interactions.add(copy)


def planted(live: float, challenger: float, *, requests: int = 120) -> dict[str, list[str]]:
    """Return predictions that are wrong in these shares, and the labels."""
    rng = np.random.default_rng(3)
    labels = [str(each) for each in rng.choice(["no", "yes"], requests)]
    other = {"no": "yes", "yes": "no"}
    found = {"labels": labels}
    for name, share in (("live", live), ("challenger", challenger)):
        wrong = rng.random(requests) < share
        found[name] = [
            other[label] if bad else label for label, bad in zip(labels, wrong, strict=True)
        ]
    return found


def version(parts: Components, alias: str, name: str = "churn") -> str | None:
    try:
        return str(parts.artifacts.find(f"model/{name}@{alias}"))
    except NotFound:
        return None


def evidence(parts: Components, reference: str) -> Mapping[str, Any]:
    with parts.artifacts.open(reference, alias_moves.EVIDENCE) as stream:
        found: dict[str, Any] = json.loads(stream.read())
    return found


def test_good_challenger_is_promoted_with_its_evidence(open_parts: Open) -> None:
    parts = open_parts()
    record(parts, planted(0.4, 0.05))
    (found,) = comparing.decide_all(parts)
    assert (found.decision, found.done) == ("promote", "promoted")
    assert version(parts, "production") == "model/churn@v2"
    assert version(parts, "challenger") is None
    move = parts.artifacts.history("model/churn", "production")[0]
    assert move.actor == found.evidence == "comparison/churn@v1"
    kept = evidence(parts, found.evidence)
    assert (kept["done"], kept["requests"], kept["labelled"]) == ("promoted", 120, 120)
    assert kept["measures"][1]["interval"]["high"] < 0
    assert kept["rules"]["min_requests"] == 60
    assert comparing.decide_all(parts) == [], "there is no challenger any more"


def test_bad_challenger_is_rolled_back_and_the_version_in_use_stays(open_parts: Open) -> None:
    parts = open_parts()
    record(parts, planted(0.05, 0.5))
    found = comparing.decide(parts, "churn")
    assert (found.decision, found.done) == ("roll_back", "rolled_back")
    assert found.reason.startswith("error is ")
    assert version(parts, "production") == "model/churn@v1"
    assert version(parts, "challenger") is None
    removed = parts.artifacts.history("model/churn", "challenger")[0]
    assert (removed.action, removed.actor) == ("remove", found.evidence)


def test_failing_challenger_is_rolled_back_without_labels(open_parts: Open) -> None:
    parts = open_parts()
    record(parts, {"live": ["yes"] * 30, "challenger": [None, "yes", "yes"] * 10})
    found = comparing.decide(parts, "churn")
    assert (found.done, found.labelled) == ("rolled_back", 0)
    assert found.challenger.aside.requests == 20
    assert "failures" in found.reason


def test_challenger_that_fails_after_the_first_round_is_rolled_back(
    open_parts: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "ROUND", 40)
    parts = open_parts(promote=False)
    record(parts, {"live": ["yes"] * 80, "challenger": ["yes"] * 80})
    quiet = comparing.decide(parts, "churn")
    assert (quiet.decision, quiet.requests, quiet.measures[2].requests) == ("wait", 80, 80)
    assert quiet.challenger.aside.requests == 40, "of the latest round"
    record(parts, {"live": ["yes"] * 40, "challenger": [None, "yes"] * 20}, start=80)
    assert comparing.decide(parts, "churn").done == "rolled_back"


def test_request_counts_once_however_many_rows_and_labels_it_has(
    open_parts: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "ROUND", 4)
    parts = open_parts()
    for number in range(4):
        answer_alike(parts, f"pred-{number}", rows=12)
    parts.interactions.flush()
    for number in range(4):
        for row in (11, 10, 0):
            parts.feedback.add(Statement(f"pred-{number}-{row}", "label", "yes"))
    found = comparing.compare(parts, "churn")
    assert (found.requests, found.labelled) == (4, 4)
    assert [each.requests for each in found.measures] == [4, 4, 4]
    assert (found.live.told.requests, found.live.loss) == (4, 0.0)


def test_label_said_first_is_bet_on_and_the_last_one_is_told(open_parts: Open) -> None:
    parts = open_parts()
    record(parts, {"live": ["yes"] * 2, "challenger": ["no"] * 2, "labels": ["yes", "yes"]})
    before = comparing.compare(parts, "churn")
    parts.feedback.add(Statement("pred-0-0", "label", "no"))
    after = comparing.compare(parts, "churn")
    assert after.measures == before.measures
    assert (before.challenger.loss, after.challenger.loss) == (1.0, 0.5)


def test_label_that_is_no_number_waits_for_one_that_is(open_parts: Open) -> None:
    parts = open_parts(made=regressor, name="price")
    said: dict[str, list[Any]] = {"live": [10.0, 20.0], "challenger": [11.0, 20.0]}
    record(parts, {**said, "labels": ["cheap", "21"]}, "price")
    parts.feedback.add(Statement("pred-0-0", "label", "12"))
    found = comparing.compare(parts, "price")
    assert (found.labelled, found.live.loss) == (2, 1.5)


@pytest.mark.parametrize(("seconds", "decision"), [(0.3, "roll_back"), (0.6, "wait")])
def test_challenger_that_is_too_slow_fails(open_parts: Open, seconds: float, decision: str) -> None:
    parts = open_parts(max_seconds=seconds)
    record(parts, {"live": ["yes"] * 30, "challenger": ["yes"] * 30})
    assert comparing.compare(parts, "churn").decision == decision


def test_what_settings_do_not_allow_is_told_and_left(open_parts: Open) -> None:
    parts = open_parts(promote=False)
    record(parts, planted(0.4, 0.05))
    found = comparing.decide(parts, "churn")
    assert (found.decision, found.done, found.evidence) == ("promote", None, None)
    assert version(parts, "production") == "model/churn@v1"


def test_labels_that_come_late_are_counted_and_the_last_one_is_told(open_parts: Open) -> None:
    parts = open_parts()
    record(parts, {"live": ["yes"] * 3, "challenger": ["no", "yes", "yes"], "labels": ["yes"]})
    before = comparing.compare(parts, "churn")
    assert (before.requests, before.labelled, before.decision) == (3, 1, "wait")
    assert (before.live.loss, before.challenger.loss) == (0.0, 1.0)
    parts.feedback.add(Statement("pred-2-0", "label", "yes"))
    parts.feedback.add(Statement("pred-0-0", "label", "no"))
    after = comparing.compare(parts, "churn")
    assert (after.labelled, after.live.loss, after.challenger.loss) == (2, 0.5, 0.0)
    agreement = after.measures[0].interval
    assert agreement is not None
    assert agreement.estimate == pytest.approx(2 / 3)
    assert after.live.told.median == 0.25
    assert after.challenger.aside.median == 0.5


def test_broken_model_leaves_other_challengers_to_be_decided(
    open_parts: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = open_parts()
    (tmp_path / "3").mkdir()
    (tmp_path / "3" / "model.json").write_text("{")
    broken = parts.artifacts.put(tmp_path / "3", "model/churn")
    parts.artifacts.tag(str(broken), "challenger")
    assert comparing.decide_all(parts) == []
    assert "is not JSON" in caplog.text


def test_a_store_that_lost_one_model_leaves_other_challengers_to_be_decided(
    open_parts: Open, tmp_path: Path
) -> None:
    parts = open_parts(price={**RULES})
    for number, alias in (("5", "production"), ("6", "challenger")):
        put(parts.artifacts, classifier(int(number)), tmp_path / number, name="price", alias=alias)
    record(parts, planted(0.4, 0.05), "price")
    digest = parts.artifacts.find("model/churn@challenger").digest.removeprefix("sha256:")
    (manifest,) = (tmp_path / ".ragstone" / "artifacts").rglob(f"*{digest[4:]}*")
    manifest.chmod(0o600)
    manifest.write_bytes(manifest.read_bytes()[:20])
    with pytest.raises(StorageFailed, match="Not compared: churn: "):
        comparing.decide_all(parts)
    assert version(parts, "production", "price") == "model/price@v2"


def test_numbers_are_compared_by_their_distance_from_the_label(open_parts: Open) -> None:
    parts = open_parts(made=regressor, name="price")
    told: dict[str, list[Any]] = {
        "live": [10.0, 20.0],
        "challenger": [11.0, 20.1],
        "labels": ["12", "cheap"],
    }
    record(parts, told, "price")
    found = comparing.compare(parts, "price")
    assert (found.labelled, found.live.loss, found.challenger.loss) == (1, 2.0, 1.0)
    assert found.measures[0].interval is not None
    assert found.measures[0].interval.estimate == 0.5
    assert found.measures[1].interval is not None
    assert found.measures[1].interval.estimate == pytest.approx(-1 / 3)


def test_what_was_predicted_before_an_alias_moved_says_nothing(open_parts: Open) -> None:
    parts = open_parts()
    record(parts, planted(0.05, 0.5, requests=4))
    assert comparing.compare(parts, "churn").requests == 4
    store = parts.artifacts
    store.untag("model/churn", "challenger")
    store.tag("model/churn@v1", "challenger")
    with pytest.raises(InvalidRequest, match="same version"):
        comparing.compare(parts, "churn")
    assert comparing.decide_all(parts) == []
    store.tag("model/churn@v2", "challenger")
    after = comparing.compare(parts, "churn")
    assert after.since == store.history("model/churn", "challenger")[0].at
    assert (after.requests, after.decision) == (0, "wait")


@pytest.mark.parametrize("shares", [(0.4, 0.05), (0.05, 0.5)])
@pytest.mark.parametrize("moved", ["production", "challenger"])
def test_alias_that_moved_meanwhile_is_left(
    open_parts: Open, monkeypatch: pytest.MonkeyPatch, shares: tuple[float, float], moved: str
) -> None:
    parts = open_parts()
    record(parts, planted(*shares))
    keep = alias_moves.keep

    def slowly(*arguments: Any) -> Any:
        parts.artifacts.untag("model/churn", moved)
        return keep(*arguments)

    monkeypatch.setattr(alias_moves, "keep", slowly)
    with pytest.raises(Conflict, match="compare again"):
        comparing.decide(parts, "churn")
    left = {"production": "model/churn@v1", "challenger": "model/churn@v2"}
    assert {alias: version(parts, alias) for alias in left} == {**left, moved: None}


def test_job_command_and_route_tell_the_same(open_parts: Open, tmp_path: Path) -> None:
    parts = open_parts(promote=False)
    record(parts, planted(0.4, 0.05, requests=80))
    assert comparing.COMPARE in kinds.registry(parts).names
    words = "[models.challengers.churn]\nmin_requests = 60\nmax_failures = 0.1\n"
    (tmp_path / "ragstone.toml").write_text(words)

    def run(*more: str) -> str:
        result = CliRunner().invoke(app, ["models", "compare", *more])
        assert result.exit_code == 0, result.output
        return result.stdout

    told = json.loads(run("model/churn", "--decide", "--json"))
    assert (told["decision"], told["done"], told["requests"]) == ("promote", None, 80)
    text = run("churn")
    assert "model/churn@v2" in text
    assert "promote: " in text
    with TestClient(create_app(parts), base_url="http://127.0.0.1") as client:
        answer = client.get("/v1/comparisons/churn")
        assert answer.status_code == 200, answer.text
        assert answer.json()["measures"] == told["measures"]
        assert client.get("/v1/comparisons/nobody").status_code == 404
