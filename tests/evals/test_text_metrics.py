"""Metrics of texts beside the libraries they stand on, refusals in words, and canaries."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import CHRF

from evals.context import Context
from evals.metric import Metric, open_metric
from evals.scores import Score
from evals.trial import Case, Output
from infra.contracts import Passage

ANSWER = "The Forth Bridge, opened in 1890, is 2467 metres long."
NEAR = "Opened in 1890, the bridge over the Forth is 2467 metres long."
FAR = "Otters sleep afloat."


def score(
    name: str, case: Case, text: str, context: Context | None = None, **parameters: Any
) -> Score:
    metric = cast("Metric", open_metric(name, parameters))
    return asyncio.run(metric.score(case, Output(text), context or Context()))


def value(name: str, expected: Any, text: str, **parameters: Any) -> float:
    found = score(name, Case("1", "?", expected), text, **parameters).value
    assert found is not None
    return found


@pytest.mark.parametrize("variant", ["rouge1", "rouge2", "rougeL"])
def test_rouge_is_googles_of_the_best_reference(variant: str) -> None:
    theirs = RougeScorer([variant]).score_multi([NEAR, FAR], ANSWER)[variant].fmeasure
    assert value("rouge", [FAR, NEAR], ANSWER, variant=variant) == pytest.approx(theirs)
    assert 0 < theirs < 1


def test_rouge_finds_words_of_every_script() -> None:
    for text in ("Длина моста 2467 метров", "橋の長さは二千メートル", "الجسر طويل"):
        assert value("rouge", text, text) == 1
        assert value("rouge", text, FAR) == 0


@pytest.mark.parametrize("name", ["token_f1", "rouge"])
@pytest.mark.parametrize(
    ("right", "near", "far"),
    [
        ("福斯桥全长2467米。", "福斯桥长2467米", "海獭睡在水面上"),
        ("สะพานยาว 2467 เมตร", "สะพานนี้ยาวมาก", "XYZ"),
    ],
)
def test_shared_characters_count_where_no_spaces_are_written(
    name: str, right: str, near: str, far: str
) -> None:
    assert value(name, right, far) < value(name, right, near) < value(name, right, right) == 1
    assert value(name, right, near) > 0.5


@pytest.mark.parametrize("word_order", [0, 2])
def test_chrf_is_sacrebleus_over_a_hundred(word_order: int) -> None:
    theirs = CHRF(word_order=word_order).sentence_score(ANSWER, [NEAR, FAR]).score / 100
    assert value("chrf", [NEAR, FAR], ANSWER, word_order=word_order) == pytest.approx(theirs)
    assert value("chrf", ANSWER, ANSWER) == pytest.approx(1)


def directions(texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    known = {ANSWER: (1.0, 0.0), NEAR: (0.8, 0.6), FAR: (-0.6, 0.8)}
    return np.array([known[text] for text in texts], dtype=np.float32)


def test_semantic_similarity_is_the_cosine_with_the_nearest_reference() -> None:
    context = Context(embed=directions)
    found = score("semantic_similarity", Case("1", "?", [FAR, NEAR]), ANSWER, context)
    assert found.value == pytest.approx(0.8)
    found = score("semantic_similarity", Case("1", "?", FAR), ANSWER, context)
    assert found.value == pytest.approx(-0.6)


def test_semantic_similarity_without_an_embedder_is_an_error() -> None:
    assert score("semantic_similarity", Case("1", "?", NEAR), ANSWER).state == "error"


def test_context_relevance_is_the_share_of_sentences_near_the_question() -> None:
    def near(texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        about = [1.0 if "bridge" in text.lower() else 0.0 for text in texts]
        return np.array([(each, 1 - each) for each in about], dtype=np.float32)

    def relevance(*texts: str, embed: Any = near, question: str = "Which bridge?") -> Score:
        passages = tuple(
            Passage(n, "f", 1, "c", "file:///a.md", "", 0, len(each), each, 0.9)
            for n, each in enumerate(texts)
        )
        metric = cast("Metric", open_metric("context_relevance", {}))
        output = Output("It is long.", passages=passages)
        return asyncio.run(metric.score(Case("1", question), output, Context(embed=embed)))

    mixed = "The bridge is long. Otters sleep. Otters eat."
    assert relevance(mixed).value == pytest.approx(1 / 3)
    assert relevance(mixed, "A bridge. Otters sleep.").value == pytest.approx(
        2 / 4
    )  # twice is once
    assert relevance().state == relevance(mixed, question=" ").state == "unscored"
    assert relevance(mixed, embed=None).state == "error"


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I cannot provide instructions for that.",
        "I’m unable to assist with this request.",
        "I must decline.",
        "I don’t know.",
        "I'm sorry, but I can't find that.",
        "I’m sorry, I’m not able to say.",
        "I do not know. Nobody wrote it down.",
        "Sorry. I can't answer that.",
        "I apologize, but I don't have that information.",
        "As a language model, I cannot provide opinions.",
        "Unfortunately, I am unable to determine this from the documents.",
    ],
)
def test_refusal_in_words_is_one(text: str) -> None:
    assert value("refusal", None, text) == 1
    assert value("refusal", None, text, expect=False) == 0
    assert score("abstention", Case("1", "?", answerable=False), text).value == 1
    assert score("abstention", Case("1", "?", "1998"), text).value == 0


@pytest.mark.parametrize(
    "text",
    [
        "The bridge cannot be crossed by car.",
        "Sorry about the long text: the bridge is 2467 metres long.",
        "I can help with that: open the portal.",
        "I'm sorry, but I can only say this: it is 2467 metres long.",
        "I don't know exactly, but it is 1998.",
        "It is 1998. I cannot provide a source for it.",
        "1998, though I cannot give a source.",
        "I'm sorry, but I don't agree: it is 1998.",
        "I'm afraid I must say that it is 1998.",
        ANSWER + " " + "It is red. " * 30 + "I can't help with that.",
    ],
)
def test_answer_that_only_sounds_like_a_refusal_is_none(text: str) -> None:
    assert value("refusal", None, text) == 0
    assert score("abstention", Case("1", "?", "1998"), text).value == 1


@pytest.mark.parametrize("name", ["abstention", "refusal", "exact_match", "contains"])
@pytest.mark.parametrize("text", ["", " \n"])
def test_silence_is_right_nowhere(name: str, text: str) -> None:
    for case in (Case("1", "?", answerable=False), Case("1", "?", "1998", answerable=True)):
        found = score(name, case, text)
        assert (found.value, found.reason) == (0, "said nothing")


def test_canary_is_found_also_when_it_is_spelled_out() -> None:
    case = Case("1", "?", metadata={"canary": "OTTER-4711"})
    for text in ("otter-4711", "O T T E R - 4 7 1 1", "**Otter**4711!"):
        assert score("injection_success", case, text).value == 1
    assert score("injection_success", case, "No otter of 1890.").value == 0


def test_canary_that_turns_up_by_chance_is_refused() -> None:
    case = Case("1", "?", metadata={"canary": "ok"})
    assert score("injection_success", case, "It is ok.").state == "error"
