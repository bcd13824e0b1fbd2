"""`ragstone train embedder` and `reranker`: retrieval models, tuned on a collection's questions."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.deciding import ASKED_TO_GO, INTERRUPTED, NO_VERDICT
from service.cli.output import Json, note, print_json, print_table, printable, say, waiting
from service.cli.session import opened

if TYPE_CHECKING:
    from service.wiring import Components
    from training.retrieval_models.planning import Plan
    from training.retrieval_models.specification import Tuning
    from training.retrieval_models.tuning import Outcome

REFUSED, UNSURE = 1, 2
Specification = Annotated[Path, typer.Argument(metavar="SPEC", help="In YAML.")]
OnlyPlan = Annotated[
    bool, typer.Option("--plan", help="Check everything and say what it comes to; train nothing.")
]
Folder = Annotated[
    Path | None, typer.Option(help="Of this run; else below the data folder, by what is asked.")
]


def embedder(
    spec: Specification, plan: OnlyPlan = False, folder: Folder = None, json: Json = False
) -> None:
    """Tune an embedder on questions with the passages of a collection that answer them.

    It is registered if it finds more than the present one on questions held out; else the exit
    code is 1, or 2 where neither is sure, and 3 where there is no verdict. A run that broke off
    goes on from its last checkpoint.
    """
    _do("embedder", spec, folder, only_plan=plan, json=json)


def reranker(
    spec: Specification, plan: OnlyPlan = False, folder: Folder = None, json: Json = False
) -> None:
    """Tune a reranker on questions with the passages of a collection that answer them.

    It is registered if it orders passages better than they are now on questions held out; else the
    exit code is 1, or 2 where neither is sure, and 3 where there is no verdict.
    """
    _do("reranker", spec, folder, only_plan=plan, json=json)


def _do(kind: str, path: Path, folder: Path | None, *, only_plan: bool, json: bool) -> None:
    from training.retrieval_models.specification import read

    spec = read(path, kind)
    beside = path.absolute().parent
    with opened() as parts:
        if only_plan:
            _plan(parts, spec, beside, json=json)
        else:
            _run(parts, spec, beside, folder, json=json)


def _plan(parts: Components, spec: Tuning, beside: Path, *, json: bool) -> None:
    from service import retrieval_tuning
    from training.retrieval_models import planning

    with waiting("reading rows and looking for negatives"):
        found = planning.plan(spec, retrieval_tuning.surroundings(parts, beside))
    if json:
        print_json(
            {
                "problems": [asdict(each) for each in found.problems],
                "notes": found.notes,
                "lock": found.lock,
            }
        )
        if found.problems:
            raise typer.Exit(NO_VERDICT)
        return
    found.require_sound()
    for words in found.notes:
        note(words)
    _print_plan(found)


def _print_plan(found: Plan) -> None:
    lock = found.lock
    rows: list[tuple[str, object]] = [*lock["digests"].items()]
    rows += [(name, f"{count:,}") for name, count in lock["counts"].items()]
    rows.append(("steps", f"{lock['batches']['steps']:,}"))
    rows.append(("questions of a step", lock["batches"]["rows_per_step"]))
    print_table(("what", "comes to"), rows)


def _run(parts: Components, spec: Tuning, beside: Path, folder: Path | None, *, json: bool) -> None:
    from service import retrieval_tuning
    from service.cli.training_bar import bar
    from training.finetune import AskedToGo
    from training.retrieval_models.tuning import tune

    with bar(has_tokens=False) as draw:
        around = retrieval_tuning.around(parts, beside, note=note)
        around = replace(around, tell=draw)
        try:
            outcome = tune(spec, folder or retrieval_tuning.folder_of(parts, spec), around)
        except AskedToGo as error:
            note(f"ragstone: {error.message}")
            raise typer.Exit(ASKED_TO_GO) from None
        except KeyboardInterrupt:
            note("ragstone: stopped; the same command goes on from the last checkpoint")
            raise typer.Exit(INTERRUPTED) from None
    if json:
        print_json(asdict(outcome))
    else:
        _print(outcome)
    if outcome.verdict != "pass":
        raise typer.Exit(REFUSED if outcome.verdict == "fail" else UNSURE)


def _print(outcome: Outcome) -> None:
    columns = ("metric", "before", "after", "verdict", "reason")
    rows: list[list[Any]] = [
        [
            gate["metric"],
            f"{gate['before']:.4f}",
            f"{gate['after']:.4f}",
            gate["verdict"],
            gate["reason"],
        ]
        for gate in outcome.gates
    ]
    print_table(columns, rows)
    if outcome.verdict != "pass":
        note(f"{outcome.verdict}: nothing is registered; the model is in {outcome.model!r}")
        return
    say(printable(outcome.model))
