"""Evaluations as the terminal shows them: a bar while they run, scores, gates, differences."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from service.cli.output import console, print_table, say

if TYPE_CHECKING:
    from evals.comparison import Row
    from evals.evaluation import Evaluation
    from evals.gates import Decision
    from evals.trial import Trial
    from evals.verdicts import Judgement
    from service.evaluation.evaluating import Stored

_FAILING = 10
_STYLES = {"pass": "green", "fail": "red", "ungated": "dim"}


@contextmanager
def bar(total: int) -> Iterator[Callable[[Trial], None]]:
    """Draw a bar over the trials of a run, if someone is watching."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    failed = 0
    with Progress(
        TextColumn("evaluating"),
        BarColumn(bar_width=30),
        TextColumn("{task.completed:.0f}/{task.total:.0f} trials"),
        TextColumn("{task.fields[failed]}"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=console(sys.stderr),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as progress:
        task = progress.add_task("", total=total, failed="")

        def advance(trial: Trial) -> None:
            nonlocal failed
            failed += trial.output is None
            progress.update(task, advance=1, failed=f"{failed} failed" if failed else "")

        yield advance


def print_evaluation(evaluation: Evaluation, judgement: Judgement) -> None:
    """Print the scores and what the gates say of them."""
    from evals.reports.contents import reasons

    _print_scores(evaluation)
    print_judgement(judgement)
    # What does not apply needs no word here; the page says it.
    for name, reason, count in reasons(evaluation, 5, states=("refused", "error")):
        say(f"  {name}, {count} times: {reason}", style="dim")


def print_stored(found: Stored) -> None:
    """Print an evaluation of the store, with the verdict it had."""
    evaluation, verdict = found.evaluation, found.verdict
    _print_scores(evaluation)
    say()
    rows = [
        (each["gate"]["metric"], each["gate"]["slice"], each["verdict"], each["reason"])
        for each in verdict["decisions"]
    ]
    if rows:
        print_table(("gate", "slice", "verdict", "why"), rows)
    for each in verdict.get("findings", ()):
        say(f"check {each['name']}: {each['verdict']}, {each['reason']}")
    say(f"{found.reference}: verdict {verdict['verdict']}", style="bold")


def print_judgement(judgement: Judgement) -> None:
    """Print each gate, and the verdict."""
    if judgement.decisions:
        say()
        print_table(
            ("gate", "verdict", "found", "between", "cases", "why"),
            [_gate(each) for each in judgement.decisions],
            numbers=("found", "cases"),
        )
    _print_findings(judgement)
    say()
    why = f": {judgement.reason}" if judgement.reason else ""
    against = f" beside {judgement.baseline}" if judgement.baseline else ""
    style = _STYLES.get(judgement.verdict, "yellow")
    say(f"verdict {judgement.verdict}{against}{why}", style=f"bold {style}")


def _print_findings(judgement: Judgement) -> None:
    if not judgement.findings:
        return
    say()
    print_table(
        ("check", "verdict", "why"),
        [
            [each.name + ("" if each.decides else " (warns)"), each.verdict.value, each.reason]
            for each in judgement.findings
        ],
    )
    for each in judgement.findings:
        for words in each.failing[:_FAILING]:
            say(f"  {each.name}: {words}", style="dim")


def print_differences(rows: list[Row]) -> None:
    """Print what each metric is in two evaluations."""
    columns = ("metric", "slice", "before", "after", "difference", "between", "p", "cases")
    print_table(
        columns,
        [
            [
                row.metric,
                row.slice,
                number(row.before),
                number(row.after),
                number(row.difference),
                _between(row.low, row.high),
                number(row.p),
                row.cases,
            ]
            for row in rows
        ],
        numbers=("before", "after", "difference", "p", "cases"),
    )


def number(value: Any) -> str:
    """Return a value as a table shows it."""
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _print_scores(evaluation: Evaluation) -> None:
    rows = [*evaluation.summary(measured=False), *evaluation.summary(measured=True)]
    columns = ("metric", "slice", "mean", "scored", "unscored", "refused", "error")
    print_table(
        columns, [[number(row[name]) for name in columns] for row in rows], numbers=columns[2:]
    )


def _gate(decision: Decision) -> list[object]:
    found = decision.interval
    gate = decision.gate
    name = f"{gate.name} {gate.limit:g}" + ("" if gate.decides else " (warns)")
    return [
        name,
        decision.verdict.value,
        number(found.estimate if found else None),
        _between(found.low, found.high) if found else "-",
        decision.cases,
        decision.reason,
    ]


def _between(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{low:.4g} to {high:.4g}"
