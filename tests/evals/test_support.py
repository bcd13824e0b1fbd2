"""Support and faithfulness: what passages carry counts, what they do not is named."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from evals.context import Context
from evals.metric import Metric, open_metric
from evals.scores import Score
from evals.support import overlap, supported
from evals.trial import Case, Output
from infra.contracts import Passage

TEXT = (
    "The Forth Bridge is 2467 metres long. It was opened in 1890. Queen Victoria never crossed it."
)
NOISE = "Otters sleep afloat. They hold each other by the paw."


def support(claim: str, *texts: str) -> float:
    return supported([claim], texts or (TEXT,), None)[0].support


def faithfulness(text: str, *texts: str, **parameters: Any) -> Score:
    passages = tuple(
        Passage(n, "file-a", 1, "c", "file:///a.md", "", 0, len(each), each, 0.9)
        for n, each in enumerate(texts)
    )
    metric = cast("Metric", open_metric("faithfulness", parameters))
    return asyncio.run(metric.score(Case("1", "?"), Output(text, passages=passages), Context()))


def test_sentence_that_is_copied_is_carried_whole() -> None:
    assert support("The Forth Bridge is 2467 metres long.") == 1
    assert support("The Forth Bridge was opened in 1890.") == 1  # words of two neighbours


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("The Forth Bridge is 2467 metres long.", "The Forth Bridge is 2476 metres long."),
        ("Queen Victoria never crossed it.", "Queen Victoria crossed it."),
        ("The Forth Bridge is long.", "The Tay Bridge is long."),
    ],
)
def test_changed_number_name_or_denial_costs_support(right: str, wrong: str) -> None:
    assert support(wrong) < support(right)


def test_claim_in_an_unspaced_script_is_carried_by_its_characters() -> None:
    text, other = "福斯桥全长2467米。它于1890年通车。", "海獭睡在水面上。"
    for carried in (support, lambda claim, *texts: overlap(claim, texts)):
        assert carried("福斯桥长2467米。", text) == 1
        assert carried("福斯桥长2467米。", other) < 0.2


def test_more_passages_never_take_support_away_and_their_order_makes_no_difference() -> None:
    claim = "The Forth Bridge is 2467 metres long."
    assert support(claim, TEXT, NOISE) == support(claim, NOISE, TEXT) == support(claim)
    assert support("Otters sleep afloat.", *[TEXT] * 50) == support("Otters sleep afloat.")


def test_faithfulness_names_the_sentences_that_nothing_carries() -> None:
    answer = "The Forth Bridge is 2467 metres long. [1] Penguins paint it every spring. [2]"
    found = faithfulness(answer, TEXT, NOISE)
    assert found.value == pytest.approx(0.5)
    assert found.details["not carried"] == ["Penguins paint it every spring."]


def test_claim_at_the_end_of_a_long_answer_is_looked_at() -> None:
    answer = "It was opened in 1890. " * 200 + "Penguins paint it every spring."
    found = faithfulness(answer, TEXT)
    assert found.details["not carried"] == ["Penguins paint it every spring."]


def test_evidence_at_the_end_of_a_long_passage_is_found() -> None:
    assert faithfulness("It was opened in 1890.", NOISE * 300 + TEXT).value == 1


def test_answer_beside_which_nothing_was_found_is_unscored() -> None:
    assert faithfulness("It was opened in 1890.").state == "unscored"
    assert faithfulness("[1]", TEXT).state == "unscored"
