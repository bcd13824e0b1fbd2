"""`ragstone demo`: indexes the documentation, asks it questions and prints cited answers, timed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.ask import print_sources
from service.cli.corpus import (
    ABOUT_RAGSTONE,
    ABOUT_THE_DOCUMENTS,
    MAX_BYTES,
    MAX_PAGE_BYTES,
    UNANSWERABLE,
    documentation,
    neighbouring_documents,
    select,
)
from service.cli.ingest import Outcome, find_or_create, run
from service.cli.output import Json, print_json, print_table, printable, say, waiting
from service.cli.session import opened

if TYPE_CHECKING:
    from infra.contracts import Answer
    from retrieval.collections import Collection
    from service.wiring import Components

COLLECTION = "demo"


@dataclass(slots=True)
class _Record:
    """What the demo did, and how long each step took."""

    quiet: bool
    started: float
    steps: list[tuple[str, float]] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    ingests: list[Outcome] = field(default_factory=list)
    first_answer_seconds: float | None = None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.steps.append((name, time.perf_counter() - start))

    def say(self, text: str = "", *, style: str | None = None) -> None:
        if not self.quiet:
            say(text, style=style)

    def as_dict(self) -> dict[str, Any]:
        return {
            "first_answer_seconds": self.first_answer_seconds,
            "steps": [{"name": name, "seconds": seconds} for name, seconds in self.steps],
            "ingests": [outcome.as_dict() for outcome in self.ingests],
            "answers": self.answers,
        }


def demo(
    folder: Annotated[Path, typer.Option(help="Where the demo keeps its data.")] = Path(
        ".ragstone/demo"
    ),
    documents: Annotated[
        Path | None,
        typer.Option(
            envvar="RAGSTONE_DEMO_DOCUMENTS", help="A folder of documents to read as well."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Index the documentation and ask it questions.

    Running it again reads nothing that has not changed. Your own data folder is not touched.
    """
    if documents is not None and not documents.is_dir():
        raise typer.BadParameter(f"{str(documents)!r} is not a folder", param_hint="--documents")
    record = _Record(quiet=json, started=time.perf_counter())
    # A demo must neither fill a team's database nor depend on one.
    with opened(data_folder=folder, database_url=None) as parts:
        _show(parts, documents or neighbouring_documents(), record)
    if json:
        print_json(record.as_dict())
        return
    say()
    print_table(
        ("step", "seconds"),
        [(name, f"{seconds:.2f}") for name, seconds in record.steps],
        numbers=("seconds",),
    )
    say()
    say(f"First answer after {record.first_answer_seconds:.1f} s", style="bold")
    say(f"Ask on: RAGSTONE_DATA_FOLDER={folder} ragstone ask QUESTION -c {COLLECTION}")


def _show(parts: Components, documents: Path | None, record: _Record) -> None:
    with record.step("load the model"), waiting("loading the model"):
        parts.embedder.embed(["warm up"], kind="query")
    into = find_or_create(parts, COLLECTION)
    _ingest(parts, into, documentation(), record, max_bytes=MAX_PAGE_BYTES)
    _ask(parts, into, ABOUT_RAGSTONE, record)
    if documents is not None:
        _ingest(parts, into, documents, record)
        known = {path.name for path in documents.rglob("*")}
        questions = [question for file, question in ABOUT_THE_DOCUMENTS if file in known]
        _ask(parts, into, questions, record)
    _ask(parts, into, [UNANSWERABLE], record)


def _ingest(
    parts: Components,
    into: Collection,
    folder: Path,
    record: _Record,
    *,
    max_bytes: int = MAX_BYTES,
) -> None:
    from retrieval.sources.folder import walk

    chosen = select(walk([folder]), max_bytes=max_bytes)
    record.say(f"Reading {len(chosen.sources)} files of {printable(str(folder))}", style="bold")
    with record.step(f"read, split, embed and index {folder.name}/"):
        outcome = run(parts, into, chosen.sources)
    record.ingests.append(outcome)
    summary = outcome.summary
    record.say(
        f"  {summary.added} added, {summary.updated} updated, {summary.unchanged} unchanged: "
        f"{summary.chunks} chunks in {outcome.seconds:.1f} s"
    )
    reasons = ", ".join(sorted({item.code for item in summary.skipped}))
    if summary.skipped:
        record.say(f"  {len(summary.skipped)} cannot be read ({reasons})")
    if chosen.too_large:
        record.say(f"  {chosen.too_large} larger than {max_bytes // 1000} kB left out of the demo")


def _ask(
    parts: Components, collection: Collection, questions: Sequence[str], record: _Record
) -> None:
    for question in questions:
        record.say()
        record.say(f"? {question}", style="bold cyan")
        with record.step(f"answer: {question}"):
            answer = asyncio.run(parts.answering.answer(question, collection))
        if record.first_answer_seconds is None:
            record.first_answer_seconds = time.perf_counter() - record.started
        record.answers.append(answer)
        record.say(answer.text)
        if not record.quiet:
            print_sources(answer)
        times = ", ".join(f"{name} {ms:.0f} ms" for name, ms in answer.timings_ms.items())
        record.say(f"     {times}", style="dim")
