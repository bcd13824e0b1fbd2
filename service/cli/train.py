"""`ragstone train`: plan and run a fine-tuning from a YAML file, or go on with a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli import train_forms, train_plan, train_retrain, train_retrieval, train_sweep
from service.cli.deciding import ASKED_TO_GO, Deciding
from service.cli.output import Json, note, print_json, printable, say
from service.cli.session import opened

if TYPE_CHECKING:
    from training.finetune import Outcome
    from training.spec import FineTuning

COMPARED = ("accuracies", "accuracy", "margins", "margin")
"""Names of what methods that compare answers measure."""

FIRST_SECONDS = 10.0
"""That others leave the first process to say why all end: launchers end all with any of them."""

app = typer.Typer(
    help="Fine-tune models.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("plan")(train_plan.plan)
app.command("schema")(train_plan.schema)
app.command("sweep")(train_sweep.sweep)
app.command("merge")(train_forms.merge)
app.command("compress")(train_forms.compress)
app.command("export")(train_forms.export)
app.command("embedder", cls=Deciding)(train_retrieval.embedder)
app.command("reranker", cls=Deciding)(train_retrieval.reranker)
app.command("retrain")(train_retrain.retrain)
Smoke = Annotated[bool, typer.Option(help="Try a few steps before the run begins.")]
ProgressTo = Annotated[
    Path | None,
    typer.Option("--progress", help="Append what happens to this file, as JSON."),
]
Folder = Annotated[
    Path | None, typer.Option(help="Of this run; else below the data folder, by what is asked.")
]


@app.command("run")
def run(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="The specification, in YAML.")],
    folder: Folder = None,
    smoke: Smoke = True,
    progress: ProgressTo = None,
    json: Json = False,
) -> None:
    """Fine-tune as specified; a run that broke off goes on from its last whole checkpoint."""
    from training.spec import read

    _run(read(spec), spec.absolute().parent, folder, _Wishes(json, smoke, progress=progress))


@app.command("rerun")
def rerun(
    lock: Annotated[
        Path, typer.Argument(metavar="LOCK", help="The lock.json of an earlier run's folder.")
    ],
    folder: Folder = None,
    smoke: Smoke = True,
    json: Json = False,
) -> None:
    """Train anew what an earlier run was of: the same specification, model and rows, or nothing."""
    from training.locking import read_lock

    found = read_lock(lock)
    again = folder or lock.absolute().parent.with_name(f"{lock.absolute().parent.name}-again")
    _run(found.spec, Path(found.folder), again, _Wishes(json, smoke, found.digests))


@dataclass(frozen=True, slots=True)
class _Wishes:
    json: bool
    smoke: bool
    expected: Mapping[str, str] | None = None
    """Digests of an earlier run."""
    progress: Path | None = None
    """A file for what happens."""


def _run(
    spec: FineTuning,
    beside: Path,
    folder: Path | None,
    wishes: _Wishes,
) -> None:
    from service.cli.training_bar import bar
    from service.models import tuning
    from training.finetune import AskedToGo, finetune
    from training.progress_file import telling
    from training.ranks import SaidByFirst, this_rank

    is_first = this_rank().is_first
    with telling(wishes.progress if is_first else None) as told, opened() as parts:
        around = tuning.around(parts, beside, note=_all(note, told.note) if is_first else _nobody)
        around = replace(around, evaluated=told.evaluated, planned=told.planned)
        around = replace(around, expected=wishes.expected, smokes=wishes.smoke)
        try:
            with bar() as draw:
                around = replace(around, tell=_all(draw, told.step))
                outcome = finetune(spec, folder or tuning.folder_of(parts, spec), around)
        except AskedToGo as error:
            if is_first:
                note(f"ragstone: {error.message}")
            raise typer.Exit(ASKED_TO_GO) from None
        except SaidByFirst:
            time.sleep(FIRST_SECONDS)
            raise typer.Exit(train_plan.FAILED) from None
        if is_first:
            _print(outcome, json=wishes.json)
            _require_pass(outcome)


def _require_pass(outcome: Outcome) -> None:
    """End the command as one that failed, and tell who follows it, if the suites did not pass."""
    from training.judging import PASS, NotPassed

    if outcome.verdict not in {None, PASS}:
        raise NotPassed(
            f"{outcome.adapter} has no alias, the verdict of its suites is {outcome.verdict}: "
            f"{outcome.reason}"
        )


def _all(*listeners: Callable[[Any], object]) -> Callable[[Any], None]:
    def tell(said: Any) -> None:
        for listener in listeners:
            listener(said)

    return tell


def _nobody(_: object) -> None:
    """Listen to nothing."""


def _print(outcome: Outcome, *, json: bool) -> None:
    if json:
        print_json(asdict(outcome))
        return
    say(printable(outcome.adapter))
    words = f"loss {outcome.first_loss:.4g} -> {outcome.last_loss:.4g} in {outcome.steps} steps"
    if outcome.eval_loss_before is not None and outcome.eval_loss_after is not None:
        words += f", held-out {outcome.eval_loss_before:.4g} -> {outcome.eval_loss_after:.4g}"
    for name, value in outcome.metrics.items():
        if name.rpartition("/")[2].removeprefix("eval_") in COMPARED:
            words += f", {name} {value:.3g}"
    note(f"{words}, {outcome.tokens_per_second:,.0f} tokens/s")
