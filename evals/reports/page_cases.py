"""A case on the page of an evaluation: question, answer with citations, passages, scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from evals.reports.contents import Loss, Regression
from evals.reports.elements import Element, element, number, short
from evals.scores import Score
from evals.trial import Output, Trial
from infra.contracts import Citation, Passage

_TEXT, _PASSAGE, _PLACE = 2_000, 700, 200
_PASSAGES, _CITATIONS, _SCORES = 5, 8, 30


def case_block(loss: Loss, *, is_open: bool = False) -> Element:
    """Return a case that lost something; of its repeats, the one that lost most is not told."""
    trial = loss.trials[0]
    repeats = f", the first of {len(loss.trials)} repeats" if len(loss.trials) > 1 else ""
    question = _words(trial.case.question or trial.case.input)
    block = element(
        "details",
        element(
            "summary",
            element("span", f"{loss.share:.0%}", class_="loss", title="of what could be lost"),
            element("span", short(question, 160), class_="grow", dir="auto"),
            element("code", short(trial.case.id, 60)),
        ),
        *_told(trial, repeats),
        class_="case",
    )
    if is_open:
        block.set("open", "")
    return block


def regression_block(lost: Regression) -> Element:
    """Return a case that scores less than the baseline, with what was said before."""
    case, before = lost.after.case, lost.before
    heads = ("metric", "before", "now")
    rows = [
        element(
            "tr",
            element("th", short(name, _PLACE), scope="row"),
            element("td", _value(before.scores[name]), class_="number"),
            element("td", _value(lost.after.scores[name]), class_="number"),
        )
        for name in lost.metrics[:_SCORES]
    ]
    head = element("thead", element("tr", *(element("th", each, scope="col") for each in heads)))
    return element(
        "details",
        element(
            "summary",
            element("span", f"-{lost.share:.0%}", class_="loss", title="of what could be lost"),
            element(
                "span", short(_words(case.question or case.input), 160), class_="grow", dir="auto"
            ),
            element("code", short(case.id, 60)),
        ),
        element("div", element("table", head, element("tbody", *rows)), class_="part"),
        None if before.output is None else _part("before", short(said(before.output), _TEXT)),
        *_told(lost.after, ""),
        class_="case",
    )


def said(output: Output) -> str:
    """Return an answer, or a prediction in words."""
    return output.text if output.prediction is None else _words(output.prediction)


def failure_block(trial: Trial) -> Element:
    """Return a case that has no output."""
    return element(
        "details",
        element(
            "summary",
            element("span", "no output", class_="loss"),
            element("span", short(_words(trial.case.input), 160), class_="grow", dir="auto"),
            element("code", short(trial.case.id, 60)),
        ),
        _part("failure", short(trial.failure, _TEXT)),
        class_="case",
    )


def _told(trial: Trial, repeats: str) -> list[Element]:
    case, output = trial.case, trial.output
    found = [_part("question", short(_words(case.input), _TEXT))]
    expected = " | ".join(case.references) or ("a refusal" if case.answerable is False else "-")
    found.append(_part("expected", short(expected, _TEXT)))
    if output is None:
        return [*found, _part("failure", short(trial.failure, _TEXT))]
    found.append(_answer(output, repeats))
    found.append(_scores(trial.scores))
    found += _list("citations", [_citation(each) for each in output.citations[:_CITATIONS]])
    found += _list("passages, best first", [_passage(each) for each in output.passages[:_PASSAGES]])
    return found


def _part(name: str, *children: Element | str) -> Element:
    return element("div", element("h4", name), element("p", *children, dir="auto"), class_="part")


def _answer(output: Output, repeats: str) -> Element:
    refusal = (
        "" if output.answerable else f", a refusal{f': {output.reason}' * bool(output.reason)}"
    )
    return _part(
        f"answer{short(refusal, _PLACE)}{repeats}",
        *_marked(short(said(output), _TEXT), output.citations),
    )


def _marked(text: str, citations: Sequence[Citation]) -> list[Element | str]:
    """Return the text with a mark over each stretch that a citation is said to carry."""
    found: list[Element | str] = []
    at = 0
    for each in sorted(citations, key=lambda one: one.answer_start):
        start, end = max(each.answer_start, at), min(each.answer_end, len(text))
        if start < end:
            found += [text[at:start], element("mark", text[start:end], title=_place(each))]
            at = end
    return [*found, text[at:]]


def _scores(scores: Mapping[str, Score]) -> Element:
    rows = [
        element(
            "tr",
            element("th", short(name, _PLACE), scope="row"),
            element("td", _value(score), class_="number"),
            element("td", short(score.reason, 300)),
        )
        for name, score in sorted(scores.items())[:_SCORES]
    ]
    table = element("table", element("tbody", *rows))
    return element("div", element("h4", "scores"), table, class_="part")


def _value(score: Score) -> str:
    return score.state if score.value is None else number(score.value)


def _list(name: str, items: Sequence[Element]) -> list[Element]:
    if not items:
        return []
    return [element("div", element("h4", name), element("ol", *items), class_="part")]


def _citation(each: Citation) -> Element:
    return element(
        "li",
        element("small", f"{_place(each)}, support {each.support:.2f}"),
        element("blockquote", short(each.text, _PASSAGE), dir="auto"),
    )


def _passage(each: Passage) -> Element:
    return element(
        "li",
        element("small", f"{_place(each)}, score {number(each.score)}"),
        element("blockquote", short(each.text, _PASSAGE), dir="auto"),
    )


def _place(each: Citation | Passage) -> str:
    page = f", page {each.page}" if each.page is not None else ""
    return f"{short(each.source, _PLACE)}, characters {each.start_char} to {each.end_char}{page}"


def _words(value: Any) -> str:
    if isinstance(value, str):
        return value
    return orjson.dumps(value, default=str, option=orjson.OPT_INDENT_2).decode()
