"""Fills a small disk with documents, asks, deletes, and goes on once there is room.

Run by `test_small_disk.py` where it may mount; prints a JSON object.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from infra.errors import RagstoneError
from infra.settings import load_settings
from retrieval.collections import Collection
from retrieval.ingest import Committed
from retrieval.search import SearchRequest
from retrieval.sources.folder import walk
from service.wiring import Components
from service.work import snapshots

SMALL, LARGE = "6m", "200m"
LITTLE_KILOBYTES = 300


def main(disk: Path, texts: Path) -> dict[str, Any]:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "none", disk], check=True)
    retrieval = {"embedder": "hashing", "chunk_tokens": 60, "chunk_overlap_tokens": 10}
    parts = Components(load_settings(data_folder=disk / "data", retrieval=retrieval))
    whole = parts.collections.create("gates", parts.recipe())
    said: dict[str, Any] = {}

    def ingest(folder: Path) -> tuple[list[str], str | None]:
        done: list[str] = []
        try:
            for event in parts.ingester.ingest(whole, walk([folder])):
                if isinstance(event, Committed):
                    done.append(event.uri)
        except RagstoneError as error:
            return done, f"{type(error).__name__}: {error}"
        return done, None

    def ask(text: str) -> list[str]:
        found = parts.retriever.search(whole, SearchRequest(text, limit=50)).passages
        return [Path(each.source).parent.name for each in found]

    said["few"] = ingest(texts / "few")
    said["before"] = ask("gate bolt")
    said["acknowledged"], said["error"] = ingest(texts / "many")
    said["while_full"] = ask("gate bolt")
    first = parts.documents.of_source(whole, said["few"][0][0])
    assert first is not None
    parts.views.checkpoint(at_least=1)
    _resize(disk, LARGE)
    parts.documents.delete(whole, first.file_id)
    said["rest"], said["error_then"] = ingest(texts / "many")
    held = parts.documents.list(whole, limit=100).items
    said["held"] = sorted(each.source for each in held)
    said["after"] = ask("gate bolt")
    parts.views.checkpoint(at_least=1)
    said["snapshot"], said["restore"], said["names"] = _snapshots(parts, whole, disk)
    parts.close()
    return said


def _snapshots(
    parts: Components, whole: Collection, disk: Path
) -> tuple[str | None, str | None, list[str]]:
    """Take one and bring it up again, each without room first; return what was said."""

    def without_room(work: Callable[[], object]) -> str | None:
        full = shutil.disk_usage(disk).used // 1024 + LITTLE_KILOBYTES
        _resize(disk, f"{full}k")
        try:
            work()
        except RagstoneError as error:
            return f"{type(error).__name__}: {error}"
        finally:
            _resize(disk, LARGE)
        return None

    taken = without_room(lambda: snapshots.take(parts, whole))
    reference = str(snapshots.take(parts, whole))
    restored = without_room(lambda: snapshots.restore(parts, reference, "again"))
    names = [each.name for each in parts.collections.list(limit=9).items]
    copy = snapshots.restore(parts, reference, "again")
    assert parts.retriever.count(copy) == parts.retriever.count(whole)
    return taken, restored, names


def _resize(disk: Path, size: str) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", disk], check=True)


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), Path(sys.argv[2]))))
