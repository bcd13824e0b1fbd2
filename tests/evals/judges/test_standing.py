"""A judge decides a gate only where its card says, for sure, that it agrees with people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from evals.judges.card import Card
from evals.judges.instrument import Instrument
from evals.judges.rubric import read_shipped
from evals.judges.standing import FindCard, UnprovenJudge, require_standing
from evals.metric import open_metric
from evals.statistics.agreement import cohen
from infra.errors import StorageFailed
from scripted_evals import suite

JUDGE = {"metric": "judge_rubric", "name": "judged", "with": {"model": "m"}}
GATE = {"metric": "judged", "floor": 0.5}
INSTRUMENT = Instrument(read_shipped("correctness"), "m")


def card(wrong: int, *, items: int = 200, planned: int = 200) -> Card:
    """Of a judge that is off by one level in so many labels."""
    people = np.arange(items) % 5 + 1
    judge = people.copy()
    judge[:wrong] = judge[:wrong] % 5 + 1
    found = cohen(people, judge, weights="quadratic", scale=(1, 2, 3, 4, 5))
    return Card(INSTRUMENT, found, "quadratic", planned, "sha256:0", (("1", "1", 9),))


def standing(find: FindCard, **changes: Any) -> list[Card]:
    found = suite(metrics=[JUDGE, "exact_match"], gates=[GATE], **changes)
    metrics = {
        use.name: open_metric(use.metric, use.parameters, label=use.name) for use in found.metrics
    }
    return require_standing(found, metrics, find)


def test_judge_that_agrees_may_decide() -> None:
    asked = []

    def find(instrument: Instrument) -> Card:
        asked.append(instrument.digest)
        return card(10)

    assert standing(find) == [card(10)]
    assert asked == [INSTRUMENT.digest]


def test_judge_without_a_card_may_not_and_the_command_is_told() -> None:
    with pytest.raises(UnprovenJudge) as found:
        standing(lambda _: None)
    said = found.value.message
    assert "Gate 1 of 'numbers' rests on the judge 'm' by the rubric 'correctness'" in said
    assert "nobody has held it against people" in said
    assert "ragstone eval judge agree LABELS --rubric correctness --model m;" in said


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (card(120), "surely only"),
        (card(0, items=99, planned=99), "99 labels; 100 are needed"),
        (card(0, items=190), "rated 95.0% of the labels; 98.0% are needed"),
    ],
)
def test_judge_that_may_not_agree_may_not_decide(found: Card, why: str) -> None:
    with pytest.raises(UnprovenJudge, match=why):
        standing(lambda _: found)


def test_kappa_between_the_bounds_counts_by_the_lower() -> None:
    found = card(60)
    kappa = found.agreement.kappa
    assert kappa.low < kappa.estimate
    between = (kappa.low + kappa.estimate) / 2
    with pytest.raises(UnprovenJudge, match="kappa"):
        standing(lambda _: found, min_kappa=between)
    assert standing(lambda _: found, min_kappa=kappa.low)


def test_gate_that_only_warns_may_rest_on_any_judge() -> None:
    warning = {**GATE, "action": "warn"}
    found = suite(metrics=[JUDGE], gates=[warning])
    metrics = {"judged": open_metric("judge_rubric", {"model": "m"})}
    assert require_standing(found, metrics, lambda _: None) == []


@pytest.mark.parametrize(
    "change", [{"model": "n"}, {"samples": 3}, {"temperature": 0.5}, {"rubric": "groundedness"}]
)
def test_another_judge_needs_another_card(change: dict[str, Any]) -> None:
    changed: Any = open_metric("judge_rubric", {"model": "m", **change})
    assert changed.instrument.digest != INSTRUMENT.digest
    assert changed.instrument.card != INSTRUMENT.card
    assert open_metric("judge_rubric", {"model": "m", "url": "http://a"}).instrument == INSTRUMENT  # type: ignore[union-attr]


def test_card_survives_json_and_a_damaged_one_is_told() -> None:
    whole = card(10)
    assert Card.from_dict(whole.as_dict()) == whole
    for damaged in ({}, {**whole.as_dict(), "format": 9}, {**whole.as_dict(), "agreement": 1}):
        with pytest.raises(StorageFailed, match="card"):
            Card.from_dict(damaged)


AURC = {"metric": "aurc", "with": {"of": "judged"}}
GOLDEN = {"check": "golden", "with": {"metric": "judged", "at_least": 0.5}}
SHADOW = {
    "check": "shadow",
    "with": {"live": "evaluation/numbers@live", "margins": {"judged": 0.1, "exact_match": 0.1}},
}
ON_AURC = {"check": "shadow", "with": {"live": "evaluation/a@live", "margins": {"aurc": 0.1}}}


@pytest.mark.parametrize(
    ("what", "kind", "changes"),
    [
        ("Gate 1", "gate", {"gates": [{"metric": "aurc", "ceiling": 0.5}]}),
        ("Check 'golden'", "check", {"checks": [GOLDEN]}),
        ("Check 'shadow'", "check", {"checks": [SHADOW]}),
        ("Check 'shadow'", "check", {"checks": [ON_AURC]}),
    ],
)
def test_whatever_reads_a_judge_and_blocks_needs_its_card(
    what: str, kind: str, changes: Mapping[str, Any]
) -> None:
    found = suite(metrics=[JUDGE, AURC, "exact_match"], **changes)
    metrics = {use.name: open_metric(use.metric, use.parameters) for use in found.metrics}
    with pytest.raises(UnprovenJudge, match=f"{what} of 'numbers' rests on .*give the {kind} `ac"):
        require_standing(found, metrics, lambda _: None)
    assert require_standing(found, metrics, lambda _: card(10)) == [card(10)]
    ((key, uses),) = changes.items()
    warns = suite(
        metrics=[JUDGE, AURC, "exact_match"], **{key: [{**one, "action": "warn"} for one in uses]}
    )
    assert require_standing(warns, metrics, lambda _: None) == []


def test_checks_that_read_no_judge_need_no_card() -> None:
    on_words = {"check": "golden", "name": "words", "with": {"metric": "exact_match"}}
    recorded = {"check": "shadow", "with": {"model": "judged", "margins": {"seconds": 0.1}}}
    found = suite(metrics=[JUDGE, "exact_match"], checks=[on_words, recorded])
    metrics = {use.name: open_metric(use.metric, use.parameters) for use in found.metrics}
    assert require_standing(found, metrics, lambda _: None) == []


def test_judge_that_is_told_in_other_words_is_another_instrument() -> None:
    other = replace(INSTRUMENT, prompt=INSTRUMENT.prompt + 1)
    assert (other.digest, other.card) != (INSTRUMENT.digest, INSTRUMENT.card)
    kept = replace(card(10), instrument=other)
    assert Card.from_dict(kept.as_dict()).instrument == other
