"""Recorded calls are paired with their own copies only, and count only where both can be told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from evals import check
from evals.check import Finding, Subject
from evals.checks import _pairs
from evals.checks._pairs import Pair
from evals.gates import Verdict
from infra.contracts import Interaction
from infra.errors import NotFound
from scripted_evals import Scripted, carry_out, make_plan, right

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def call(tag: str, request: str, **changes: Any) -> Interaction:
    held = Interaction(
        id=f"{tag}-{request}",
        kind="completion",
        at=NOW,
        model="support",
        outcome="answered",
        status=200,
        request_id=request,
        tag=tag,
        content={"answer": f"It is {request}."},
    )
    return replace(held, **changes)


def both(request: str, **changes: Any) -> list[Interaction]:
    return [call("shadow", request, **changes), call("live", request, **changes)]


def paired(items: list[Interaction], *, most: int = 9) -> list[Pair]:
    return _pairs.of_interactions(items, live="live", candidate="shadow", most=most)


def shadow(folder: Path, items: list[Interaction], **more: Any) -> Finding:
    with_ = {"model": "support", "agreement": 0.5, **more}
    plan = make_plan(folder, Scripted(right), checks=[{"check": "shadow", "with": with_}])

    def none(name: str) -> Any:
        raise NotFound("evaluation", name)

    def of_model(model: str, since: datetime | None) -> list[Interaction]:
        return [each for each in items if since is None or each.at >= since]

    about = Subject(carry_out(plan, folder), folder, NOW, none, none, find_interactions=of_model)
    return check.carry_out(about)[0]


def test_same_id_of_two_callers_is_of_two_requests() -> None:
    items = [
        call("shadow", "1", key_id="a", tenant="x"),
        call("live", "1", key_id="b", tenant="x"),
        call("live", "1", key_id="a", tenant="y"),
    ]
    assert paired(items) == []
    found = paired([*both("1", key_id="a"), *both("1", key_id="b")])
    assert [(each.id, each.cluster) for each in found] == [("a 1", "a"), ("b 1", "b")]


@pytest.mark.parametrize("tag", ["live", "shadow"])
def test_id_that_a_caller_gave_again_pairs_nothing(tag: str) -> None:
    again = call(tag, "1", id="again", content={"answer": "Another matter."})
    for items in ([again, *both("1")], [*both("1"), again]):
        assert [each.id for each in paired([*items, *both("2")])] == ["2"]


def test_no_more_pairs_are_made_than_are_wanted() -> None:
    items = [each for number in range(5) for each in both(str(number))]
    assert [each.id for each in paired(items, most=3)] == ["0", "1", "2"]


@pytest.mark.parametrize("tag", ["live", "shadow"])
def test_call_whose_caller_left_says_nothing_of_a_target(tag: str) -> None:
    left = [replace(each, outcome="cancelled") if each.tag == tag else each for each in both("1")]
    assert [each.id for each in paired([*left, *both("2")])] == ["2"]


@pytest.mark.parametrize(
    "changes",
    [{"outcome": "failed"}, {"content": {"answer": ""}}, {"content": None}],
    ids=["failed", "empty", "not kept"],
)
def test_what_cannot_be_compared_is_no_agreement(tmp_path: Path, changes: Any) -> None:
    good = [each for number in range(40) for each in both(str(number))]
    assert shadow(tmp_path, good).verdict is Verdict.PASS
    bad = [each for number in range(40, 60) for each in both(str(number), **changes)]
    found = shadow(tmp_path, [*good, *bad])
    assert (found.verdict, "66.7% of 60 cases" in found.reason) == (Verdict.INFRASTRUCTURE, True)
    assert ("agree", "40 of 40, 100.0%") in found.evidence


@pytest.mark.parametrize("since", ["2026-01-02", "2026-01-02T00:00:00", NOW])
def test_calls_from_a_moment_on_are_compared_and_the_moment_is_told(
    tmp_path: Path, since: Any
) -> None:
    earlier = NOW - timedelta(seconds=1)
    unlike = [
        replace(each, at=earlier, content={"answer": each.tag})
        for number in range(60)
        for each in both(f"old {number}")
    ]
    items = [*(each for number in range(40) for each in both(str(number))), *unlike]
    assert shadow(tmp_path, items).verdict is not Verdict.PASS
    found = shadow(tmp_path, items, since=since)
    assert found.verdict is Verdict.PASS
    assert found.evidence[:2] == (
        ("since", "2026-01-02T00:00:00+00:00"),
        ("answered by both", "40"),
    )
