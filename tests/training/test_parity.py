"""Two forms of a model are compared by logits, greedy tokens and perplexity, and held to bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from training import parity
from training.parity import Bounds, Logits, Row, Unlike

WORDS = 4


def counting(*, step: int = 1, sure: float = 2.0) -> Logits:
    """A model that is sure, so far, that each token is followed by the one `step` further on."""

    def logits(rows: Sequence[Row]) -> list[NDArray[np.float32]]:
        return [
            np.array(
                [np.eye(WORDS, dtype=np.float32)[(token + step) % WORDS] * sure for token in row]
            )
            for row in rows
        ]

    return logits


def test_the_same_is_the_same() -> None:
    said = parity.ask(counting(), [[0, 1, 2], [3, 0]])
    found = parity.compare(said, said)
    assert (found.rows, found.max_difference, found.same_greedy) == (2, 0.0, 2)
    # Each next token is the likeliest, with a probability of e^2 / (e^2 + 3).
    assert found.perplexity_before == pytest.approx((np.exp(2) + 3) / np.exp(2))
    assert said.greedy[0][:3] == (3, 0, 1)
    assert found.check(Bounds(0.0, 1.0, 1.0), what="It") is found


def test_each_bound_is_told_with_its_numbers() -> None:
    rows = [[0, 1, 2], [3, 0]]
    before, after = (parity.ask(counting(step=each), rows) for each in (1, 2))
    found = parity.compare(before, after)
    with pytest.raises(Unlike) as told:
        found.check(Bounds(1.0, 1.0, 1.05), what="The file")
    words = str(told.value)
    assert "a logit differs by 2, and 1 is the most" in words
    assert "0 of 2 rows are gone on with alike" in words
    assert "perplexity is times" in words
    assert found.check(Bounds(), what="Without bounds it") is found


@pytest.mark.parametrize("sure", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("spoiled", [0, 1])
@pytest.mark.parametrize("bounds", [Bounds(1.0), Bounds()])
def test_a_logit_that_is_no_number_is_beyond_every_bound(
    sure: float, spoiled: int, bounds: Bounds
) -> None:
    before = parity.ask(counting(), [[0, 1, 2], [3, 0]])
    logits = [each.copy() for each in before.logits]
    logits[spoiled][0, 0] = sure
    after = replace(before, logits=tuple(logits))
    with pytest.raises(Unlike, match="a logit is no number"):
        parity.compare(before, after).check(bounds, what="It")
    with pytest.raises(Unlike, match="a logit is no number"):
        parity.compare(after, after).check(bounds, what="It, the model being no better,")


def test_long_rows_and_many_are_cut() -> None:
    said = parity.ask(counting(), [[0] * 500] * 20)
    assert len(said.rows) == parity.ROWS
    assert {len(row) for row in said.rows} == {parity.ROW_TOKENS}
