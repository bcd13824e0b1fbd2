"""Puts, expires, checks out and collects as fast as it can; prints what must be there at last."""

from __future__ import annotations

import json
import random
import sys
from datetime import timedelta
from pathlib import Path

from infra.artifacts.folder import Folder
from infra.artifacts.gc import Policy
from infra.artifacts.publishing import Surroundings
from infra.artifacts.store import ArtifactStore
from infra.database.engine import Database

POLICY = Policy(grace=timedelta(0), trash=timedelta(0))
KEPT = 2
"""Versions that are not expired."""


def content(word: str) -> bytes:
    """Few different contents, so that processes share and drop the same blobs all the time."""
    return word.encode() * (1000 if word.islower() else 300_000)


def main(folder: Path, url: str, seed: int, rounds: int) -> None:
    chance = random.Random(seed)
    store = ArtifactStore(Folder(folder / "store"), Database(url), Surroundings(workers=2))
    name = f"dataset/worker{seed}"
    living: dict[str, dict[str, str]] = {}
    for turn in range(rounds):
        files = {path: chance.choice("abcABC") for path in chance.sample("uvwxyz", 3)}
        if chance.random() < 0.5:
            source = folder / f"source{seed}-{turn}"
            source.mkdir()
            lay_out(files, source)
            reference = store.put(source, name)
        else:
            with store.writer(name) as draft:
                lay_out(files, draft.folder)
            assert draft.reference is not None
            reference = draft.reference
        living.pop(str(reference), None)
        living[str(reference)] = files
        while len(living) > KEPT:
            oldest = next(iter(living))
            store.expire(oldest)
            del living[oldest]
        if chance.random() < 0.4:
            store.gc(POLICY)
        if chance.random() < 0.3:
            out = folder / f"out{seed}-{turn}"
            store.checkout(str(reference), out, verify=True)
            assert {path.name: path.read_bytes() for path in out.iterdir()} == {
                path: content(word) for path, word in files.items()
            }
    print(json.dumps(living))


def lay_out(files: dict[str, str], folder: Path) -> None:
    for path, word in files.items():
        (folder / path).write_bytes(content(word))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
