"""Rebuilds, swaps, rolls back and writes, and says so; the kill test ends it at any moment."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from infra.settings import load_settings
from retrieval.building import Built
from retrieval.commit import Committed
from retrieval.sources.folder import walk
from service.wiring import Components

SIZES = (32, 48, 64)
"""Lengths of vectors: each rebuild takes another one than the build that is live."""


def say(*words: object) -> None:
    """One line, whole or not at all: a pipe takes short writes atomically."""
    sys.stdout.buffer.write((" ".join(map(str, words)) + "\n").encode())
    sys.stdout.buffer.flush()


def main(data_folder: str, database_url: str, documents: str) -> None:
    components = Components(
        load_settings(
            data_folder=data_folder,
            database_url=database_url,
            retrieval={"embedder": "hashing", "chunk_tokens": 60, "chunk_overlap_tokens": 10},
        )
    )
    components.builds.sweep(components.collections.get("kill"))
    say("ready")
    for number in _forever(documents):
        _turn(components, Path(documents), number=number)


def _forever(documents: str) -> Iterator[int]:
    counter = Path(documents).with_name("counter")
    while True:
        number = int(counter.read_text()) + 1 if counter.exists() else 0
        written = counter.with_suffix(".new")
        written.write_text(str(number))
        written.replace(counter)  # a kill leaves the one or the other
        yield number


def _turn(components: Components, documents: Path, *, number: int) -> None:
    whole = components.collections.get("kill")
    building = [each for each in components.builds.list(whole) if each.state == "building"]
    size = next(size for size in SIZES[number % 3 :] + SIZES if size != whole.recipe.dimension)
    recipe = components.recipe(embedder="hashing", embedder_options={"dimension": size})
    begun = building[0] if building else components.builds.start(whole, recipe)
    say("started", begun.id)
    for event in components.builder.fill(whole, begun):
        if isinstance(event, Built):
            say("built", begun.id, event.document_id)
    _write(components, documents, number)
    say("swapping", begun.id)
    components.builds.swap(whole)
    say("live", begun.id)
    _write(components, documents, number + 1)
    say("swapping", whole.build_id)
    components.builds.rollback(whole)
    say("live", whole.build_id)
    say("swapping", begun.id)
    components.builds.rollback(whole)
    say("live", begun.id)
    components.views.checkpoint(at_least=1)


def _write(components: Components, documents: Path, number: int) -> None:
    path = documents / f"note{number % 4}.md"
    text = f"note {number}"
    path.write_text(f"# Note\n\n{text} and what goes with it.", encoding="utf-8")
    whole = components.collections.get("kill")
    for event in components.ingester.ingest(whole, walk([path])):
        if isinstance(event, Committed):
            say("committed", path.name, number)


if __name__ == "__main__":
    main(*sys.argv[1:])
