"""Metrics on examples worked out by hand, and beside trec_eval's."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from functools import partial
from typing import Any

import ir_measures
import pytest
from ir_measures import RR, P, R, nDCG

from evals.context import Context
from evals.metric import open_metric
from evals.scores import Score
from evals.trial import Case, Output
from infra.contracts import Citation, Passage, Usage
from infra.errors import InvalidRequest

TEXT = "The Forth Bridge is 2467 metres long. Queen Victoria never crossed it."
PASSAGE = Passage(1, "file-a", 2, "c", "file:///d/bridge.md", "", 10, 10 + len(TEXT), TEXT, 0.9)
FIRST = Citation("file-a", 2, PASSAGE.source, "", 10, 47, TEXT[:37], 0, 37, support=0.9)


def score(
    name: str, case: Case, output: Output, context: Context | None = None, **kw: Any
) -> Score:
    return asyncio.run(open_metric(name, kw).score(case, output, context or Context()))


def _stored(text: str | None, document: str, version: int, start: int, end: int) -> str | None:
    return text


def value(name: str, case: Case, output: Output, **kw: Any) -> float | None:
    return score(name, case, output, **kw).value


def test_exact_match_ignores_articles_case_and_punctuation_unless_told_not_to() -> None:
    case = Case("1", "?", ["1890", "The Forth Bridge"])
    assert value("exact_match", case, Output("the forth bridge!")) == 1
    assert value("exact_match", case, Output("a bridge")) == 0
    assert value("exact_match", case, Output("the forth bridge!"), normalise="none") == 0


def test_exact_match_of_probabilities_is_that_of_the_likeliest_label() -> None:
    output = Output(prediction={"spam": 0.7, "ham": 0.3})
    assert value("exact_match", Case("1", {"length": 3}, "spam"), output) == 1
    assert value("exact_match", Case("1", {"length": 3}, "ham"), output) == 0
    assert value("exact_match", Case("1", {"length": 3}, 1), Output(prediction=1)) == 1


def test_token_f1_is_squads() -> None:
    case = Case("1", "?", ["built in 1890", "1890"])
    assert value("token_f1", case, Output("It was built in 1890")) == pytest.approx(3 * 2 / 8)
    assert value("token_f1", case, Output("in 1890 [1]")) == pytest.approx(2 * 2 / 5)
    assert value("token_f1", case, Output("never")) == 0


@pytest.mark.parametrize("name", ["exact_match", "token_f1", "contains", "abstention"])
def test_refusal_is_right_where_there_is_no_answer_and_wrong_where_there_is(name: str) -> None:
    refusal = Output("The documents do not say.", answerable=False)
    assert value(name, Case("1", "?", None, answerable=False), refusal) == 1
    assert value(name, Case("1", "?", None, answerable=False), Output("In 1890.")) == 0
    assert value(name, Case("1", "?", "In 1890.", answerable=True), refusal) == 0


def test_abstention_needs_to_know_whether_there_is_an_answer() -> None:
    assert score("abstention", Case("1", "?"), Output("Yes.")).state == "unscored"
    assert value("abstention", Case("1", "?", "No."), Output("Yes.")) == 1


def test_contains_finds_any_or_all() -> None:
    case = Case("1", "?", ["48 metres", "1890"])
    assert value("contains", case, Output("It is 48  Metres long")) == 1
    assert value("contains", case, Output("It is 48 metres long"), match="all") == 0
    assert value("contains", case, Output("48 Metres"), ignore_case=False) == 0


def test_regex_searches_for_the_pattern_of_the_suite_or_of_the_case() -> None:
    assert value("regex", Case("1", "?", r"\d{4}"), Output("in 1890")) == 1
    assert value("regex", Case("1", "?"), Output("in 1890"), pattern=r"^\d") == 0
    assert value("regex", Case("1", "?"), Output("No!"), pattern="sorry", expect=False) == 1


def test_pattern_that_would_never_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evals.metrics.regex.LONGEST_SECONDS", 0.2)
    endless, output = "(a|aa)+$", Output("a" * 99 + "!")
    for found in (
        score("regex", Case("1", "?"), output, pattern=endless),
        score("regex", Case("1", "?", endless), output),
    ):
        assert (found.state, found.is_temporary) == ("error", False)
        assert "'(a|aa)+$' was not done with 100 characters in 0.2 s" in found.reason


def test_pattern_that_is_none_is_named() -> None:
    found = score("regex", Case("1", "?", "(unclosed"), Output("x"))
    assert found.state == "error"
    assert "'(unclosed' is no regular expression" in found.reason
    assert "may have 1,000" in score("regex", Case("1", "?", "a" * 5_000), Output("x")).reason
    for wrong, words in (("(unclosed", "no regular expression"), ("a" * 5_000, "may have 1,000")):
        with pytest.raises(InvalidRequest, match=words):
            open_metric("regex", {"pattern": wrong})


def test_tokens_cost_and_latency_are_what_the_output_says() -> None:
    output = Output("x", usage=Usage(100, 7), cost=0.25, latency_seconds=1.5)
    assert value("tokens", Case("1", "?"), output) == 107
    assert value("tokens", Case("1", "?"), output, of="completion") == 7
    assert value("cost", Case("1", "?"), output) == 0.25
    assert value("latency", Case("1", "?"), output) == 1.5
    assert score("cost", Case("1", "?"), Output("x")).state == "unscored"


def test_citation_that_is_not_what_is_stored_does_not_count() -> None:
    output = Output(TEXT, citations=(FIRST,), passages=(PASSAGE,))
    assert value("citation_precision", Case("1", "?"), output) == 1
    for wrong in (
        replace(FIRST, text=FIRST.text.replace("2467", "2476")),
        replace(FIRST, start_char=11, end_char=48),
        replace(FIRST, document_version=1),
        replace(FIRST, start_char=47, end_char=10),
        replace(FIRST, text=""),
    ):
        assert value("citation_precision", Case("1", "?"), replace(output, citations=(wrong,))) == 0


def test_stored_text_has_the_last_word_about_a_citation() -> None:
    output = Output(TEXT, citations=(FIRST,), passages=(PASSAGE,))
    for stored, wanted in ((FIRST.text, 1), ("Something else", 0), (None, 0)):
        context = Context(read_text=partial(_stored, stored))
        assert score("citation_precision", Case("1", "?"), output, context).value == wanted


def test_citation_that_stands_beside_the_claim_does_not_count() -> None:
    output = Output("Otters sleep afloat.", citations=(replace(FIRST, answer_end=20),))
    output = replace(output, passages=(PASSAGE,))
    assert value("citation_precision", Case("1", "?"), output) == 0
    assert value("citation_recall", Case("1", "?"), output) == 0


def test_citation_recall_counts_the_sentences_that_are_carried() -> None:
    output = Output(TEXT, citations=(FIRST,), passages=(PASSAGE,))
    found = score("citation_recall", Case("1", "?"), output)
    assert found.value == 0.5
    assert found.details["not carried"] == ["Queen Victoria never crossed it."]
    assert value("citation_precision", Case("1", "?"), replace(output, citations=())) == 0


def test_a_document_is_named_by_id_source_or_the_end_of_its_path() -> None:
    output = Output("x", passages=(PASSAGE,))
    for name in ("file-a", "file:///d/bridge.md", "bridge.md", "d/bridge.md"):
        assert value("retrieval_recall", Case("1", "?", relevant={name: 1.0}), output) == 1
    for name in ("ridge.md", "file", "bridge"):
        assert value("retrieval_recall", Case("1", "?", relevant={name: 1.0}), output) == 0


def test_ranking_metrics_are_those_of_trec_eval() -> None:
    chance = random.Random(3)
    measures = {"precision": P, "recall": R, "ndcg": nDCG, "mrr": RR}
    for _ in range(60):
        documents = [f"d{number}" for number in range(12)]
        relevant = {name: chance.choice((1, 2, 3)) for name in chance.sample(documents, 4)}
        found = chance.sample(documents, chance.randint(1, 12))
        k = chance.choice((1, 3, 5, 10))
        run = {"q": {name: float(-rank) for rank, name in enumerate(found)}}
        passages = tuple(
            replace(PASSAGE, document_id=name, source=name, chunk_id=number)
            for number, name in enumerate(name for name in found for _ in range(2))
        )
        for name, measure in measures.items():
            theirs = ir_measures.calc_aggregate([measure @ k], {"q": relevant}, run)[measure @ k]
            case = Case("1", "?", relevant={each: float(grade) for each, grade in relevant.items()})
            ours = value(f"retrieval_{name}", case, Output("x", passages=passages), k=k)
            assert ours == pytest.approx(theirs), (name, k)
