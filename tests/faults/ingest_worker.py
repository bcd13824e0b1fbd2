"""Ingests a folder, prints every acknowledgement at once; the kill tests end it at any moment."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from infra.contracts import Vectors
from infra.settings import load_settings
from retrieval.commit import Committed
from retrieval.embedders.hashing import HashingEmbedder
from retrieval.sources.folder import walk
from service.wiring import Components

CHECKPOINT_EVERY = 5


def say(*words: object) -> None:
    """One line, whole or not at all: a pipe takes short writes atomically."""
    sys.stdout.buffer.write((" ".join(map(str, words)) + "\n").encode())
    sys.stdout.buffer.flush()


class ToldEmbedder(HashingEmbedder):
    """Says which texts it embeds."""

    def embed(self, texts: Sequence[str], *, kind: Literal["query", "document"]) -> Vectors:
        for text in texts:
            say("embedded", hashlib.sha256(text.encode()).hexdigest())
        return super().embed(texts, kind=kind)


def main(data_folder: str, database_url: str, documents: str) -> None:
    components = Components(
        load_settings(
            data_folder=data_folder,
            database_url=database_url,
            retrieval={"embedder": "hashing", "chunk_tokens": 60, "chunk_overlap_tokens": 10},
        )
    )
    components.__dict__["embedder"] = ToldEmbedder(256, 256)
    collection = components.collections.get("kill")
    view = components.views.get(collection)
    say("ready")
    commits = 0
    for event in components.ingester.ingest(collection, walk([Path(documents)])):
        if isinstance(event, Committed):
            say("committed", event.version, event.uri)
            commits += 1
            if commits % CHECKPOINT_EVERY == 0:
                view.refresh()
                view.checkpoint(at_least=1)
    view.refresh()
    view.checkpoint(at_least=1)
    say("finished")
    components.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
