from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from infra.errors import InvalidRequest
from monitoring.comparison import Plan, compare
from monitoring.text_features import fit_domain, languages, window_of

CENTRES = np.random.default_rng(99).normal(size=(6, 24)) * 2


def unit(rows: Any) -> Any:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def vectors(seed: int, rows: int, topics: int = 5) -> Any:
    rng = np.random.default_rng(seed)
    return unit(CENTRES[rng.integers(topics, size=rows)] + rng.normal(size=(rows, 24)) * 0.5)


def test_topics_share_and_distance_stay_where_the_questions_do() -> None:
    reference = vectors(0, 3_000)
    domain = fit_domain(reference, topics=5)
    before = window_of(domain=domain, vectors=reference[domain.held_out])
    same = compare(before, window_of(domain=domain, vectors=vectors(1, 600)))
    assert same.verdict == "stable"
    assert {each.feature for each in same.findings} == {
        "topic",
        "distance",
        "out_of_domain",
        "vector",
    }


def test_a_topic_that_nobody_asked_about_is_out_of_domain() -> None:
    reference = vectors(0, 3_000)
    domain = fit_domain(reference, topics=5)
    before = window_of(domain=domain, vectors=reference[domain.held_out], prefix="question_")
    strange = np.concatenate([vectors(1, 400), unit(CENTRES[[5] * 100] + 0.1)])
    report = compare(before, window_of(domain=domain, vectors=strange, prefix="question_"))
    found = {each.feature: each.finding for each in report.findings}
    assert found["question_out_of_domain"].verdict == "drift"
    assert found["question_distance"].verdict == "drift"
    assert "'true' is 2" in found["question_out_of_domain"].explanation


def test_rows_that_topics_were_fitted_to_are_not_what_a_window_is_compared_with() -> None:
    """With few rows for each topic, those rows lie nearer to the centres than new ones do."""
    rng = np.random.default_rng(2)
    reference = rng.normal(size=(400, 64))
    domain = fit_domain(reference, topics=40)
    fitted = np.setdiff1d(np.arange(400), domain.held_out)
    _, near = domain.topics_of(reference[fitted])
    _, fair = domain.topics_of(reference[domain.held_out])
    _, new = domain.topics_of(rng.normal(size=(200, 64)))
    assert near.mean() < new.mean() - 0.2
    assert fair.mean() == pytest.approx(new.mean(), abs=0.15)


def test_length_language_and_search_score_are_features() -> None:
    pytest.importorskip("py3langid")
    english = ["How many days of paid leave does an employee have in a year?"] * 300
    german = ["Wie viele bezahlte Urlaubstage hat ein Angestellter im Jahr denn so?"] * 300
    reference = vectors(0, 600)
    domain = fit_domain(reference, topics=5)
    rng = np.random.default_rng(3)
    before = window_of(
        domain=domain,
        vectors=reference[domain.held_out],
        texts=english,
        scores=rng.normal(loc=0.7, scale=0.1, size=300),
    )
    now = window_of(
        domain=domain,
        vectors=vectors(1, 300),
        texts=[*english[:150], *german[:150]],
        scores=rng.normal(loc=0.6, scale=0.1, size=300),
    )
    drifted = {each.feature for each in compare(before, now, Plan(leave_out=["vector"])).drifted}
    assert {"language", "length", "retrieval_score"} <= drifted
    assert languages(["", "  42", english[0]]) == [None, None, "en"]


def test_vectors_of_another_model_are_refused_with_what_to_do() -> None:
    domain = fit_domain(vectors(0, 300), topics=5)
    with pytest.raises(InvalidRequest, match="not of dimension 24; embed them"):
        domain.topics_of(np.zeros((10, 384)))
    with pytest.raises(InvalidRequest, match="100 vectors"):
        fit_domain(vectors(0, 50), topics=5)
