"""Forks one process per round: it does an operation and kills itself at the point it is told."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fault_points import Point, watch

from infra import expectations
from infra.database import migrate
from infra.settings import load_settings
from retrieval import builds, ingest
from retrieval.embedders import hashing
from retrieval.indexes import local
from retrieval.sources.folder import walk
from service.wiring import Components

IMPORTED = (expectations, migrate, builds, ingest, hashing, local)
"""Before the first fork, so that no round has to."""
SIZES = (32, 48, 64)
"""Lengths of vectors: each build takes another one than the build that is live."""


def say(*words: object) -> None:
    """One line, whole or not at all: a pipe takes short writes atomically."""
    sys.stdout.buffer.write((" ".join(map(str, words)) + "\n").encode())
    sys.stdout.buffer.flush()


def main() -> None:
    """Read one order per line; answer with what the process said, then `ended` and its status."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            _obey(json.loads(line))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        say("ended", os.waitstatus_to_exitcode(status))


def _obey(order: dict[str, Any]) -> None:
    components = Components(
        load_settings(
            data_folder=order["data_folder"],
            database_url=order["database_url"],
            retrieval={"embedder": "hashing", "chunk_tokens": 60, "chunk_overlap_tokens": 10},
        )
    )
    point = Point(**order["point"])
    work, acknowledged = OPERATIONS[point.operation](components, order)
    left = order["occurrence"]

    def reach() -> None:
        nonlocal left
        left -= 1
        if not left:
            say("reached", point)
            os.kill(os.getpid(), signal.SIGKILL)

    watch(point, reach)
    say("begun", acknowledged)
    work()
    say("done")


def _ingest(components: Components, order: dict[str, Any]) -> tuple[Callable[[], None], str]:
    name, number = order["write"]
    path = _written(order, name, number)
    whole = components.collections.get("kill")
    view = components.views.get(whole)

    def work() -> None:
        list(components.ingester.ingest(whole, walk([path])))
        view.refresh()

    return work, json.dumps({"write": [[name, number]]})


def _checkpoint(components: Components, order: dict[str, Any]) -> tuple[Callable[[], None], str]:
    view = _changed(components, order, order["changes"][:1])
    return lambda: view.checkpoint(at_least=1), "{}"


def _compact(components: Components, order: dict[str, Any]) -> tuple[Callable[[], None], str]:
    view = _changed(components, order, order["changes"])
    return lambda: view.checkpoint(at_least=1), "{}"


def _swap(components: Components, order: dict[str, Any]) -> tuple[Callable[[], None], str]:
    whole = components.collections.get("kill")
    [*building] = [each for each in components.builds.list(whole) if each.state == "building"]
    size = next(size for size in SIZES if size != whole.recipe.dimension)
    recipe = components.recipe(embedder="hashing", embedder_options={"dimension": size})
    begun = building[0] if building else components.builds.start(whole, recipe)
    list(components.builder.fill(whole, begun))

    def work() -> None:
        components.builds.swap(whole)

    return work, json.dumps({"live": begun.id})


def _delete(components: Components, order: dict[str, Any]) -> tuple[Callable[[], None], str]:
    whole = components.collections.get("kill")
    view = components.views.get(whole)
    view.refresh()
    [*stored] = components.documents.list(whole, limit=100).items
    [chosen] = [item for item in stored if item.filename == order["delete"]]

    def work() -> None:
        components.documents.delete(whole, chosen.file_id)
        view.refresh()
        components.files.sweep()

    return work, json.dumps({"delete": chosen.filename})


OPERATIONS: dict[str, Callable[..., tuple[Callable[[], None], str]]] = {
    "ingest": _ingest,
    "checkpoint": _checkpoint,
    "compaction": _compact,
    "swap": _swap,
    "delete": _delete,
}


def _changed(components: Components, order: dict[str, Any], changes: list[Any]) -> Any:
    """Write documents again, the index following each, so that there is something to save."""
    whole = components.collections.get("kill")
    view = components.views.get(whole)
    for name, number in changes:
        list(components.ingester.ingest(whole, walk([_written(order, name, number)])))
        view.refresh()
        say("wrote", name, number)
    return view


def _written(order: dict[str, Any], name: str, number: int) -> Path:
    path = Path(order["documents"], name)
    sentences = (f"Course {row} bears token{number} in it." for row in range(30))
    path.write_text(f"# Note\n\n{' '.join(sentences)}", encoding="utf-8")
    return path


if __name__ == "__main__":
    main()
