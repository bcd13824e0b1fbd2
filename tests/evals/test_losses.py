"""Errors of sets for a diagnosis: from files, and from slices of an evaluation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from evals import losses
from evals.scores import Score
from infra.errors import InvalidRequest, NotFound
from reported import evaluation


def test_file_of_errors_is_read_with_its_clusters(tmp_path: Path) -> None:
    path = tmp_path / "errors.jsonl"
    path.write_text(
        '{"error": 1, "cluster": "d1"}\n{"error": 0.5, "cluster": "d1"}\n{"error": 0}\n'
    )
    found = losses.of_file(path)
    assert np.asarray(found.values).tolist() == [1, 0.5, 0]
    clusters = np.asarray(found.clusters).tolist()
    assert clusters[0] == clusters[1] != clusters[2]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"eror": 1}', "line 1: no column 'error'; did you mean 'eror'"),
        ('{"error": "much"}', "line 1: 'error' is 'much', which is no number"),
        ('{"error": null}', "line 1: 'error' is None"),
    ],
)
def test_row_without_an_error_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "errors.jsonl"
    path.write_text(line)
    with pytest.raises(InvalidRequest, match=told):
        losses.of_file(path)


def test_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("")
    with pytest.raises(NotFound, match=r"train\.jsonl"):
        losses.of_file(tmp_path / "trian.jsonl")


def test_error_of_a_slice_is_how_far_its_cases_are_from_the_best_score() -> None:
    done = evaluation(200)
    found = losses.of_slice(done, "token_f1", "part1")
    scores = {
        trial.case.id: trial.scores["token_f1"].value or 0.0 for trial in done.members("part1")
    }
    assert sorted(np.asarray(found.values)) == pytest.approx(
        sorted(1 - value for value in scores.values())
    )
    assert np.asarray(losses.of_slice(done, "latency", "all").values).size == 200


def test_slice_of_which_too_little_is_scored_has_no_error() -> None:
    done = evaluation(40)
    trials = [
        replace(trial, scores={**trial.scores, "contains": Score.error("down")})
        for trial in done.trials[:8]
    ]
    broken = replace(done, trials=(*trials, *done.trials[8:]))
    with pytest.raises(InvalidRequest, match=r"80\.0% of the scores of 'contains'"):
        losses.of_slice(broken, "contains", "all")


@pytest.mark.parametrize(
    ("metric", "part", "told"),
    [("contians", "all", "metric 'contians'"), ("contains", "part9", "slice 'part9'")],
)
def test_unknown_metric_or_slice_is_named(metric: str, part: str, told: str) -> None:
    with pytest.raises(NotFound, match=told):
        losses.of_slice(evaluation(8), metric, part)
