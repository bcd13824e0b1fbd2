"""`ragstone eval build`, `review` and `leakage`: test sets, made, decided on and kept apart."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from infra.errors import InvalidRequest
from service.cli.output import Json, note, print_json, print_table, say
from service.cli.session import opened

if TYPE_CHECKING:
    from evals.testsets.review import Row
    from service.evaluation.test_sets import Wanted
    from service.wiring import Components

LEAKED = 1
FileOfCases = Annotated[
    Path, typer.Argument(metavar="FILE", help="Cases as JSON Lines, such as cases.jsonl.")
]


def build(
    file: FileOfCases,
    collection: Annotated[
        str | None, typer.Option("--collection", "-c", help="Ask about the documents of this one.")
    ] = None,
    interactions: Annotated[
        bool, typer.Option("--interactions", help="Take what was asked over HTTP instead.")
    ] = False,
    count: Annotated[int, typer.Option(min=1, help="Cases to propose.")] = 50,
    unanswerable: Annotated[
        int, typer.Option(min=0, help="Further ones on other collections' topics.")
    ] = 0,
    other: Annotated[
        list[str] | None, typer.Option(help="Take these topics from here; else from any other.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Interactions of this model only.")] = None,
    writer: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Have this model at JUDGE_URL write the cases."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another draw of the same.")] = 0,
    json: Json = False,
) -> None:
    """Propose cases of a test set, for review; what FILE holds already stays as it is."""
    from evals.testsets import review
    from service.evaluation import test_sets

    if (collection is None) == (not interactions):
        raise InvalidRequest("Give either --collection NAME or --interactions")
    with opened() as parts:
        if collection is None:
            rows = test_sets.from_interactions(parts, count, model=model, seed=seed)
        else:
            wanted = test_sets.Wanted(
                collection, count, unanswerable, tuple(other or ()), seed=seed
            )
            rows = _proposed(parts, wanted, writer)
    kept = review.read(file) if file.exists() else []
    merged = review.merge(kept, rows)
    review.write(file, merged)
    new = merged[len(kept) :]
    if json:
        print_json({"file": str(file), "cases": len(merged), "proposed": new})
        return
    say(f"{file}: {len(new)} cases proposed, {len(kept)} kept")
    asked = count + unanswerable
    if len(rows) < asked:
        note(f"There was nothing to ask {asked} questions about, but for {len(rows)}")
    if new:
        note(f"A suite runs what was accepted: ragstone eval review {file}")


def prepare(
    name: Annotated[str, typer.Argument(help="Of the shipped suite, such as scifact.")],
    data: Annotated[
        Path, typer.Option("--from", metavar="FOLDER", help="Of the public data, as files.")
    ],
    folder: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="To write to.")],
    json: Json = False,
) -> None:
    """Write a shipped suite with cases and documents made from public data that you have."""
    from evals.testsets import public

    found = public.prepare(name, data, folder)
    if json:
        print_json(found)
        return
    say(f"{found.suite}: {found.cases} cases, {found.documents} documents")
    if found.documents:
        note(f"Ingest them first: ragstone ingest {folder / 'documents'} -c {name}")
    note(f"Then: ragstone eval run {found.suite}")


def review(
    file: FileOfCases,
    accept: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Accept this case; may be repeated.")
    ] = None,
    reject: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Reject this case; may be repeated.")
    ] = None,
    accept_all: Annotated[
        bool, typer.Option("--accept-all", help="Accept every case that is still proposed.")
    ] = False,
    edit: Annotated[
        str | None, typer.Option(metavar="ID", help="Change this case by the options below.")
    ] = None,
    question: Annotated[str | None, typer.Option(help="With --edit: the new question.")] = None,
    answer: Annotated[str | None, typer.Option(help="With --edit: the right answer.")] = None,
    unanswerable: Annotated[
        bool, typer.Option("--unanswerable", help="With --edit: the right thing is to refuse.")
    ] = False,
    state: Annotated[
        str | None, typer.Option(help="List only: proposed, accepted, rejected or edited.")
    ] = None,
    json: Json = False,
) -> None:
    """List cases with their review states, or decide on some by their ids."""
    from evals.testsets import review as reviewing

    if state is not None and state not in reviewing.STATES:
        raise InvalidRequest(f"--state is {state!r}; there are {', '.join(reviewing.STATES)}")
    rows = reviewing.read(file)
    changes = _changes(question, answer, unanswerable=unanswerable)
    if bool(changes) != (edit is not None):
        raise InvalidRequest("--edit ID goes with --question, --answer or --unanswerable")
    for ids, decided in ((accept, reviewing.RUN[0]), (reject, "rejected")):
        reviewing.decide(rows, ids or [], decided)
    if edit is not None:
        reviewing.edit(rows, edit, changes)
    if accept_all:
        left = [str(row["id"]) for row in rows if reviewing.state_of(row) == "proposed"]
        reviewing.decide(rows, left, "accepted")
    if accept or reject or edit or accept_all:
        reviewing.write(file, rows)
    shown = [row for row in rows if state in {None, reviewing.state_of(row)}]
    if json:
        print_json(shown)
    else:
        _print(rows, shown)


def leakage(
    suite: Annotated[
        Path, typer.Argument(metavar="SUITE", help="A YAML file, or the name of a shipped suite.")
    ],
    trainset: Annotated[
        str, typer.Argument(metavar="TRAINSET", help="A file of rows, or dataset/NAME@v1.")
    ],
    similarity: Annotated[
        float, typer.Option(min=0.1, max=1, help="From which a text is nearly the same.")
    ] = 0.8,
    allow: Annotated[int, typer.Option(min=0, help="Leaked cases that are put up with.")] = 0,
    json: Json = False,
) -> None:
    """Look for the cases of a suite in a training set; exits with 1 if there are any."""
    from evals.suite import locate, read
    from service.evaluation import test_sets

    chosen, folder = read(suite), locate(suite).parent
    with opened() as parts:
        found = test_sets.leaks(parts, chosen, folder, trainset, similarity=similarity)
    if json:
        print_json(found)
    else:
        if found.leaks:
            columns = ("case", "kind", "similarity", "row", "text")
            rows = [
                [each.case, each.kind, f"{each.similarity:.2f}", each.row, each.text]
                for each in found.leaks
            ]
            print_table(columns, rows, numbers=("similarity",))
        say(f"{len(found.leaks)} of {found.cases} cases are among {found.rows} training rows")
    if len(found.leaks) > allow:
        raise typer.Exit(LEAKED)


def _proposed(parts: Components, wanted: Wanted, writer: str | None) -> list[Row]:
    from service.evaluation import test_sets

    if writer is None:
        return test_sets.from_documents(parts, wanted)
    if wanted.unanswerable:
        raise InvalidRequest(
            "--unanswerable cases come from templates; build them without --writer"
        )
    rows, left_out = test_sets.from_model(parts, wanted, model=writer)
    for why, number in left_out.items():
        note(f"{number} left out: {why}")
    return rows


def _changes(question: str | None, answer: str | None, *, unanswerable: bool) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if question is not None:
        changes["question"] = question
    if answer is not None:
        changes |= {"answer": answer, "answerable": True}
    if unanswerable:
        changes |= {"answer": None, "answerable": False}
    return changes


def _print(rows: list[Row], shown: list[Row]) -> None:
    from collections import Counter

    from evals.testsets.review import state_of

    columns = ("id", "state", "question", "answer", "from")
    print_table(columns, [[_cell(row, column) for column in columns] for row in shown])
    counts = Counter(state_of(row) or "without a state" for row in rows)
    say(", ".join(f"{count} {name}" for name, count in sorted(counts.items())))


def _cell(row: Row, column: str) -> str:
    from evals.testsets.review import COLUMN

    if column == "answer" and row.get("answerable") is False:
        return "(none)"
    names = {"state": COLUMN, "from": "relevant"}
    value = row.get(names.get(column, column))
    return "" if value is None else str(value)
