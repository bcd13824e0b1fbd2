"""Reports: what they show is what was found, and nothing that a model says can break out."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from lxml import etree, html
from markdown_it import MarkdownIt

from evals.evaluation import Evaluation, MeasuredBy
from evals.metric import open_metric
from evals.reports import contents, junit, markdown, page
from evals.reports.elements import clean
from evals.scores import Score
from evals.trial import Output
from evals.verdicts import Judgement, judge
from reported import EVIL, evaluation

MOST_BYTES = 2_000_000
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "h1", "h2", "h4", "p"),
    *("span", "dl", "dt", "dd", "details", "summary", "b", "br", "small", "svg", "line", "circle"),
    *("rect", "text", "table", "thead", "tbody", "tr", "th", "td", "div", "figure", "figcaption"),
    *("code", "mark", "ol", "li", "blockquote", "polyline"),
}


def page_of(found: Evaluation, judgement: Judgement | None = None, cases: int = 50) -> bytes:
    return page.write(found, judgement or judge(found), name="evaluation/handbook@v3", cases=cases)


def text_of(written: bytes) -> str:
    return str(html.document_fromstring(written).text_content())


def test_verdicts_and_the_numbers_that_led_to_them_are_on_the_page() -> None:
    found = evaluation(200)
    judgement = judge(found)
    assert judgement.verdict == "fail"
    text = text_of(page_of(found, judgement))
    for decision in judgement.decisions:
        assert decision.interval is not None
        assert decision.interval.low != decision.interval.high
        assert f"{decision.interval.low:.4g} to {decision.interval.high:.4g}" in text
        assert decision.reason in text
    assert "contains above 0.5" in text
    assert "200 of 200" in text


def test_nothing_that_is_said_becomes_an_element_or_loads_anything() -> None:
    written = page_of(evaluation(40, failing=0.2))
    tree = html.document_fromstring(written)
    assert {each.tag for each in tree.iter(etree.Element)} <= ALLOWED
    names = {name for each in tree.iter(etree.Element) for name in each.attrib}
    assert not {name for name in names if name.startswith("on") or name in {"src", "href"}}
    assert written.count(b"<style>") == 1
    assert b"<script" not in written
    assert b"\x00" not in written
    # All the same it is shown, letter by letter, but for what cannot be.
    assert clean(EVIL) in text_of(written)


@pytest.mark.parametrize("cases", [2_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_page_of_many_cases_is_small(cases: int) -> None:
    found = evaluation(cases, failing=0.01)
    assert len(page_of(found, judge(found))) < MOST_BYTES


def test_page_stays_small_whatever_is_said() -> None:
    slices = [{"name": f"s{number}", "where": {"part": number}} for number in range(2_000)]
    found = evaluation(60, said="<&>" * 3_000, slices=slices)
    judgement = replace(judge(found), reason="<" * 500)
    assert len(page_of(found, judgement)) < MOST_BYTES
    best = {"contains": Score.of(1.0), "token_f1": Score.of(1.0)}
    before = tuple(replace(one, scores={**one.scores, **best}) for one in found.trials)
    was = replace(found, trials=before)
    written = page.write(found, judgement, name="n", cases=50, before=was)
    assert b"Lost against the baseline" in written
    assert len(written) < MOST_BYTES


def test_worst_cases_are_those_that_lost_most_in_what_gates_look_at() -> None:
    found = evaluation(60)
    losses = contents.worst(found, 5)
    assert len(losses) == 5
    share = {
        trial.case.id: 1
        - sum(trial.scores[name].value or 0 for name in ("contains", "token_f1")) / 2
        for trial in found.trials
    }
    expected = sorted(share, key=lambda case: (-share[case], case))[:5]
    assert [loss.case for loss in losses] == expected
    written = text_of(page_of(found, cases=5))
    assert all(f"What is {case[1:]}?" in written for case in expected)


def test_cases_that_lost_most_against_the_baseline_are_listed_worst_first() -> None:
    now = evaluation(60)
    trials = list(now.trials)
    for place, (contains, f1) in {7: (0.0, 0.1), 21: (1.0, 0.4), 40: (1.0, 1.0)}.items():
        scores = {**trials[place].scores, "contains": Score.of(contains), "token_f1": Score.of(f1)}
        trials[place] = replace(trials[place], scores=scores)
    was = list(trials)
    for place in (7, 21, 40):
        before = {"contains": Score.of(1.0), "token_f1": Score.of(0.9)}
        output = replace(trials[place].output or Output(), text="It was so before.")
        scores = {**trials[place].scores, **before}
        was[place] = replace(trials[place], scores=scores, output=output)
    after, before_ = replace(now, trials=tuple(trials)), replace(now, trials=tuple(was))
    found = contents.regressions(before_, after, 5)
    assert [(each.case, each.share) for each in found] == [
        ("q7", pytest.approx((1.0 + 0.8) / 2)),
        ("q21", pytest.approx(0.5 / 2)),
    ]
    assert found[0].metrics == ("contains", "token_f1")
    judgement = judge(after)
    written = page.write(after, judgement, name="n", cases=50, before=before_)
    text = text_of(written)
    part = text[text.index("Lost against the baseline") : text.index("Worst cases")]
    assert part.index("What is 7?") < part.index("What is 21?")
    assert "What is 40?" not in part
    assert part.count("It was so before.") == 2
    assert {each.tag for each in html.document_fromstring(written).iter(etree.Element)} <= ALLOWED
    summary = markdown.write(after, judgement, name="n", before=before_)
    assert "contains 1 to 0, token\\_f1 0.9 to 0.1" in summary
    same = page.write(after, judgement, name="n", cases=50, before=after)
    assert "No case lost against the baseline" in text_of(same)
    assert "Lost against" not in markdown.write(after, judgement, name="n", before=after)


def test_page_is_made_of_an_evaluation_in_which_nothing_was_scored() -> None:
    found = evaluation(10, failing=1.0)
    judgement = judge(found)
    assert judgement.exit_code == 3
    text = text_of(page_of(found, judgement))
    assert "infrastructure" in text
    assert "no output" in text


def test_distribution_counts_every_score() -> None:
    found = evaluation(300)
    by_metric = {each.metric: each for each in contents.distributions(found)}
    assert sum(by_metric["token_f1"].counts) == 300
    zeros = sum(trial.scores["contains"].value == 0 for trial in found.trials)
    assert by_metric["contains"].counts[0] == zeros > 0


def test_risk_of_the_surest_is_drawn_where_outputs_say_how_sure_they_are() -> None:
    found = evaluation(400, failing=0.1)
    parameters = {"of": "contains"}
    aurc = MeasuredBy.of(open_metric("aurc", parameters), name="aurc", parameters=parameters)
    metrics = {**found.described.metrics, "aurc": aurc}
    mute = replace(found, described=replace(found.described, metrics=metrics))
    assert contents.curves(mute) == []
    assert "Risk and coverage" not in text_of(page_of(mute, judge(found)))
    trials = tuple(
        replace(each, output=each.output and replace(each.output, confidence=number % 7))
        for number, each in enumerate(mute.trials)
    )
    sure = replace(mute, trials=trials)
    (curve,) = contents.curves(sure)
    assert len(curve.risks) == 400 - sure.failures
    assert curve.risks[-1] == pytest.approx(1 - (sure.mean("contains") or 0))
    assert sum(curve.risks) / len(curve.risks) == pytest.approx(sure.mean("aurc"))
    tree = html.document_fromstring(page_of(sure, judge(found)))
    (line,) = tree.iter("polyline")
    places = [[float(each) for each in pair.split(",")] for pair in line.get("points").split()]
    across = [x for x, _ in places]
    assert across == sorted(across)
    assert 100 < len(places) < 200
    assert f"{len(curve.risks)}: {curve.risks[-1]:.4g}" in tree.text_content()


def test_stored_judgement_is_the_one_that_was_made() -> None:
    judgement = judge(evaluation(100))
    stored = orjson.loads(orjson.dumps(judgement.as_dict()))
    assert Judgement.from_dict(stored) == judgement


def test_junit_fails_for_a_gate_that_does_not_pass_and_errs_for_what_has_no_output() -> None:
    found = evaluation(100, failing=0.01, min_coverage=0.9)
    tree = etree.fromstring(junit.write(found, judge(found)))
    gates, cases = tree.findall("testsuite")
    outcome = {test.get("name"): [child.tag for child in test] for test in gates}
    assert "failure" in outcome["token_f1 above 0.9"]
    assert outcome["contains above 0.5"] == ["properties"]
    assert outcome["verdict"] == ["failure"]
    assert gates.get("failures") == "2"
    assert cases.get("tests") == "100"
    assert cases.get("errors") == str(found.failures)
    missed = [test for test in cases if test.find("skipped") is not None]
    assert len(missed) == int(cases.get("skipped") or 0) > 10


def test_junit_of_a_gate_that_could_not_be_judged_is_an_error_and_no_success() -> None:
    found = evaluation(30)
    trials = tuple(
        replace(trial, scores={**trial.scores, "contains": Score.error("the judge is down")})
        for trial in found.trials
    )
    broken = replace(found, trials=trials)
    tree = etree.fromstring(junit.write(broken, judge(broken)))
    (gate,) = (test for test in tree.iter("testcase") if test.get("name") == "contains above 0.5")
    assert gate.find("error").get("type") == "infrastructure"


@pytest.mark.parametrize("said", [EVIL, "<!-- ", "](x)", "| a |\n| b |", "**b** https://a.b @you"])
def test_markdown_shows_what_was_said_as_text(said: str) -> None:
    found = evaluation(20, said=said, description="")
    written = markdown.write(found, judge(found), name="evaluation/handbook@v3")
    tokens: list[Any] = MarkdownIt("gfm-like", {"linkify": False}).parse(written)
    inline = [child for each in tokens for child in each.children or []]
    assert {each.type for each in inline} <= {"text", "text_special", "softbreak"}
    blocks = {each.content.strip() for each in tokens if each.type == "html_block"}
    assert all(re.fullmatch(r"(<details><summary>[\w ]+</summary>|</details>)", b) for b in blocks)
    assert not re.search(r"(?<!\\)@", written)
    assert len(written) < 20_000


def test_markdown_says_which_gate_failed() -> None:
    found = evaluation(200)
    written = markdown.write(found, judge(found), name="evaluation/handbook@v3")
    (line,) = (each for each in written.splitlines() if "token\\_f1 above 0.9" in each)
    assert "fail" in line
    assert written.startswith("### \u274c handbook: fail")


def test_the_style_of_the_page_is_shipped_beside_it() -> None:
    style = Path(page.__file__).with_name("page.css").read_text(encoding="utf-8")
    assert "url(" not in style
    assert "@import" not in style
