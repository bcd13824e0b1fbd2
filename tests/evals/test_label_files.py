"""Labels of a file: doubtful ones by a model's probabilities, agreement of annotators."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from evals.label_files import Columns, inspect
from infra.errors import InvalidRequest

LABELS = ("cat", "dog", "owl")


def rows(count: int = 300, wrong: int = 12) -> list[tuple[str, dict[str, Any]]]:
    """Return labelled rows of which every so many is labelled wrongly; the model knows better."""
    rng, found = np.random.default_rng(2), []
    for number in range(count):
        truth = LABELS[number % 3]
        shares = dict.fromkeys(LABELS, 0.04) | {truth: 0.92}
        label = LABELS[(number + 1) % 3] if number % (count // wrong) == 0 else truth
        second = LABELS[rng.integers(3)] if rng.random() < 0.2 else truth
        row = {"id": f"r{number}", "label": label, "probabilities": shares}
        found.append((f"line {number + 1}", {**row, "ann": truth, "bob": second, "eve": None}))
    return found


def test_labels_that_the_model_contradicts_are_found_with_what_is_right() -> None:
    found = inspect(rows(), Columns())
    assert {each.row for each in found.suspects} == {f"r{number}" for number in range(0, 300, 25)}
    first = found.suspects[0]
    assert first.suggested == LABELS[int(first.row[1:]) % 3] != first.label
    assert found.share is not None
    assert found.share.low < 12 / 300 < found.share.high
    assert (found.pairs, found.alpha) == ((), None)


def test_probabilities_may_be_json_in_a_cell() -> None:
    cells = [
        (place, {**row, "probabilities": json.dumps(row["probabilities"])}) for place, row in rows()
    ]
    assert inspect(cells, Columns()) == inspect(rows(), Columns())


def test_agreement_of_annotators_is_that_beyond_chance() -> None:
    found = inspect(rows(), Columns(annotators=("ann", "bob", "eve")))
    (pair, *silent) = found.pairs
    assert (pair.first, pair.second, pair.rows) == ("ann", "bob", 300)
    assert pair.agreement is not None
    same = np.mean([row["ann"] == row["bob"] for _, row in rows()])
    assert pair.agreement.share == pytest.approx(same)
    assert pair.agreement.kappa.estimate == pytest.approx((same - 1 / 3) / (2 / 3), abs=0.01)
    assert [each.agreement for each in silent] == [None, None]
    assert found.alpha == pytest.approx(pair.agreement.kappa.estimate, abs=0.01)


@pytest.mark.parametrize(
    ("change", "columns", "told"),
    [
        ({"probabilities": {"cat": 0.5}}, Columns(), "line 2: the probabilities add up to 0.5"),
        ({"probabilities": "often"}, Columns(), "line 2: the probabilities are 'often'"),
        ({"probabilities": {"cat": "x"}}, Columns(), "line 2: the probabilities are"),
        ({"label": ""}, Columns(), "line 2: no 'label'"),
        ({}, Columns(annotators=("anne", "bob")), "'anne'; did you mean 'ann'"),
        ({}, Columns(probabilities="shares"), "or two annotators"),
    ],
)
def test_what_cannot_be_inspected_is_named(
    change: dict[str, Any], columns: Columns, told: str
) -> None:
    some = rows(30, 3)
    some[1] = (some[1][0], {**some[1][1], **change})
    with pytest.raises(InvalidRequest, match=told):
        inspect(some, columns)


def test_file_without_rows_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no rows"):
        inspect([], Columns())
