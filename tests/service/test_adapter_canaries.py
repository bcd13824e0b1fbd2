"""Canaries of adapters: a share of the traffic decides, by the rules, and aliases move with why."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError
from typer.testing import CliRunner

from gateway_outcomes import made_call, made_outcome
from infra.contracts import Interaction
from infra.errors import Conflict, InvalidConfiguration, InvalidRequest, NotFound, StorageFailed
from infra.gateway_settings import Gateway
from infra.settings import load_settings
from migrated import put_schema
from monitoring.feedback import Statement
from monitoring.interactions import Query
from service.cli.entry import app
from service.gateway.adapter_files import served_as
from service.gateway.calls import Asked
from service.gateway.recording import InteractionRecorder
from service.gateway.routing import check
from service.models import adapter_canaries, alias_moves, comparing
from service.wiring import Components
from service.work import kinds
from tiny_llm import write_adapter, write_llm

NAME = "adapter/support"
RULES = {"min_requests": 40, "max_failures": 0.1, "promote": True}


def targets(route: str) -> list[dict[str, Any]]:
    name = f"adapter/{route}"
    return [
        {"upstream": "gpu", "adapter": f"{name}@production", "weight": 9},
        {"upstream": "gpu", "adapter": f"{name}@candidate", "weight": 1, "tag": "canary"},
    ]


TARGETS = targets("support")
TWICE = {**TARGETS[1], "adapter": f"{NAME}@production"}
PINNED = {**TARGETS[1], "adapter": f"{NAME}@v2"}
NEWEST = {**TARGETS[1], "adapter": NAME}
DIGEST = {**TARGETS[1], "adapter": f"{NAME}@sha256:{'0' * 64}"}
Open = Callable[..., Components]


def gateway(*others: str, **rules: Any) -> dict[str, Any]:
    routes = ("support", *others)
    return {
        "upstreams": {"gpu": {"urls": ["http://127.0.0.1:9"]}},
        "routes": {route: {"targets": targets(route)} for route in routes},
        "canaries": {route: {**RULES, **rules} for route in routes},
    }


@pytest.fixture
def open_parts(tmp_path: Path) -> Iterator[Open]:
    """Open the parts of a process with a route to two versions of an adapter."""
    put_schema(tmp_path / ".ragstone" / "ragstone.db")
    with ExitStack() as opened:

        def open_(*others: str, **rules: Any) -> Components:
            settings = load_settings(
                retrieval={"embedder": "hashing"},
                generation={"engine": "echo"},
                gateway=gateway(*others, **rules),
            )
            parts = Components(settings)
            opened.callback(parts.close)
            base = write_llm(tmp_path / "base")
            for sign, alias in (("A", "production"), ("B", "candidate")):
                folder = write_adapter(tmp_path / sign, base, sign)
                for route in ("support", *others):
                    made = parts.artifacts.put(folder, f"adapter/{route}")
                    parts.artifacts.tag(str(made), alias)
            return parts

        yield open_


def served(parts: Components, tag: str, route: str = "support") -> str:
    version = {"live": "v1", "canary": "v2"}[tag]
    return served_as(parts.artifacts.find(f"adapter/{route}@{version}"))


def record(
    parts: Components,
    tag: str,
    *,
    statuses: list[int],
    votes: str = "",
    grounded: list[float] | None = None,
    callers: int = 10,
    route: str = "support",
    **more: Any,
) -> None:
    """Record calls of a target, each with a vote of `+` or `-`, or with how grounded it was."""
    at = datetime.now(UTC)
    how = {"served": served(parts, tag, route), "upstream": "gpu", "seconds": 0.25, **more}
    for place, status in enumerate(statuses):
        request = f"{route}-{tag}-{place}"
        outcome: Any = "answered" if status < 400 else "failed"
        parts.interactions.add(
            Interaction(
                f"call-{request}", "completion", at, route, outcome, status,
                request_id=request, tag=tag, **{"draw": place % callers / 100, **how},
            )
        )  # fmt: skip
        if grounded is not None:
            parts.interactions.add(
                Interaction(
                    f"ans-{request}", "answer", at, "rag/handbook", "answered", 200,
                    request_id=request, groundedness=grounded[place],
                )
            )  # fmt: skip
    parts.interactions.flush()
    for place, vote in enumerate(votes):
        said = {"+": "up", "-": "down"}[vote]
        parts.feedback.add(Statement(f"call-{route}-{tag}-{place}", "thumbs", said))


def digests(parts: Components) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for alias in ("production", "candidate"):
        try:
            found[alias] = str(parts.artifacts.find(f"{NAME}@{alias}"))
        except NotFound:
            found[alias] = None
    return found


def evidence(parts: Components, reference: str | None) -> Mapping[str, Any]:
    assert reference is not None
    with parts.artifacts.open(reference, alias_moves.EVIDENCE) as stream:
        found: dict[str, Any] = json.loads(stream.read())
    return found


def test_too_few_calls_say_nothing(open_parts: Open) -> None:
    parts = open_parts()
    record(parts, "canary", statuses=[200] * 20)
    assert adapter_canaries.decide(parts, "support").decision == "wait"
    assert digests(parts) == {"production": f"{NAME}@v1", "candidate": f"{NAME}@v2"}


def test_one_that_works_takes_over_and_the_history_says_why(open_parts: Open) -> None:
    parts = open_parts()
    record(parts, "live", statuses=[200] * 100)
    record(parts, "canary", statuses=[200] * 60)
    found = adapter_canaries.decide(parts, "support")
    assert (found.done, found.canary.requests, found.live.requests) == ("promoted", 60, 100)
    assert digests(parts) == {"production": f"{NAME}@v2", "candidate": None}
    kept = evidence(parts, found.evidence)
    assert kept["rules"]["max_failures"] == 0.1
    assert kept["canary"]["version"] == f"{NAME}@v2"
    for alias in ("production", "candidate"):
        assert parts.artifacts.history(NAME, alias)[0].actor == found.evidence


@pytest.mark.parametrize(
    ("calls", "rules"),
    [
        ({"statuses": [502] * 12 + [200] * 18}, {}),
        ({"statuses": [200] * 30, "seconds": 2.0}, {"max_seconds": 1.0}),
    ],
)
def test_one_that_fails_or_is_slow_is_rolled_back(
    open_parts: Open, calls: dict[str, Any], rules: dict[str, Any]
) -> None:
    parts = open_parts(**rules)
    record(parts, "live", statuses=[200] * 100)
    record(parts, "canary", **calls)
    found = adapter_canaries.decide(parts, "support")
    assert found.done == "rolled_back"
    assert "failures is" in found.reason
    assert digests(parts) == {"production": f"{NAME}@v1", "candidate": None}
    assert parts.artifacts.history(NAME, "candidate")[0].actor == found.evidence
    with pytest.raises(NotFound):
        adapter_canaries.decide(parts, "support")
    assert adapter_canaries.decide_all(parts) == []


def test_what_callers_do_wrong_is_no_failure(open_parts: Open) -> None:
    parts = open_parts()
    record(parts, "canary", statuses=[400, 499] * 50)
    found = adapter_canaries.compare(parts, "support")
    assert (found.canary.requests, found.decision) == (0, "wait")


@pytest.mark.parametrize(
    ("quality", "said", "done"),
    [
        ("feedback", ("+-" * 100, "+" * 80 + "-" * 20), "promoted"),
        ("feedback", ("+" * 150, "-" * 40), "rolled_back"),
        ("feedback", ("+-" * 100, "+" * 10), None),
        ("groundedness", (0.5, 0.95), "promoted"),
        ("groundedness", (0.9, 0.2), "rolled_back"),
    ],
)
def test_how_good_answers_are_decides_where_it_is_known(
    open_parts: Open, quality: str, said: tuple[Any, Any], done: str | None
) -> None:
    parts = open_parts(quality=quality)
    for tag, each in zip(("live", "canary"), said, strict=True):
        if quality == "feedback":
            record(parts, tag, statuses=[200] * len(each), votes=each)
        else:
            record(parts, tag, statuses=[200] * 100, grounded=[each] * 100)
    found = adapter_canaries.decide(parts, "support")
    assert found.done == done, found
    if done == "promoted":
        assert found.canary.quality is not None
        assert found.live.quality is not None
        assert found.canary.quality > found.live.quality


def test_a_vote_on_a_request_that_a_target_failed_first_is_one_on_what_the_caller_was_told(
    open_parts: Open,
) -> None:
    parts = open_parts(quality="feedback")
    missed, told = Asked("gpu", "canary", served(parts, "canary")), served(parts, "live")
    outcome = made_outcome(made_call(model="support"), served=told, missed=[missed])
    InteractionRecorder(parts.interactions.add, has_content=False).record(outcome)
    said = parts.feedback.add(Statement("req_1", "thumbs", "up"))
    assert parts.interactions.get(said.interaction_id).tag == "live"
    at_last = parts.interactions.find(Query(copies=False))
    assert [each.id for each in at_last] == [said.interaction_id]
    found = adapter_canaries.compare(parts, "support")
    assert (found.canary.requests, found.canary.failures, found.judged) == (1, 1.0, 0)


def test_a_request_that_both_were_asked_says_nothing_of_either(open_parts: Open) -> None:
    parts = open_parts(quality="feedback")
    at = datetime.now(UTC)
    for tag in ("live", "canary"):
        record(parts, tag, statuses=[200] * 3, votes="+++")
        parts.interactions.add(
            Interaction(
                f"both-{tag}", "completion", at, "support", "answered", 200,
                request_id="both", upstream="gpu", tag=tag, served=served(parts, tag),
            )
        )  # fmt: skip
    parts.interactions.flush()
    parts.feedback.add(Statement("both-canary", "thumbs", "down"))
    found = adapter_canaries.compare(parts, "support")
    assert (found.judged, found.canary.quality) == (3, 1.0)


@pytest.mark.parametrize(
    ("callers", "statuses", "votes", "done"),
    [
        (4, [200] * 60, None, None),
        (5, [200] * 60, None, "promoted"),
        (4, [502] * 60, None, None),
        (5, [502] * 60, None, "rolled_back"),
        (4, [200] * 150, ("+" * 150, "-" * 150), None),
        (5, [200] * 150, ("+" * 150, "-" * 150), "rolled_back"),
        (5, [502] * 60, ("", ""), "rolled_back"),
    ],
)
def test_few_callers_decide_nothing_however_much_they_ask(
    open_parts: Open,
    callers: int,
    statuses: list[int],
    votes: tuple[str, str] | None,
    done: str | None,
) -> None:
    parts = open_parts(quality=None if votes is None else "feedback")
    for tag, said in zip(("live", "canary"), votes or ("", ""), strict=True):
        record(parts, tag, statuses=statuses, votes=said, callers=callers)
    found = adapter_canaries.decide(parts, "support")
    assert (found.done, found.canary.callers) == (done, callers)
    if done is None:
        assert found.reason.startswith(f"{callers} of 5 callers say: ")


@pytest.mark.parametrize("quality", ["feedback", "groundedness"])
def test_what_is_judged_of_other_tenants_routes_and_times_says_nothing(
    open_parts: Open, quality: str
) -> None:
    parts = open_parts(quality=quality)
    for tag in ("live", "canary"):
        record(parts, tag, statuses=[200] * 2, tenant="acme")
        request, at = f"support-{tag}-0", datetime.now(UTC)
        elsewhere: list[dict[str, Any]] = [
            {"tenant": "other"},
            {"tenant": None},
            {"tenant": "acme", "at": at - timedelta(days=1)},
        ]
        if quality == "feedback":
            elsewhere.append({"tenant": "acme"})  # another route's
        for place, how in enumerate(elsewhere):
            parts.interactions.add(
                Interaction(
                    **{"at": at, **how}, id=f"{request}-{place}", kind="answer", model="rag/other",
                    outcome="answered", status=200, request_id=request, groundedness=0.1,
                )
            )  # fmt: skip
        parts.interactions.flush()
        for place in range(len(elsewhere)):
            parts.feedback.add(Statement(f"{request}-{place}", "thumbs", "down"))
    found = adapter_canaries.compare(parts, "support")
    assert (found.judged, found.canary.requests) == (0, 2)


@pytest.mark.parametrize("tenants", [("acme", "other"), ("acme", None)])
def test_two_tenants_may_name_their_requests_alike(
    open_parts: Open, tenants: tuple[str, str | None]
) -> None:
    parts = open_parts(quality="feedback")
    at = datetime.now(UTC)
    for tag, tenant in zip(("live", "canary"), tenants, strict=True):
        parts.interactions.add(
            Interaction(
                f"call-{tag}", "completion", at, "support", "answered", 200, request_id="first",
                upstream="gpu", tag=tag, served=served(parts, tag), tenant=tenant,
            )
        )  # fmt: skip
        parts.interactions.flush()
        parts.feedback.add(Statement(f"call-{tag}", "thumbs", "up"))
    assert adapter_canaries.compare(parts, "support").judged == 1


@pytest.mark.parametrize(
    "how",
    [
        {"served": "support@0123456789abcdef"},  # the version before, while the new one loads
        {"served": None},  # too much to do, or of a release that did not note it
        {"upstream": "spare"},  # of a fallback
        {"terms": "pinned"},  # of a suite
    ],
)
def test_calls_that_the_compared_version_was_not_drawn_for_say_nothing(
    open_parts: Open, how: dict[str, Any]
) -> None:
    parts = open_parts()
    for tag in ("live", "canary"):
        record(parts, tag, statuses=[200, 502] * 40, **how)
    found = adapter_canaries.compare(parts, "support")
    assert (found.live.requests, found.canary.requests, found.decision) == (0, 0, "wait")


@pytest.mark.parametrize(
    ("status", "terms", "requests"),
    [(504, "hurried", 0), (503, None, 0), (504, None, 40), (502, "hurried", 40)],
)
def test_a_call_with_too_little_time_or_no_place_is_no_failure(
    open_parts: Open, status: int, terms: str | None, requests: int
) -> None:
    parts = open_parts()
    record(parts, "canary", statuses=[status] * 40, terms=terms)
    found = adapter_canaries.compare(parts, "support")
    assert found.canary.requests == requests
    assert found.decision == ("roll_back" if requests else "wait")


def test_only_what_was_asked_since_the_aliases_moved_counts(open_parts: Open) -> None:
    parts = open_parts()
    record(parts, "canary", statuses=[502] * 40)
    parts.artifacts.tag(f"{NAME}@v1", "candidate")
    with pytest.raises(InvalidRequest, match="the same version"):
        adapter_canaries.compare(parts, "support")
    parts.artifacts.tag(f"{NAME}@v2", "candidate")
    assert adapter_canaries.compare(parts, "support").canary.requests == 0


def test_an_alias_that_moved_meanwhile_is_left(
    open_parts: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = open_parts()
    record(parts, "canary", statuses=[502] * 40)
    keep = alias_moves.keep

    def slowly(*arguments: Any) -> str:
        parts.artifacts.untag(NAME, "production")
        return keep(*arguments)

    monkeypatch.setattr(alias_moves, "keep", slowly)
    with pytest.raises(Conflict, match="compare again"):
        adapter_canaries.decide(parts, "support")
    assert digests(parts) == {"production": None, "candidate": f"{NAME}@v2"}


def test_nothing_moves_where_the_settings_do_not_allow_it(open_parts: Open) -> None:
    parts = open_parts(roll_back=False)
    record(parts, "canary", statuses=[502] * 40)
    found = adapter_canaries.decide(parts, "support")
    assert (found.decision, found.done, found.evidence) == ("roll_back", None, None)


def test_the_command_and_the_job_decide(open_parts: Open, tmp_path: Path) -> None:
    parts = open_parts()
    record(parts, "canary", statuses=[200] * 60)
    (tmp_path / "ragstone.toml").write_text(
        "[gateway.upstreams.gpu]\nurls = ['http://127.0.0.1:9']\n"
        "[gateway.routes.support]\ntargets = [\n"
        f"  {{upstream = 'gpu', adapter = '{NAME}@production'}},\n"
        f"  {{upstream = 'gpu', adapter = '{NAME}@candidate', tag = 'canary'}},\n]\n"
        "[gateway.canaries.support]\nmin_requests = 40\nmax_failures = 0.1\n"
    )
    said = CliRunner().invoke(app, ["adapters", "compare", "support"])
    assert said.exit_code == 0, said.output
    assert said.stdout.splitlines()[-1] == "promote: 60 did not fail"
    told = json.loads(CliRunner().invoke(app, ["adapters", "compare", "support", "--json"]).stdout)
    assert told["canary"]["requests"] == 60
    job = kinds.registry(parts).get(comparing.COMPARE)
    (found,) = job.function(None)
    assert (found["route"], found["done"]) == ("support", "promoted")
    assert digests(parts) == {"production": f"{NAME}@v2", "candidate": None}


def test_what_cannot_be_stored_of_one_keeps_no_other_from_being_decided(
    open_parts: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = open_parts("billing")
    for route in ("support", "billing"):
        record(parts, "canary", statuses=[200] * 60, route=route)
    keep = alias_moves.keep

    def full(store: Any, name: str, *more: Any) -> str:
        if name == "support":
            raise StorageFailed("The disk is full")
        return keep(store, name, *more)

    monkeypatch.setattr(alias_moves, "keep", full)
    with pytest.raises(StorageFailed, match="Not compared: support: The disk is full"):
        adapter_canaries.decide_all(parts)
    assert digests(parts)["production"] == f"{NAME}@v1"
    assert str(parts.artifacts.find("adapter/billing@production")) == "adapter/billing@v2"


def test_a_promotion_that_breaks_off_moves_neither_alias(open_parts: Open) -> None:
    parts = open_parts()
    record(parts, "canary", statuses=[200] * 60)
    with parts.database.write() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER breaks BEFORE UPDATE ON alias WHEN NEW.alias = 'candidate' "
            "BEGIN SELECT RAISE(ABORT, 'it breaks'); END"
        )
    with pytest.raises(IntegrityError, match="it breaks"):
        adapter_canaries.decide(parts, "support")
    assert digests(parts) == {"production": f"{NAME}@v1", "candidate": f"{NAME}@v2"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"routes": {"other": {"targets": TARGETS}}}, "there is no such route"),
        ({"routes": {"support": {"targets": TARGETS[:1]}}}, "has the tag 'canary'"),
        ({"routes": {"support": {"targets": [TARGETS[0], PINNED]}}}, "by its alias"),
        ({"routes": {"support": {"targets": [TARGETS[0], NEWEST]}}}, "by its alias"),
        ({"routes": {"support": {"targets": [TARGETS[0], DIGEST]}}}, "by its alias"),
        (
            {"routes": {"support": {"targets": [TARGETS[0], TWICE]}}},
            "two aliases of one adapter",
        ),
    ],
)  # fmt: skip
def test_canaries_that_compare_nothing_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfiguration, match=words):
        check(Gateway.model_validate({**gateway(), **change}))
