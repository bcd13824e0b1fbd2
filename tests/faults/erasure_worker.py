"""Erases, deletes or compacts, and kills itself at the step that it is given."""

from __future__ import annotations

import os
import signal
import sys

from infra.settings import load_settings
from retrieval.receipts import Asked
from service.wiring import Components
from service.work.erasing import erase


def main(data_folder: str, action: str, step: str, count: str) -> None:
    left = int(count)

    def on_step(name: str) -> None:
        nonlocal left
        if name != step:
            return
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    components = Components(
        load_settings(
            data_folder=data_folder,
            retrieval={"embedder": "hashing", "chunk_tokens": 60, "chunk_overlap_tokens": 10},
        ),
        on_step=on_step,
    )
    whole = components.collections.get("secrets")
    secret = [
        each.file_id
        for each in components.documents.list(whole, limit=100).items
        if each.metadata.get("secret")
    ]
    if action == "erase":
        erase(components, whole, secret, by="test")
    elif action == "delete":
        for file_id in secret:
            components.erasure.erase_file(components.documents, file_id, asked=Asked("test"))
    elif action == "collection":
        components.delete_collection("secrets")
    components.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
