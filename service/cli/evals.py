"""`ragstone eval`: run suites, compare evaluations, and say by the exit code what may go live."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.errors import InvalidRequest, NotFound
from service.cli import eval_sets, judges
from service.cli.deciding import Deciding
from service.cli.eval_diagnose import diagnose
from service.cli.eval_labels import labels
from service.cli.eval_reports import Html, Junit, Markdown, write_reports
from service.cli.output import Json, note, print_json, print_table, say
from service.cli.session import opened

if TYPE_CHECKING:
    from evals.evaluation import Evaluation
    from evals.run import Plan
    from evals.suite import CheckUse, Suite
    from service.evaluation.evaluating import Stored
    from service.wiring import Components

CASES = 25
"""Worst cases on a page if nobody says otherwise; 50 keep it below two megabytes."""
UNDERPOWERED = 2

app = typer.Typer(
    help="Evaluate a target with a suite, and hold its gates against the scores.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

app.command("build")(eval_sets.build)
app.command("prepare")(eval_sets.prepare)
app.command("review")(eval_sets.review)
app.command("leakage", cls=Deciding)(eval_sets.leakage)
app.command("diagnose")(diagnose)
app.command("labels")(labels)
app.add_typer(judges.app, name="judge")

SuitePath = Annotated[
    Path, typer.Argument(metavar="SUITE", help="A YAML file, or the name of a shipped suite.")
]
Unreviewed = Annotated[
    bool, typer.Option("--unreviewed", help="Run cases too that nobody has accepted yet.")
]
Offline = Annotated[
    bool, typer.Option("--offline", help="Ask no judge; only what one answered before counts.")
]
Since = Annotated[
    datetime | None,
    typer.Option(help="Compare a shadow's calls from this time on, in UTC; else the suite's."),
]
Ref = Annotated[
    str, typer.Argument(metavar="EVALUATION", help="Such as faq@v3 or evaluation/faq@baseline.")
]


@app.command("run", cls=Deciding)
def run(
    suite: SuitePath,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="EVALUATION", help="Compare with this one; else the suite's."),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where a run that was stopped had come to.")
    ] = False,
    unreviewed: Unreviewed = False,
    offline: Offline = False,
    since: Since = None,
    underpowered: Annotated[
        bool, typer.Option("--underpowered", help="Run although a gate has too few cases to pass.")
    ] = False,
    html: Html = None,
    junit: Junit = None,
    markdown: Markdown = None,
    json: Json = False,
) -> None:
    """Run a suite, keep the results as evaluation/NAME, and decide.

    A suite with too few cases for its gates is not run: it would cost, and could not tell.

    Exits with 0 if every gate passes, 1 if one fails, 2 if it cannot be told (inconclusive or
    underpowered), 3 if there is no verdict: too much was not scored, or the run could not be made.
    """
    import asyncio

    from evals.suite import read
    from service.cli.eval_output import bar, print_evaluation
    from service.evaluation import evaluating

    chosen, folder = _wanted(read(suite), unreviewed=unreviewed, since=since), _folder(suite)
    with opened() as parts:
        before = _baseline(parts, chosen, baseline)
        plan = evaluating.plan(parts, chosen, folder, before)
        if not _announce(parts, plan, resume=resume) and not underpowered:
            asyncio.run(plan.target.close())
            note("Not run: add cases, accept a wider limit, or run it anyway with --underpowered")
            raise typer.Exit(UNDERPOWERED)
        with bar(plan.trials) as on_trial:
            work = evaluating.carry_out(
                parts, plan, resume=resume, on_trial=on_trial, before=before, is_offline=offline
            )
            evaluation = asyncio.run(work)
        judgement, stored = evaluating.conclude(parts, plan, evaluation, before, folder=folder)
    if json:
        print_json({"evaluation": str(stored), **evaluating.summary(evaluation, judgement)})
    else:
        print_evaluation(evaluation, judgement)
        say(f"kept as {stored}")
        if judgement.unjudged:
            alias = f"ragstone artifacts tag {stored} baseline"
            note(f"To compare later runs with this one: {alias}")
    _say_what_is_left(evaluation)
    files = {"html": html, "junit": junit, "markdown": markdown}
    was = None if before is None else before.evaluation
    write_reports(evaluation, judgement, name=str(stored), files=files, cases=CASES, before=was)
    raise typer.Exit(judgement.exit_code)


@app.command("validate")
def validate(suite: SuitePath, unreviewed: Unreviewed = False, json: Json = False) -> None:
    """See that a suite, its cases, its metrics and its target are there; nothing is asked."""
    import asyncio

    from evals.suite import read
    from service.evaluation import evaluating

    chosen = _wanted(read(suite), unreviewed=unreviewed)
    with opened() as parts:
        plan = evaluating.plan(parts, chosen, _folder(suite))
        asyncio.run(plan.target.close())
    found = {
        "name": chosen.name,
        "digest": chosen.digest,
        "dataset": plan.cases.source,
        "cases": len(plan.cases.cases),
        "left_out": plan.cases.left_out,
        "trials": plan.trials,
        "metrics": list(plan.metrics),
        "slices": evaluating.members(plan),
        "without_copies": evaluating.without_copies(plan),
        "shortages": evaluating.shortages(plan),
    }
    if json:
        print_json(found)
        return
    for words in (*evaluating.shortages(plan), *evaluating.remarks(plan)):
        note(words)
    slices = ", ".join(f"{name} {count}" for name, count in evaluating.members(plan).items())
    say(f"{chosen.name}: {plan.trials} trials of {plan.cases.source}; cases: {slices}")
    say(f"metrics: {', '.join(plan.metrics)}; {len(chosen.gates)} gates; {chosen.digest}")


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of a suite, which editors complete and check YAML with."""
    from evals.suite import schema as describe

    print_json(describe())


@app.command("compare", cls=Deciding)
def compare(
    before: Ref,
    after: Ref,
    cases: Annotated[int, typer.Option(min=0, help="Changed cases to show, worst first.")] = 10,
    json: Json = False,
) -> None:
    """Show what changed between two evaluations of the same cases.

    The gates of the later one are held against the earlier one, and what its checks found stands;
    exits as `run` does.
    """
    from evals import comparison
    from evals.verdicts import Judgement, judge
    from service.cli.eval_output import number, print_differences, print_judgement
    from service.evaluation import evaluating

    with opened() as parts:
        old, new = (evaluating.find(parts, each) for each in (before, after))
    rows = comparison.compare(old.evaluation, new.evaluation)
    changed = comparison.changes(old.evaluation, new.evaluation)
    findings = Judgement.from_dict(new.verdict).findings
    judgement = judge(new.evaluation, old.evaluation, name=str(old.reference), findings=findings)
    if json:
        print_json({"differences": rows, "changes": changed, "judgement": judgement.as_dict()})
        raise typer.Exit(judgement.exit_code)
    print_differences(rows)
    if changed[:cases]:
        say()
        print_table(
            ("metric", "case", "before", "after"),
            [
                [one.metric, one.case, number(one.before), number(one.after)]
                for one in changed[:cases]
            ],
            numbers=("before", "after"),
        )
    print_judgement(judgement)
    raise typer.Exit(judgement.exit_code)


@app.command("report")
def report(
    evaluation: Ref,
    html: Html = None,
    junit: Junit = None,
    markdown: Markdown = None,
    cases: Annotated[int, typer.Option(min=0, max=50, help="Worst cases to show.")] = CASES,
) -> None:
    """Write a stored evaluation as a page, as JUnit XML or as Markdown.

    If no file is named, the page is written as NAME-vN.html into this folder.
    """
    from evals.verdicts import Judgement
    from service.evaluation import evaluating

    with opened() as parts:
        found = evaluating.find(parts, evaluation)
        judgement = Judgement.from_dict(found.verdict)
        before = _compared(parts, judgement.baseline)
    if not (html or junit or markdown):
        html = Path(f"{found.reference.name}-v{found.reference.version}.html")
    write_reports(
        found.evaluation,
        judgement,
        name=str(found.reference),
        files={"html": html, "junit": junit, "markdown": markdown},
        cases=cases,
        before=before,
    )


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="Of one suite; of all by default.")] = None,
    json: Json = False,
) -> None:
    """List evaluations, newest first."""
    from service.evaluation import evaluating

    with opened() as parts:
        rows = evaluating.listed(parts, name)
    if json:
        print_json(rows)
    elif rows:
        columns = ("evaluation", "verdict", "trials", "failures", "dataset", "made", "aliases")
        print_table(columns, [[row[each] for each in columns] for row in rows])
    else:
        note("No evaluation is stored; run: ragstone eval run SUITE")


@app.command("show")
def show(
    evaluation: Ref,
    case: Annotated[str | None, typer.Option(help="Show one case with its output.")] = None,
    json: Json = False,
) -> None:
    """Show the scores of an evaluation, or all of one case."""
    from service.evaluation import evaluating

    with opened() as parts:
        found = evaluating.find(parts, evaluation)
    if case is not None:
        _show_case(found, case, json=json)
    elif json:
        print_json({"evaluation": str(found.reference), **evaluating.described(found)})
    else:
        from service.cli.eval_output import print_stored

        print_stored(found)


def _show_case(found: Stored, case: str, *, json: bool) -> None:
    from evals.records import pack

    trials = [trial for trial in found.evaluation.trials if trial.case.id == case]
    if not trials:
        known = [trial.case.id for trial in found.evaluation.trials]
        raise NotFound("case", case, among=known)
    rows = [{"case": trial.case, **pack(trial)} for trial in trials]
    if json:
        print_json(rows)
        return
    for trial in trials:
        say(f"? {trial.case.input}", style="bold")
        say(f"expected: {trial.case.expected}")
        say(
            trial.failure
            if trial.output is None
            else trial.output.text or str(trial.output.prediction)
        )
        for name, score in trial.scores.items():
            value = score.state if score.value is None else f"{score.value:.4g}"
            say(f"  {name}: {value}{f' ({score.reason})' if score.reason else ''}")


def _wanted(suite: Suite, *, unreviewed: bool, since: datetime | None = None) -> Suite:
    changes: dict[str, Any] = {}
    if unreviewed:
        changes["dataset"] = suite.dataset.model_copy(update={"unreviewed": True})
    if since is not None:
        changes["checks"] = tuple(_from(use, since) for use in suite.checks)
        if changes["checks"] == suite.checks:
            raise InvalidRequest(
                "--since is for a `shadow` check of a `model`, and the suite has none"
            )
    return suite.model_copy(update=changes)


def _from(use: CheckUse, since: datetime) -> CheckUse:
    """Return a check that compares recorded calls from a moment on; others are as they were."""
    if use.check != "shadow" or not use.parameters.get("model"):
        return use
    return use.model_copy(update={"parameters": {**use.parameters, "since": since}})


def _say_what_is_left(evaluation: Evaluation) -> None:
    if evaluation.failures:
        note(f"{evaluation.failures} trials have no output; --resume tries those again")
    if evaluation.postponed:
        note(f"{evaluation.postponed} trials lack a score; --resume makes it up later")


def _folder(suite: Path) -> Path:
    from evals.suite import locate

    return locate(suite).parent


def _baseline(parts: Components, suite: Suite, given: str | None) -> Stored | None:
    """Return what to compare with; that of the suite need not be there before its first run."""
    from service.evaluation import evaluating

    if given is not None:
        return evaluating.find(parts, given)
    if suite.baseline is None:
        return None
    try:
        return evaluating.find(parts, suite.baseline)
    except NotFound as error:
        note(f"There is nothing to compare with: {error.message}")
        return None


def _compared(parts: Components, name: str | None) -> Evaluation | None:
    """Return what an evaluation was compared with, if it is still there."""
    from service.evaluation import evaluating

    try:
        return None if name is None else evaluating.find(parts, name).evaluation
    except NotFound as error:
        note(f"What was lost against the baseline is left out: {error.message}")
        return None


def _announce(parts: Components, plan: Plan, *, resume: bool) -> bool:
    """Say what is known before a run; return whether every gate has cases enough."""
    from evals.run import journal_of
    from service.evaluation import evaluating

    shortages = evaluating.shortages(plan)
    for words in (*shortages, *evaluating.remarks(plan)):
        note(words)
    there = journal_of(plan, evaluating.journals(parts)).exists()
    if there and not resume:
        note("A run of the same was stopped before its end; this one begins anew (see --resume)")
    elif resume and not there:
        note("No run of the same was stopped before its end; this one begins anew")
    return not shortages
