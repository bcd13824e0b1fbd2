"""Self-consistency: the middle of several samples, and what becomes of those that say nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from evals.judges.asking import JudgeRefused, Unusable
from evals.judges.samples import Samples, majority, middle, take
from infra.errors import EngineFailed, RagstoneError


def taken(outcomes: Sequence[int | RagstoneError], seed: int = 7) -> Samples[int]:
    async def sample(at: int) -> int:
        outcome = outcomes[at - seed]
        await asyncio.sleep(0.001 * (len(outcomes) - at + seed))  # the last is ready first
        if isinstance(outcome, RagstoneError):
            raise outcome
        return outcome

    return asyncio.run(take(len(outcomes), seed, sample))


def test_samples_stand_in_the_order_of_their_seeds() -> None:
    found = taken([5, 1, 4])
    assert found.values == (5, 1, 4)
    assert found.lacking() is None


def test_answers_that_cannot_be_used_are_left_out_while_most_can() -> None:
    found = taken([5, Unusable("prose"), 4])
    assert (found.values, found.unusable, found.count) == ((5, 4), ("prose",), 3)
    assert found.lacking() is None


def test_half_is_not_most() -> None:
    lacking = taken([5, Unusable("the judge answered 'prose'")]).lacking()
    assert lacking is not None
    assert lacking.state == "error"
    assert lacking.reason == ("1 of 2 answers of the judge can be used; the judge answered 'prose'")


def test_judge_that_only_refuses_has_refused() -> None:
    lacking = taken([JudgeRefused("no"), JudgeRefused("no")]).lacking()
    assert lacking is not None
    assert lacking.state == "refused"


def test_server_that_is_down_is_no_part_of_a_score() -> None:
    with pytest.raises(EngineFailed, match="down"):
        taken([5, 5, 5, 5, EngineFailed("down")])


@pytest.mark.parametrize(
    ("values", "wanted"), [([3], 3), ([1, 5], 1), ([5, 1, 4], 4), ([1, 1, 2, 5], 1)]
)
def test_middle_is_a_level_that_was_given(values: list[int], wanted: int) -> None:
    assert middle(values) == wanted


def test_majority_needs_one_ahead_of_all() -> None:
    assert majority(["output", "output", "other"], otherwise="tie") == "output"
    assert majority(["other"], otherwise="tie") == "other"
    assert majority(["output", "other", "tie"], otherwise="tie") == "tie"
