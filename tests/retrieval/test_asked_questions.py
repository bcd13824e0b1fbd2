"""Recall is measured with what people ask, once they have asked enough."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval.indexes import Change, open_index
from retrieval.indexes._asked import ENOUGH, KEPT, Asked

DIMENSION, DIFFERENT, COPIES = 32, 100, 40
ASKED = 3 * KEPT // 2


def _unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit.astype(np.float32)


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float16]:
    """Few texts, and many near copies of each."""
    chance = np.random.default_rng(1)
    texts = _unit(chance.standard_normal((DIFFERENT, DIMENSION)))
    copies = [texts + chance.standard_normal(texts.shape) / 10 for _ in range(COPIES)]
    return _unit(np.concatenate(copies)).astype(np.float16)


@pytest.fixture(scope="module")
def questions() -> NDArray[np.float32]:
    """Far from all texts, as those of people are; the last 200 are never asked."""
    return _unit(np.random.default_rng(2).standard_normal((ASKED + 200, DIMENSION)))


def _recall(index: Any, vectors: NDArray[np.float16], questions: NDArray[np.float32]) -> float:
    found = 0
    exact = np.argsort(-(questions @ vectors.astype(np.float32).T), axis=1)[:, :10]
    for question, nearest in zip(questions, exact, strict=True):
        found += len(set(nearest.tolist()) & set(index.dense(question, 10).chunk_ids.tolist()))
    return found / exact.size


def _measured(folder: Path) -> dict[str, Any]:
    [piece] = json.loads((folder / "manifest.json").read_text())["pieces"]
    assert isinstance(piece, dict)
    return piece


def _filled(folder: Path, vectors: NDArray[np.float16]) -> Any:
    index = open_index("local", folder, dimension=DIMENSION, type="ivf")
    index.apply([Change(n + 1, n, n, "wall", "", row) for n, row in enumerate(vectors)])
    index.checkpoint()
    return index


def test_among_near_copies_the_effort_follows_what_is_asked(
    tmp_path: Path,
    vectors: NDArray[np.float16],
    questions: NDArray[np.float32],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    index = _filled(tmp_path, vectors)
    before = _measured(tmp_path)
    assert "raised" not in caplog.text
    assert (before["recall"] >= 0.97, before["questions_asked"]) == (True, 0)
    others = questions[ASKED:]
    other = open_index("local", tmp_path, dimension=DIMENSION)
    assert _recall(other, vectors, others) < 0.9
    other.close()
    for question in questions[: ENOUGH - 1]:
        index.dense(question, 10)
    assert not index.is_due()
    index.dense(questions[ENOUGH], 10)
    assert index.is_due()
    index.checkpoint()
    assert not index.is_due()
    after = _measured(tmp_path)
    assert (after["recall"] >= 0.97, after["questions_asked"]) == (True, ENOUGH)
    assert after["refine"] > before["refine"]
    raised = f"effort raised from {before['effort']} to {after['effort']}"
    assert f"{raised}, refine from {before['refine']} to {after['refine']}" in caplog.text
    assert after["effort"] < DIFFERENT // 2, "not all lists, when scores are what was missing"
    for question in questions[:ASKED]:
        index.dense(question, 10)
    index.checkpoint()
    assert _measured(tmp_path)["questions_asked"] == KEPT
    assert not index.is_due()
    index.close()
    again = open_index("local", tmp_path, dimension=DIMENSION, type="ivf")
    assert not again.is_due(), "what was measured is known after a restart"
    assert _recall(again, vectors, others) > 0.95
    again.close()


def test_a_question_that_is_asked_all_the_time_counts_once(
    tmp_path: Path, vectors: NDArray[np.float16], questions: NDArray[np.float32]
) -> None:
    index = _filled(tmp_path, vectors)
    for _ in range(2 * ENOUGH):
        index.dense(questions[0], 10)
    assert not index.is_due()
    index.close()


def test_the_last_questions_are_kept_and_no_more(questions: NDArray[np.float32]) -> None:
    asked = Asked()
    for number, question in enumerate(questions[:ASKED], start=1):
        asked.note(question)
        assert len(asked) == min(number, KEPT)
        assert (asked.questions() is None) == (number < ENOUGH)
    kept = asked.questions()
    assert kept is not None
    np.testing.assert_array_equal(kept, questions[ASKED - KEPT : ASKED])
