"""Laws that every metric in the folder obeys."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals import scoring
from evals.context import Context
from evals.metric import Metric, SetMetric, is_of_set, open_metric
from evals.scores import Score
from evals.trial import Case, Output, Trial
from infra.contracts import Citation, Passage, Usage
from infra.errors import InvalidRequest
from infra.plugins import available
from retrieval.embedders import open_embedder

EVERY = available("evals.metrics")
OF_A_MODEL = {"toxicity"}
"""They have no default model, and files of tests of their own."""
OF_SETS = [name for name in EVERY if name not in OF_A_MODEL and is_of_set(open_metric(name, {}))]
JUDGED = [name for name in EVERY if name.startswith(("ragas_", "judge_"))]
"""They need a judge, and files of tests of their own."""
NAMES = [name for name in EVERY if name not in {*OF_SETS, *JUDGED, *OF_A_MODEL}]
WITHOUT_REFERENCE = {
    *("citation_precision", "citation_recall", "cost", "faithfulness", "latency"),
    *("context_relevance", "refusal", "tokens"),
}
"""Metrics of the output alone."""
TEXT = "The bridge is 48 metres long. It was opened in 1890."
PASSAGE = Passage(7, "file-a", 1, "c", "file:///docs/bridge.md", "Bridge", 100, 152, TEXT, 0.9)
CITATION = Citation("file-a", 1, PASSAGE.source, "Bridge", 100, 129, TEXT[:29], 0, 29, support=0.8)
GOOD = Output(
    "The bridge is 48 metres long. [1]",
    citations=(CITATION,),
    passages=(PASSAGE,),
    usage=Usage(120, 9),
    cost=0.001,
    latency_seconds=0.4,
)
CASE = Case(
    "1",
    "How long is the bridge?",
    TEXT[:29],
    relevant={"bridge.md": 1.0},
    metadata={"canary": "PWNED-4711"},
)
BARE = Case("2", "How long is the bridge?")
REFUSAL = Output("The documents do not say.", answerable=False, usage=Usage(9, 5))
EMPTY = Output("")
FROM_GOOD = {"latency": 0.4, "cost": 0.001, "tokens": 129.0, "retrieval_precision": 0.1}
"""What GOOD took, since nothing takes nothing; and one passage is one of ten that are looked at."""
OF_REFUSALS = {
    *("abstention", "chrf", "contains", "exact_match", "refusal", "regex", "rouge"),
    *("semantic_similarity", "token_f1"),
}
"""Metrics that say of a refusal whether it is right; the others have nothing to say of it."""
PREDICTING = {
    **dict.fromkeys(("accuracy", "brier", "log_loss"), ("spam", {"spam": 1.0, "ham": 0.0})),
    "mae": (2.5, 2.5),
}
"""Metrics of classical models, with a reference and the best prediction."""
EMBEDDER = open_embedder("hashing")
CONTEXT = Context(embed=lambda texts: EMBEDDER.embed(texts, kind="document"))
HOSTILE = ("", " ", "\x00", "\udc80", "[1]" * 2_000, "a" * 50_000, ". " * 20_000, "？！。" * 3_000)


def opened(name: str) -> Metric:
    return cast("Metric", open_metric(name, {}))


def score(metric: Metric, case: Case, output: Output) -> Score:
    return asyncio.run(metric.score(case, output, CONTEXT))


@pytest.fixture(params=NAMES)
def metric(request: pytest.FixtureRequest) -> Metric:
    return opened(request.param)


def name_of(metric: Metric | SetMetric) -> str:
    return type(metric).__module__.rpartition(".")[2]


def good(metric: Metric) -> tuple[Case, Output]:
    if name_of(metric) == "refusal":
        return CASE, REFUSAL
    if name_of(metric) == "context_relevance":
        return replace(CASE, input=TEXT), replace(GOOD, passages=(replace(PASSAGE, text=TEXT),))
    if name_of(metric) not in PREDICTING:
        return CASE, GOOD
    expected, prediction = PREDICTING[name_of(metric)]
    return replace(CASE, expected=expected), replace(GOOD, prediction=prediction)


def within(metric: Metric, found: Score) -> bool:
    low, high = metric.bounds
    value = found.value
    return value is None or (
        (low is None or value >= low) and (high is None or value <= high) and value == value
    )


def test_folder_holds_the_metrics_we_ship() -> None:
    assert set(NAMES) >= {
        *("exact_match", "token_f1", "contains", "regex", "abstention"),
        *("citation_precision", "citation_recall", "latency", "tokens", "cost"),
        *(f"retrieval_{name}" for name in ("precision", "recall", "ndcg", "mrr")),
    }
    assert len(NAMES) >= 24
    assert len(JUDGED) >= 9
    assert set(OF_SETS) >= {
        *("auroc", "calibration_error", "demographic_parity", "equalised_odds"),
        *("aurc", "macro_f1", "r2", "rmse"),
    }


def test_good_answer_scores_the_best_there_is(metric: Metric) -> None:
    found = score(metric, *good(metric))
    assert found.state == "scored", found
    assert found.value is not None
    assert isinstance(metric.version, int)
    best = metric.bounds[1] if metric.higher_is_better else metric.bounds[0]
    assert found.value == pytest.approx(FROM_GOOD.get(name_of(metric), best))


def test_case_without_a_reference_is_unscored_and_not_zero(metric: Metric) -> None:
    found = score(metric, BARE, GOOD)
    if name_of(metric) in WITHOUT_REFERENCE:
        assert found.state == "scored"
    else:
        assert found.state == "unscored"
        assert found.reason


@pytest.mark.parametrize("output", [EMPTY, REFUSAL], ids=["empty", "refusal"])
@pytest.mark.parametrize("case", [CASE, BARE], ids=["case", "bare"])
def test_empty_answer_and_refusal_have_a_score_or_a_reason(
    metric: Metric, case: Case, output: Output
) -> None:
    found = score(metric, case, output)
    assert found.state in {"scored", "unscored"}
    assert within(metric, found)
    assert found.value is not None or found.reason


def test_correct_refusal_is_never_held_against_the_target(metric: Metric) -> None:
    found = score(metric, replace(BARE, answerable=False), REFUSAL)
    if name_of(metric) in OF_REFUSALS:
        assert found.value == metric.bounds[1]
    elif metric.higher_is_better:
        assert found.state == "unscored"


def test_same_scores_the_same_in_any_order(metric: Metric) -> None:
    pairs = [(CASE, GOOD), (BARE, EMPTY), (CASE, REFUSAL), (CASE, EMPTY)]
    forward = [score(metric, *pair) for pair in pairs]
    backward = [score(metric, *pair) for pair in reversed(pairs)]
    assert forward == backward[::-1]
    fresh = opened(name_of(metric))
    assert [score(fresh, *pair) for pair in pairs] == forward


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_scored_in_good_time(metric: Metric, text: str) -> None:
    cited = replace(CITATION, answer_end=len(text))
    output = replace(GOOD, text=text, citations=(cited,))
    for case in (CASE, Case("3", text, text), Case("4", text, [text, ""], answerable=True)):
        assert within(metric, score(metric, case, output))


@given(
    expected=st.none() | st.text(max_size=30) | st.lists(st.text(max_size=9), max_size=3),
    text=st.text(max_size=60),
    answerable=st.none() | st.booleans(),
    prediction=st.none() | st.floats() | st.text(max_size=5) | st.booleans(),
)
@settings(max_examples=60)
def test_whatever_comes_the_score_is_within_the_bounds(
    expected: Any, text: str, answerable: bool | None, prediction: Any
) -> None:
    output = replace(GOOD, text=text, prediction=prediction)
    for name in NAMES:
        if name == "regex":  # its references are patterns, which any text need not be
            continue
        metric = opened(name)
        found = score(metric, Case("1", "?", expected, answerable), output)
        assert within(metric, found), (name, found)


def test_unknown_parameter_is_refused_with_the_ones_there_are(metric: Metric) -> None:
    with pytest.raises(InvalidRequest, match="unknown key 'nosuch'"):
        open_metric(name_of(metric), {"nosuch": 1})


@pytest.mark.parametrize(
    ("name", "parameters", "near"),
    [("contains", {"ignore_cas": True}, "ignore_case"), ("retrieval_ndcg", {"kk": 3}, "k")],
)
def test_near_parameter_is_suggested(name: str, parameters: Mapping[str, Any], near: str) -> None:
    with pytest.raises(InvalidRequest, match=f"'{near}'|there are {near}"):
        open_metric(name, parameters)


def trials(outputs: Sequence[Output]) -> list[Trial]:
    labels = ("ham", "spam")
    return [
        Trial(
            Case(
                str(number), {"x": number}, labels[number % 2], metadata={"group": number // 2 % 2}
            ),
            0,
            output,
        )
        for number, output in enumerate(outputs)
    ]


def numeric(count: int) -> list[Trial]:
    return [
        Trial(Case(str(number), {"x": number}, number / 2), 0, Output(prediction=number % 7))
        for number in range(count)
    ]


def classified(count: int) -> list[Trial]:
    sides = [{"spam": 0.8, "ham": 0.2}, {"spam": 0.1, "ham": 0.9}, {"spam": 0.4, "ham": 0.6}]
    return trials([Output(prediction=sides[number % 3]) for number in range(count)])


@pytest.fixture(params=OF_SETS)
def of_set(request: pytest.FixtureRequest) -> SetMetric:
    return cast("SetMetric", open_metric(request.param, {}))


def test_set_without_predictions_is_unscored_and_not_zero(of_set: SetMetric) -> None:
    for found in (scoring.of_set(of_set, []), scoring.of_set(of_set, trials([EMPTY] * 4))):
        assert found.state == "unscored"
        assert found.reason


def test_trial_that_takes_no_part_changes_nothing_in_the_set(of_set: SetMetric) -> None:
    some = numeric(30) if name_of(of_set) in {"r2", "rmse"} else classified(30)
    bare = replace(some[0], case=replace(some[0].case, expected=None))
    silent = replace(some[1], output=EMPTY)
    whole = scoring.of_set(of_set, some)
    assert whole.state == "scored"
    assert scoring.of_set(of_set, [bare, *some, silent]) == whole
    states = [scoring.membership(of_set, each).state for each in (bare, *some, silent)]
    assert states == ["unscored", *["scored"] * 30, "unscored"]


def test_set_scores_the_same_in_any_order_and_within_the_bounds(of_set: SetMetric) -> None:
    some = numeric(30) if name_of(of_set) in {"r2", "rmse"} else classified(30)
    found = of_set.score_set(some)
    assert found.state == "scored"
    assert found.value is not None
    low, high = of_set.bounds
    assert low is None or found.value >= low
    assert high is None or found.value <= high
    again = of_set.score_set(some[::-1]).value
    assert again == pytest.approx(found.value)
