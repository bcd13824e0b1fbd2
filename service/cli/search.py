"""`ragstone search`: the passages that match a question, with scores and spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from service.cli.ingest import parse_value
from service.cli.output import (
    CollectionName,
    Json,
    note,
    place,
    print_json,
    printable,
    say,
    span,
    waiting,
)
from service.cli.session import opened

if TYPE_CHECKING:
    from infra.contracts import Passage
    from retrieval.filters import Filter
    from retrieval.search import SearchRequest

Filters = Annotated[
    list[str] | None,
    typer.Option(
        "--filter", metavar="KEY=VALUE|JSON", help="Metadata to match; all of them, if repeated."
    ),
]


def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    collection: CollectionName = "default",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Passages at most.")] = 8,
    mode: Annotated[
        Literal["hybrid", "dense", "lexical"],
        typer.Option(help="By meaning and words, by meaning alone, by words alone."),
    ] = "hybrid",
    filters: Filters = None,
    min_score: Annotated[
        float | None, typer.Option(min=0, max=1, help="Leave out passages that score less.")
    ] = None,
    fusion: Annotated[
        Literal["convex", "rrf"] | None, typer.Option(help="By scores, or by ranks alone.")
    ] = None,
    dense_weight: Annotated[
        float | None, typer.Option(min=0, max=1, help="Of the convex fusion; words have the rest.")
    ] = None,
    smoothing: Annotated[
        float | None, typer.Option(min=0, max=1, help="Part of a score from candidates alike.")
    ] = None,
    rerank: Annotated[
        bool | None, typer.Option("--rerank/--no-rerank", help="With the reranker of the settings.")
    ] = None,
    diversity: Annotated[
        float | None, typer.Option(min=0, max=1, help="0: by score alone, 1: by difference alone.")
    ] = None,
    neighbours: Annotated[
        int | None, typer.Option(min=0, max=10, help="Chunks around each passage to show with it.")
    ] = None,
    multi_query: Annotated[
        bool | None,
        typer.Option("--multi-query/--no-multi-query", help="Search for variants of the query."),
    ] = None,
    json: Json = False,
) -> None:
    """Print the passages that match best; what is not given is as the settings say."""
    from retrieval.search import SearchRequest

    request = SearchRequest(
        query,
        limit,
        parse_filters(filters or []),
        mode=mode,
        min_score=min_score,
        fusion=fusion,
        dense_weight=dense_weight,
        smoothing=smoothing,
        rerank=rerank,
        diversity=diversity,
        neighbours=neighbours,
        multi_query=multi_query,
    )
    _answer(request, collection, json=json)


def _answer(request: SearchRequest, collection: str, *, json: bool) -> None:
    with opened() as parts:
        within = parts.collections.get(collection)
        with waiting("searching"):
            result = parts.retriever.search(within, request)
    if json:
        print_json(
            {
                "query": request.text,
                "collection": within.name,
                "passages": result.passages,
                "timings_ms": result.timings_ms,
            }
        )
        return
    for number, passage in enumerate(result.passages, start=1):
        _print(number, passage)
    if not result.passages:
        note("Nothing found")


def parse_filters(texts: Sequence[str]) -> Filter | None:
    """Turn `key=value` pairs and JSON objects into one filter that asks for all of them."""
    from retrieval.filters import parse

    parsed = [_parse_one(text) for text in texts]
    if not parsed:
        return None
    return parse(parsed[0] if len(parsed) == 1 else {"type": "and", "filters": parsed})


def _parse_one(text: str) -> Any:
    import json

    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError as error:
            raise typer.BadParameter(f"{text!r} is not JSON: {error}") from None
    key, separator, value = text.partition("=")
    if not key or not separator:
        raise typer.BadParameter(f"{text!r} is neither KEY=VALUE nor a JSON object")
    return {"type": "eq", "key": key, "value": parse_value(value)}


def _print(number: int, passage: Passage) -> None:
    stages = ", ".join(f"{name} {score:.2f}" for name, score in sorted(passage.scores.items()))
    say(f"[{number}] {place(passage.source)}", style="bold")
    where = span(passage.start_char, passage.end_char, passage.page)
    say(f"    {where}; score {passage.score:.2f} ({stages})", style="dim")
    if passage.heading and passage.heading != passage.text.partition("\n")[0]:
        say(f"    {passage.heading}", style="italic")
    for line in printable(passage.text).splitlines():
        say(f"    {line}")
    say()
