"""ragas through our runner agrees with ragas called directly; a bad judge is no number."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from evals.context import Context
from evals.memory import Memory
from evals.metric import Metric, open_metric
from evals.scores import Score
from evals.trial import Case, Output
from infra.plugins import available
from judge_server import JudgeServer, judging
from judged import passages, score_by
from retrieval.embedders import open_embedder

pytest.importorskip("ragas", reason="the extra `ragas` is not installed")

NAMES = [name for name in available("evals.metrics") if name.startswith("ragas_")]
TEXTS = (
    "Otters sleep afloat. They hold each other by the paw.",
    "The Forth Bridge is 2467 metres long. It was opened in 1890.",
    "Bridges are painted red. Painters never finish.",
)
ANSWER = "The Forth Bridge is 2467 metres long. It was built by otters. Bridges are painted red."
REFERENCE = "The Forth Bridge is 2467 metres long. It was opened in 1890."
QUESTION = "How long is the Forth Bridge, and when was it opened?"
CASE = Case("1", QUESTION, REFERENCE)
PASSAGES = passages(*TEXTS)
OUTPUT = Output(ANSWER, passages=PASSAGES)
GIVEN = {
    "user_input": QUESTION,
    "response": ANSWER,
    "reference": REFERENCE,
    "retrieved_contexts": list(TEXTS),
}
EMBEDDER = open_embedder("hashing")
EMBED = partial(EMBEDDER.embed, kind="document")


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with judging() as found:
        yield found


def score(
    name: str, url: str, case: Case = CASE, output: Output = OUTPUT, *, memory: Memory | None = None
) -> Score:
    parameters = {"model": "rules", "url": url}
    return score_by(name, parameters, case, output, memory=memory, embed=EMBED)


def directly(name: str, url: str) -> float:
    """Ask ragas itself, with its own client."""
    from evals.metrics import _ragas

    library = _ragas.ragas()
    metric: Any = open_metric(name, {"model": "rules"})

    async def ask() -> float:
        from openai import AsyncOpenAI
        from ragas.llms import llm_factory

        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            judge = llm_factory("rules", client=client)
            theirs = metric.open(library, judge, _ragas.embedder(EMBED))
            found = await theirs.ascore(**{each: GIVEN[each] for each in metric.needs})
            return float(found.value)

    return asyncio.run(ask())


def test_there_are_six() -> None:
    assert len(NAMES) == 6


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("name", NAMES)
def test_score_is_that_of_ragas_called_directly(name: str, server: JudgeServer) -> None:
    found = score(name, server.url)
    assert found.state == "scored", found
    assert found.value == pytest.approx(directly(name, server.url))


def test_scores_are_those_worked_out_by_hand(server: JudgeServer) -> None:
    wanted = {
        "ragas_faithfulness": 2 / 3,
        "ragas_context_precision": 1 / 2,  # the one that helps stands second
        "ragas_context_recall": 1.0,
        "ragas_noise_sensitivity": 0.0,
    }
    assert {name: score(name, server.url).value for name in wanted} == pytest.approx(wanted)


@pytest.mark.parametrize("name", NAMES)
def test_second_run_needs_no_judge(name: str, server: JudgeServer, tmp_path: Path) -> None:
    first = score(name, server.url, memory=Memory(tmp_path))
    asked = len(server.asked)
    assert asked
    again = score(name, "http://127.0.0.1:9/v1", memory=Memory(tmp_path))
    assert again == first
    assert len(server.asked) == asked


def test_questions_that_are_made_up_anew_are_asked_anew(server: JudgeServer) -> None:
    score("ragas_answer_relevancy", server.url)
    assert len({body["seed"] for body in server.asked}) == len(server.asked) == 3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("says", ["Sure! It is 7 of 10.", "{}", '{"statements": 7}', ""])
def test_garbage_of_a_judge_is_raised_with_what_it_said(
    name: str, says: str, server: JudgeServer
) -> None:
    server.says = says
    with pytest.raises(Exception, match="not the JSON that was asked for"):
        score(name, server.url)


@pytest.mark.parametrize("name", NAMES)
def test_judge_that_declines_is_refused(name: str, server: JudgeServer) -> None:
    server.says = "I'm sorry, but I can't assist with that."
    assert score(name, server.url).state == "refused"
    server.says, server.message = "", {"refusal": "Not this."}
    found = score(name, server.url)
    assert (found.state, found.reason) == ("refused", "Not this.")


def test_judge_that_finds_nothing_to_judge_is_an_error_and_not_nan(server: JudgeServer) -> None:
    server.says = '{"statements": []}'
    found = score("ragas_faithfulness", server.url)
    assert found.state == "error"
    assert found.value is None


def test_judge_that_fails_or_is_cut_off_is_raised(server: JudgeServer) -> None:
    server.finish_reason = "length"
    with pytest.raises(Exception, match="cut off"):
        score("ragas_faithfulness", server.url)
    server.status = 400
    with pytest.raises(Exception, match="answered 400"):
        score("ragas_faithfulness", server.url)


def test_key_is_sent_and_never_remembered(
    server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_API_KEY", "sk-of-the-judge")
    score("ragas_faithfulness", server.url, memory=Memory(tmp_path))
    headers = [{name.lower(): value for name, value in each.items()} for each in server.headers]
    assert {each["authorization"] for each in headers} == {"Bearer sk-of-the-judge"}
    kept = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert kept
    assert not any("sk-of-the-judge" in text for text in kept)


def test_judge_without_a_name_is_said_so() -> None:
    metric = cast("Metric", open_metric("ragas_faithfulness", {}))
    with pytest.raises(Exception, match="give the metric a `model`"):
        asyncio.run(metric.score(CASE, OUTPUT, Context()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "output", [Output(""), Output("The documents do not say.", answerable=False)]
)
def test_nothing_to_judge_is_told_without_asking(name: str, output: Output) -> None:
    found = score(name, "http://127.0.0.1:9/v1", Case("1", QUESTION), output)
    assert found.state == "unscored"


def test_right_refusal_is_correct(server: JudgeServer) -> None:
    refusal = Output("The documents do not say.", answerable=False)
    case = Case("1", QUESTION, None, answerable=False)
    assert score("ragas_answer_correctness", server.url, case, refusal).value == 1


def test_telemetry_is_off_also_where_ragas_was_imported_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from evals.metrics import _ragas

    _ragas.ragas()
    from ragas._analytics import do_not_track

    monkeypatch.delenv("RAGAS_DO_NOT_TRACK", raising=False)
    do_not_track.cache_clear()
    assert not do_not_track()  # it has made up its mind
    _ragas.ragas.cache_clear()
    _ragas.ragas()
    assert do_not_track()
