"""The page of an evaluation: one HTML file, without scripts, that loads nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from lxml import html

from evals.evaluation import Evaluation
from evals.gates import Decision
from evals.reports import contents, figures, page_checks
from evals.reports.contents import Row
from evals.reports.elements import Element, document, element, number, short
from evals.reports.page_cases import case_block, failure_block, regression_block
from evals.reports.wording import MEANINGS, about, between, demand, numbers
from evals.suite import ALL
from evals.verdicts import Judgement

MOST_CASES = 50
_CASE_BYTES = 600_000
"""Of each list of cases, so that a page stays below two megabytes whatever a model writes."""
_NAME = 200
_MOST_DECISIONS = 100


def write(
    evaluation: Evaluation,
    judgement: Judgement,
    *,
    name: str,
    cases: int,
    before: Evaluation | None = None,
) -> bytes:
    """Return the page in UTF-8.

    Args:
        evaluation: what was run.
        judgement: what its gates said of it.
        name: the version, as the store has it.
        cases: how many of the worst to show, `MOST_CASES` at most.
        before: the baseline; the cases that lost most against it are shown too.

    Raises:
        MissingDependency: the extra `evals` is not installed.
    """
    suite = evaluation.described.suite
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return document(
        f"{suite.name}: {judgement.verdict}",
        style,
        _top(evaluation, judgement, name),
        element(
            "main",
            *_gates(judgement),
            *page_checks.section(judgement.findings),
            *_scores(contents.rows(evaluation)),
            *_distributions(evaluation),
            *_curves(evaluation),
            *_reasons(evaluation),
            *_regressions(evaluation, before, min(cases, MOST_CASES)),
            *_cases(evaluation, min(cases, MOST_CASES)),
        ),
    )


def _top(evaluation: Evaluation, judgement: Judgement, name: str) -> Element:
    described, suite = evaluation.described, evaluation.described.suite
    cases = len({trial.case.id for trial in evaluation.members(ALL)})
    facts = [
        ("evaluation", name),
        ("dataset", described.dataset),
        ("target", about(described.target)),
        ("cases", f"{cases:,}"),
        ("trials", f"{len(evaluation.trials):,}"),
        ("without output", f"{evaluation.failures:,}"),
        ("baseline", judgement.baseline or "none"),
        ("digest", described.digest),
    ]
    why = judgement.reason or MEANINGS.get(judgement.verdict, "")
    why = why[:1].upper() + why[1:]
    return element(
        "header",
        element("p", "Evaluation", class_="kicker"),
        element("h1", suite.name, " ", _badge(judgement.verdict)),
        element("p", why, class_="why"),
        element("p", short(suite.description, 1_000)) if suite.description else None,
        element("dl", *(part for key, value in facts for part in _fact(key, value))),
    )


def _fact(key: str, value: str) -> tuple[Element, Element]:
    return element("dt", key), element("dd", short(value, 500))


def _badge(verdict: str) -> Element:
    return element("span", verdict, class_=f"badge {verdict}")


def _gates(judgement: Judgement) -> list[Element]:
    shown = judgement.decisions[:_MOST_DECISIONS]
    if not shown and not judgement.unjudged:
        return []
    found = [element("h2", "Gates"), *(_gate(each) for each in shown)]
    found += [
        element("p", f"Not judged, for want of a baseline: {short(each, _NAME)}", class_="note")
        for each in judgement.unjudged[:_MOST_DECISIONS]
    ]
    return found


def _gate(decision: Decision) -> Element:
    interval, gate = decision.interval, decision.gate
    ends = [decision.threshold]
    if interval is not None:
        ends += [interval.low, interval.high]
    if gate.value_bounds is not None and not gate.compares:
        ends += gate.value_bounds
    figure = figures.strip(
        interval,
        None if interval is None else interval.estimate,
        within=figures.scale(ends),
        threshold=decision.threshold,
        kind=decision.verdict.value,
    )
    table = element("dl", *(part for each in numbers(decision) for part in _fact(*each)))
    return element(
        "details",
        element(
            "summary",
            _badge(decision.verdict.value),
            element(
                "span",
                element("b", short(demand(gate), _NAME)),
                "" if gate.decides else " (warns only)",
                element("br"),
                element("small", f"{between(interval)}: {decision.reason}"),
                class_="grow",
            ),
            figure,
        ),
        table,
        class_="gate",
    )


def _scores(rows: Sequence[Row]) -> list[Element]:
    by_metric: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_metric[row.metric].append(row)
    found = [
        element("h2", "Scores by slice"),
        element("p", "Means over cases, with the 95 % interval of each.", class_="note"),
    ]
    found += [_table(metric, each) for metric, each in by_metric.items()]
    if len(rows) == contents.MOST_ROWS:
        found.append(element("p", f"Only the first {len(rows)} rows are shown.", class_="note"))
    return found


def _table(metric: str, rows: Sequence[Row]) -> Element:
    ends = [end for row in rows if row.interval for end in (row.interval.low, row.interval.high)]
    within = figures.scale([*ends, *(row.mean for row in rows if row.mean is not None)])
    heads = (metric, "", "mean", "95 %", "scored", "unscored", "refused", "error")
    body = []
    for row in rows:
        spread = row.interval
        cells = [
            number(row.mean),
            "-" if spread is None else f"{number(spread.low)} to {number(spread.high)}",
            *(f"{getattr(row.counts, each):,}" for each in heads[4:]),
        ]
        body.append(
            element(
                "tr",
                element("th", short(row.slice, _NAME), scope="row"),
                element("td", figures.strip(spread, row.mean, within=within)),
                *(element("td", each, class_="number") for each in cells),
            )
        )
    head = element("tr", *(element("th", short(each, _NAME), scope="col") for each in heads))
    table = element("table", element("thead", head), element("tbody", *body), class_="scores")
    return element("div", table, class_="wide")


def _distributions(evaluation: Evaluation) -> list[Element]:
    found = [
        element(
            "figure",
            element("figcaption", short(each.metric, _NAME)),
            figures.histogram(each),
        )
        for each in contents.distributions(evaluation)[:40]
    ]
    if not found:
        return []
    return [element("h2", "Distribution of scores"), element("div", *found, class_="grid")]


def _curves(evaluation: Evaluation) -> list[Element]:
    found = [
        element("figure", element("figcaption", short(each.metric, _NAME)), figures.curve(each))
        for each in contents.curves(evaluation)
    ]
    if not found:
        return []
    note = "What is lost among the surest answers, from the surest alone to all of them."
    return [
        element("h2", "Risk and coverage"),
        element("p", note, class_="note"),
        element("div", *found, class_="grid"),
    ]


def _reasons(evaluation: Evaluation) -> list[Element]:
    found = [
        element(
            "tr",
            element("td", f"{count:,}", class_="number"),
            element("th", short(name, _NAME), scope="row"),
            element("td", short(reason, 500)),
        )
        for name, reason, count in contents.reasons(evaluation, 20)
    ]
    if not found:
        return []
    table = element("div", element("table", element("tbody", *found)), class_="wide")
    failures = [failure_block(each) for each in contents.failed(evaluation.trials, 5)]
    return [element("h2", "What was not scored"), table, *failures]


def _cases(evaluation: Evaluation, most: int) -> list[Element]:
    losses = contents.worst(evaluation, most)
    if not losses:
        return []
    blocks = _within(case_block(loss, is_open=not place) for place, loss in enumerate(losses))
    text = f"The {len(blocks)} that lost most" if len(blocks) > 1 else "The one that lost most"
    counted = " in the metrics that gates look at" if evaluation.described.suite.gates else ""
    return [
        element("h2", "Worst cases"),
        element("p", f"{text}{counted}.", class_="note"),
        *blocks,
    ]


def _regressions(evaluation: Evaluation, before: Evaluation | None, most: int) -> list[Element]:
    if before is None:
        return []
    found = contents.regressions(before, evaluation, most)
    if not found:
        words = "No case lost against the baseline in what gates look at."
        return [element("h2", "Lost against the baseline"), element("p", words, class_="note")]
    blocks = _within(regression_block(each) for each in found)
    text = f"The {len(blocks)} that lost most" if len(blocks) > 1 else "The one that lost most"
    return [
        element("h2", "Lost against the baseline"),
        element("p", f"{text} beside what they scored before.", class_="note"),
        *blocks,
    ]


def _within(blocks: Iterable[Element]) -> list[Element]:
    """Return as many blocks of cases as there is room for."""
    found: list[Element] = []
    room = _CASE_BYTES
    for block in blocks:
        room -= len(html.tostring(block, encoding="utf-8"))
        if room < 0:
            break
        found.append(block)
    return found
