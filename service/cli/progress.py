"""A progress bar over an ingest: documents, chunks, speed and the time that is left."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from service.cli.output import console

if TYPE_CHECKING:
    from rich.progress import Progress

    from retrieval.ingest import Event
    from retrieval.sources import Source, Unwalkable


def watched(events: Iterable[Event], sources: Sequence[Source | Unwalkable]) -> Iterator[Event]:
    """Yield the events of ingesting `sources`, drawing a bar if someone is watching.

    The bar measures bytes: documents differ too much in size for their count to tell the time.
    """
    from retrieval.embedding import Embedded
    from retrieval.ingest import Removed, Warned

    sizes = {source.uri: _size(source) for source in sources}
    documents = chunks = 0
    with _bar() as bar:
        task = bar.add_task(
            "reading", total=sum(sizes.values()), documents=0, of=len(sources), chunks=0
        )
        for event in events:
            if isinstance(event, Embedded):
                chunks += event.chunks
                bar.update(task, chunks=chunks, description="embedding")
            elif not isinstance(event, Warned | Removed):
                documents += 1
                bar.update(task, documents=documents, advance=sizes.get(event.uri, 0))
            yield event


def counted(events: Iterable[Event], *, total: int) -> Iterator[Event]:
    """Yield the events of a sync of `total` documents, drawing a bar if someone is watching."""
    from retrieval.embedding import Embedded
    from retrieval.ingest import Removed, Warned

    documents = chunks = 0
    with _bar() as bar:
        task = bar.add_task("fetching", total=total, documents=0, of=total, chunks=0)
        for event in events:
            if isinstance(event, Embedded):
                chunks += event.chunks
                bar.update(task, chunks=chunks)
            elif not isinstance(event, Warned | Removed):
                documents += 1
                bar.update(task, documents=documents, advance=1)
            yield event


def _bar() -> Progress:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[documents]}/{task.fields[of]} documents"),
        TextColumn("{task.fields[chunks]} chunks"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=console(sys.stderr),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def _size(source: Source | Unwalkable) -> int:
    from retrieval.sources import Source

    if not isinstance(source, Source):
        return 0
    try:
        return source.path.stat().st_size
    except OSError:  # gone or locked since it was listed: the ingest will say so
        return 0
