"""`ragstone ask`: an answer with numbered citations, printed as it is written."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.output import (
    CollectionName,
    Json,
    place,
    print_json,
    printable,
    say,
    span,
    waiting,
)
from service.cli.search import Filters, parse_filters
from service.cli.session import opened

if TYPE_CHECKING:
    from infra.contracts import Answer, Citation
    from retrieval.collections import Collection
    from retrieval.filters import Filter
    from service.wiring import Components

_MARKERS = re.compile(r"\s*((?:\[[\d, ]+\]\s?)+)")


def ask(
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    collection: CollectionName = "default",
    limit: Annotated[
        int | None, typer.Option(min=1, max=100, help="Passages to answer from; else the setting.")
    ] = None,
    generator: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The model that answers; else the setting.")
    ] = None,
    filters: Filters = None,
    json: Json = False,
) -> None:
    """Answer a question from the documents, with citations.

    Not finding an answer is a result, not a failure: the exit code is 0.
    """
    import asyncio

    chosen = parse_filters(filters or [])
    with opened() as parts:
        within = parts.collections.get(collection)
        with waiting("opening the model"):
            parts.answering  # noqa: B018  made at its first use, which takes seconds
            parts.embedder.embed([question], kind="query")
        answer = asyncio.run(
            answer_aloud(
                parts,
                within,
                question,
                show=_silence if json else _show,
                filter=chosen,
                limit=limit,
                generator=generator,
            )
        )
    if json:
        print_json(answer)
        return
    typer.echo()
    print_sources(answer)
    say(f"{answer.timings_ms['total'] / 1000:.2f} s, engine {answer.engine}", style="dim")


async def answer_aloud(
    parts: Components,
    collection: Collection,
    question: str,
    *,
    show: Callable[[str], None],
    filter: Filter | None = None,
    limit: int | None = None,
    generator: str | None = None,
) -> Answer:
    """Answer a question, handing each piece of the text to `show` as it comes."""
    from contextlib import aclosing

    from infra.errors import EngineFailed
    from service.answering import Finished, Text
    from service.callers import Caller

    chosen = parts.generators.choose(generator, Caller())
    answering = parts.answering.using(chosen.engine, rewrite=chosen.rewrite, admit=chosen.admit)
    events = answering.stream(question, collection, filter=filter, limit=limit)
    try:
        async with aclosing(events):
            async for event in events:
                if isinstance(event, Text):
                    show(event.text)
                elif isinstance(event, Finished):
                    return event.answer
    finally:
        await parts.routes.close()  # their connections belong to this event loop
    raise EngineFailed(f"The engine {parts.engine.name!r} ended without an answer")


def print_sources(answer: Answer) -> None:
    """Print where each citation stands, below the number that the answer gives it."""
    if not answer.answerable:
        say(f"No answer: {answer.reason}", style="dim")
    for number, citation in _numbered(answer):
        where = span(citation.start_char, citation.end_char, citation.page)
        source = printable(place(citation.source))
        say(f"{number:>4} {source}, {where}; support {citation.support:.2f}")
        if citation.text not in answer.text:
            say(f'     "{" ".join(citation.text.split())}"', style="dim")


def _numbered(answer: Answer) -> Iterator[tuple[str, Citation]]:
    """Yield the citations with the markers that follow their stretch of the answer."""
    told: dict[int, Iterator[str]] = {}
    for citation in answer.citations:
        if citation.answer_end not in told:
            match = _MARKERS.match(answer.text, citation.answer_end)
            told[citation.answer_end] = iter(re.findall(r"\d+", match.group()) if match else [])
        number = next(told[citation.answer_end], "")
        yield f"[{number}]" if number else "-", citation


def _silence(text: str) -> None:
    pass


def _show(text: str) -> None:
    sys.stdout.write(printable(text))
    sys.stdout.flush()
