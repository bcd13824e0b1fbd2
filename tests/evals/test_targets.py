"""Targets that need nothing served: a function, recorded outputs, a constant."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from evals.suite import Suite
from evals.target import open_target
from evals.trial import Case, Output
from infra.contracts import Usage
from infra.errors import InvalidConfiguration, InvalidRequest, NotFound
from infra.plugins import available
from scripted_evals import suite

FUNCTIONS = """
import asyncio

def answer(question):
    return f"I was asked {question}"

def silent(question):
    return ""

async def later(question):
    await asyncio.sleep(0)
    return {"text": "No idea.", "answerable": False, "usage": {"prompt_tokens": 3}}

def classify(features):
    return {"spam": features["links"] / 10, "ham": 1 - features["links"] / 10}

def regress(features):
    import numpy
    return numpy.float64(features["links"]) * 2

def decide(features):
    return "spam" if features["links"] > 4 else ""

def wrong(question):
    return {"text": "x", "usage": 3}
"""


@pytest.fixture(autouse=True)
def _functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "candidate_functions.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("candidate_functions", None)


def ask(chosen: Suite, case: Case, folder: Path = Path()) -> Output:
    return asyncio.run(_ask(chosen, case, folder))


async def _ask(chosen: Suite, case: Case, folder: Path) -> Output:
    target = open_target(chosen.target, folder=folder)
    try:
        return await target(case, seed=0)
    finally:
        await target.close()


def function(name: str) -> Suite:
    return suite(target={"kind": "function", "call": f"candidate_functions.{name}"})


def test_folder_holds_the_targets_we_ship() -> None:
    assert available("evals.targets") == ["constant", "function", "recorded"]


def test_function_answers_or_predicts() -> None:
    question, features = Case("1", "why"), Case("1", {"links": 7})
    assert ask(function("answer"), question).text == "I was asked why"
    assert not ask(function("silent"), question).answerable  # as SQuAD 2.0 has it
    assert ask(function("later"), question) == Output("No idea.", False, usage=Usage(3))
    assert ask(function("classify"), features).prediction["spam"] == pytest.approx(0.7)
    assert ask(function("regress"), features).prediction == 14.0
    assert type(ask(function("regress"), features).prediction) is float


def test_label_that_is_a_text_is_a_prediction_and_no_answer() -> None:
    assert ask(function("decide"), Case("1", {"links": 7})) == Output(prediction="spam")
    assert ask(function("decide"), Case("1", {"links": 0})) == Output(prediction="")


def test_function_that_gives_no_output_or_is_not_there_is_named() -> None:
    with pytest.raises(InvalidRequest, match=r"candidate_functions\.wrong gave no output"):
        ask(function("wrong"), Case("1", "why"))
    with pytest.raises(InvalidConfiguration, match="nosuch"):
        ask(function("nosuch"), Case("1", "why"))


def test_changed_code_is_another_target(tmp_path: Path) -> None:
    before = open_target(function("answer").target, folder=tmp_path).identity
    (tmp_path / "candidate_functions.py").write_text(FUNCTIONS + "# mended\n")
    assert open_target(function("answer").target, folder=tmp_path).identity != before


def test_recorded_outputs_are_given_back_by_id(tmp_path: Path) -> None:
    path = tmp_path / "outputs.jsonl"
    path.write_text('{"id": "a", "text": "Yes."}\n{"id": 2, "answerable": false}\n')
    chosen = suite(target={"kind": "recorded", "file": "outputs.jsonl"})
    assert ask(chosen, Case("a", "?"), tmp_path) == Output("Yes.")
    assert ask(chosen, Case("2", "?"), tmp_path) == Output("", False)
    with pytest.raises(NotFound, match="recorded output 'b'"):
        ask(chosen, Case("b", "?"), tmp_path)
    path.write_text('{"id": "a"}\n{"id": "a"}\n')
    with pytest.raises(InvalidRequest, match="line 2"):
        ask(chosen, Case("a", "?"), tmp_path)
    path.write_text('{"id": "a", "txet": "Yes."}\n')
    with pytest.raises(InvalidRequest, match="line 1 gave no output: .*txet"):
        ask(chosen, Case("a", "?"), tmp_path)
    path.unlink()
    with pytest.raises(NotFound, match="file of outputs"):
        ask(chosen, Case("a", "?"), tmp_path)


def test_constant_says_the_same_of_every_case() -> None:
    chosen = suite(target={"kind": "constant", "prediction": "ham"})
    assert ask(chosen, Case("1", {})).prediction == "ham"
