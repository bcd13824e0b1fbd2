"""Cases that a model writes through ragas' prompt: checked, repeatable, and no NaN or network."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from evals.testsets import generated
from evals.testsets.generated import Written
from infra.contracts import Passage
from infra.errors import EngineFailed

TEXT = (
    "The Arno bridge number {} was opened in May 1890 by the mayor of the town. Since then the "
    "bridge has carried trains and people across the river every day of the year."
)
PASSAGES = [
    Passage(n, f"file-{n}", 1, "bridges", f"{n}.md", "Bridges", 0, 150, TEXT.format(n), 0.0)
    for n in range(8)
]


class Model:
    """Answers as a test says, and remembers what it was asked."""

    def __init__(self, *answers: str) -> None:
        self.answers = answers
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, prompt: str, schema: Mapping[str, Any], seed: int) -> str:
        assert set(schema["properties"]) == {"query", "answer"}
        self.asked.append((prompt, seed))
        return self.answers[(len(self.asked) - 1) % len(self.answers)]


def answer(said: str) -> str:
    return json.dumps({"query": "When was the bridge opened?", "answer": said})


def propose(
    model: Model, count: int, *, passages: Sequence[Passage] = PASSAGES, seed: int = 0
) -> Written:
    work = generated.propose(passages, count, ask=model, model="writer-1", seed=seed)
    return asyncio.run(work)


GOOD = answer("It was opened in May 1890.")


def test_written_cases_are_grounded_in_their_passage_and_proposed() -> None:
    model = Model(GOOD, f"```json\n{GOOD}\n```")
    written = propose(model, 3)
    assert len(written.rows) == len({row["id"] for row in written.rows}) == 3
    row = written.rows[0]
    assert (row["document"], row["relevant"], row["review_state"]) == ("file-0", "0.md", "proposed")
    assert row["origin"] == "model writer-1"
    assert TEXT.format(0) in model.asked[0][0]


def test_same_seed_asks_the_same_so_that_memory_can_answer() -> None:
    one, other, elsewhere = Model(GOOD), Model(GOOD), Model(GOOD)
    propose(one, 4, seed=2)
    propose(other, 4, seed=2)
    propose(elsewhere, 4, seed=3)
    assert one.asked == other.asked
    assert one.asked != elsewhere.asked


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("Penguins live on large volcanic islands.", "the passage does not carry the answer"),
        ("", "the question or the answer is empty"),
        ("I cannot answer that question.", "the answer is a refusal"),
    ],
)
def test_what_the_passage_does_not_carry_is_no_case_and_is_counted(said: str, why: str) -> None:
    written = propose(Model(answer(said), GOOD), 2)
    assert len(written.rows) == 2
    assert written.left_out[why] >= 1


def test_garbage_now_and_then_costs_its_case_and_always_ends_the_work() -> None:
    written = propose(Model("Sure! Here it is:", GOOD), 3)
    assert len(written.rows) == 3
    assert written.left_out["the model failed"] == 3
    with pytest.raises(EngineFailed, match="'writer-1' failed 5 times in a row: It answered"):
        propose(Model("{}"), 3)


def test_no_document_is_asked_about_twice_and_short_passages_never() -> None:
    passages = [PASSAGES[0], PASSAGES[0], Passage(9, "f", 1, "b", "9.md", "", 0, 5, "Short.", 0.0)]
    model = Model(GOOD)
    assert len(propose(model, 5, passages=passages).rows) == 1
    assert len(model.asked) == 1
