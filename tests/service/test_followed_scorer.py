"""A groundedness model that is an artifact is changed while the service runs, or left as it is."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from infra.contracts import Answer, Passage, Usage
from monitoring.groundedness_metrics import GroundednessMetrics
from monitoring.grounding.model import STORED, as_json, shipped
from service.followed_scorer import FollowedScorer
from service.grounding import Grounding
from service.rerankers import FOLLOWED_SECONDS, REFUSED_SECONDS
from service.wiring import Components

NAMED = "model/groundedness@production"
TEXT = "Full-time employees have 27 days of paid leave a year."


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def parts(fast_settings: Any, open_components: Any) -> Components:
    option = {"detector_options": {"model": NAMED}}
    opened: Components = open_components(fast_settings(groundedness=option))
    return opened


def put(parts: Components, folder: Path, **changes: Any) -> None:
    """Store a model, and have the alias mean it."""
    (folder / STORED).write_text(json.dumps(as_json(shipped()) | changes))
    reference = parts.artifacts.put(folder / STORED, "model/groundedness")
    parts.artifacts.tag(str(reference), "production")


def answer() -> Answer:
    passage = Passage(1, "file-a", 1, "c", "a", "", 0, len(TEXT), TEXT, 0.5)
    return Answer("answer-1", "?", "c", TEXT, True, None, (), (passage,), "e", Usage())


def test_an_alias_that_moves_is_followed_while_answers_are_scored(
    parts: Components, tmp_path: Path
) -> None:
    put(parts, tmp_path, name="first")
    clock = Clock()
    scorer = FollowedScorer(parts, parts.settings.groundedness, clock=clock)
    assert scorer.score(answer()).detector == "first"
    put(parts, tmp_path, name="second")
    scorer.follow()
    assert scorer.score(answer()).detector == "first", "it is not looked up for every answer"
    clock.now += FOLLOWED_SECONDS
    scorer.follow()
    assert scorer.score(answer()).detector == "second"


def test_an_alias_that_leads_to_no_model_leaves_the_one_before(
    parts: Components, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(parts, tmp_path, name="first")
    clock = Clock()
    scorer = FollowedScorer(parts, parts.settings.groundedness, clock=clock)
    put(parts, tmp_path, format=99)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            clock.now += FOLLOWED_SECONDS
            scorer.follow()
    assert scorer.score(answer()).detector == "first"
    assert len(caplog.records) == 1, "what was refused is not tried again at once"
    assert "is kept" in caplog.text
    clock.now += REFUSED_SECONDS
    scorer.follow()
    assert len(caplog.records) == 2
    put(parts, tmp_path, name="third")
    clock.now += FOLLOWED_SECONDS
    scorer.follow()
    assert scorer.score(answer()).detector == "third"


def test_answers_have_it_followed_beside_them(parts: Components, tmp_path: Path) -> None:
    put(parts, tmp_path, name="first")
    clock = Clock()
    scorer = FollowedScorer(parts, parts.settings.groundedness, clock=clock)
    grounding = Grounding(scorer.score, GroundednessMetrics(CollectorRegistry()), followed=scorer)
    put(parts, tmp_path, name="second")

    def told() -> str | None:
        scored = asyncio.run(grounding.within(answer()))
        assert scored.groundedness is not None
        return scored.groundedness.detector

    assert told() == "first"
    clock.now += FOLLOWED_SECONDS
    assert told() == "first", "no answer waits for it"
    grounding.close()
    assert scorer.score(answer()).detector == "second"
