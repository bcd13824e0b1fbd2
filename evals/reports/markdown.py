"""A summary of an evaluation in Markdown, short enough for a comment on a pull request."""

from __future__ import annotations

import re

from evals.evaluation import Evaluation
from evals.reports import contents
from evals.reports.elements import clean, number, short
from evals.reports.wording import MEANINGS, about, between, demand
from evals.trial import Trial
from evals.verdicts import Judgement

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>()#+\-!|~@&:])")
_MARKS = {"pass": "\u2705", "fail": "\u274c", "ungated": "\u26aa"}
_OTHER = "\u26a0\ufe0f"
_ROWS, _CASES, _TEXT = 40, 5, 120


def write(
    evaluation: Evaluation, judgement: Judgement, *, name: str, before: Evaluation | None = None
) -> str:
    """Return the summary; nothing that a model said can become markup, a link or a mention.

    With the baseline, `before`, the cases that lost most against it are in it.
    """
    described = evaluation.described
    parts = [f"### {_MARKS.get(judgement.verdict, _OTHER)} {plain(described.suite.name)}: "]
    parts[0] += f"{judgement.verdict}"
    parts.append(plain(judgement.reason or MEANINGS.get(judgement.verdict, "")))
    if judgement.decisions:
        rows = [
            [
                f"{_MARKS.get(each.verdict.value, _OTHER)} {each.verdict.value}",
                plain(demand(each.gate)) + ("" if each.gate.decides else " (warns)"),
                plain(between(each.interval)),
                f"{each.cases:,} of {each.planned:,}",
                plain(each.reason),
            ]
            for each in judgement.decisions[:_ROWS]
        ]
        parts.append(_table(["verdict", "gate", "found", "cases", "why"], rows))
    if judgement.unjudged:
        names = ", ".join(plain(each) for each in judgement.unjudged[:_ROWS])
        parts.append(f"Not judged, for want of a baseline: {names}")
    parts += _checks(judgement)
    parts.append(_scores(evaluation))
    parts += [] if before is None else _lost(before, evaluation)
    parts += _worst(evaluation)
    source, target = plain(described.dataset), plain(about(described.target))
    counts = f"{len(evaluation.trials):,} trials, {evaluation.failures:,} without output"
    beside = f", beside {plain(judgement.baseline)}" if judgement.baseline else ""
    parts.append(f"{plain(name)}: {counts}, of {source}; target {target}{beside}")
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: str) -> str:
    r"""Return a text as Markdown that shows it on one line, letter by letter.

    >>> print(plain("a|b <script>"))
    a\|b \<script\>
    """
    return _SPECIAL.sub(r"\\\1", short(" ".join(clean(text).split()), 500))


def _checks(judgement: Judgement) -> list[str]:
    rows = [
        [
            f"{_MARKS.get(each.verdict.value, _OTHER)} {each.verdict.value}",
            plain(each.name) + ("" if each.decides else " (warns)"),
            plain(each.reason),
            plain("; ".join(each.failing[:_CASES])),
        ]
        for each in judgement.findings[:_ROWS]
    ]
    return [_table(["verdict", "check", "why", "what fails"], rows)] if rows else []


def _scores(evaluation: Evaluation) -> str:
    summary = [*evaluation.summary(measured=False), *evaluation.summary(measured=True)]
    rows = [
        [
            plain(row["metric"]),
            plain(row["slice"]),
            number(row["mean"]),
            *(f"{row[each]:,}" for each in ("scored", "unscored", "refused", "error")),
        ]
        for row in summary[:_ROWS]
    ]
    heads = ["metric", "slice", "mean", "scored", "unscored", "refused", "error"]
    return _folded("Scores", _table(heads, rows))


def _lost(before: Evaluation, after: Evaluation) -> list[str]:
    rows = []
    for lost in contents.regressions(before, after, _CASES):
        asked = lost.after.case.question or str(lost.after.case.input)
        scores = ", ".join(
            f"{name} {_value(lost.before, name)} to {_value(lost.after, name)}"
            for name in lost.metrics
            if _value(lost.before, name) != _value(lost.after, name)
        )
        cells = (lost.case, asked, scores, _said(lost.before), _said(lost.after))
        rows.append([plain(short(each, _TEXT)) for each in cells])
    heads = ["case", "question", "scores", "before", "now"]
    return [_folded("Lost against the baseline", _table(heads, rows))] if rows else []


def _value(trial: Trial, name: str) -> str:
    score = trial.scores[name]
    return score.state if score.value is None else number(score.value)


def _said(trial: Trial) -> str:
    return "" if trial.output is None else trial.output.text or str(trial.output.prediction)


def _worst(evaluation: Evaluation) -> list[str]:
    rows = []
    for loss in contents.worst(evaluation, _CASES):
        case = loss.trials[0].case
        asked = case.question or str(case.input)
        cells = (case.id, asked, " | ".join(case.references), _said(loss.trials[0]))
        rows.append([plain(short(each, _TEXT)) for each in cells])
    heads = ["case", "question", "expected", "answer"]
    return [_folded("Worst cases", _table(heads, rows))] if rows else []


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{text}\n\n</details>"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(each)} |" for each in lines)
