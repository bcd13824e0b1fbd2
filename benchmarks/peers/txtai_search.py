"""txtai: its hybrid search over texts and vectors it is handed, so that fusion alone differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from txtai import Embeddings  # type: ignore[import-not-found]

from benchmarks.peers.job import answer_lines


def search(request: dict[str, Any]) -> dict[str, Any]:
    """Index the texts with `hybrid` as txtai ships it, and ask every question.

    Args:
        request: `folder`, which holds `texts.json`, `questions.json` and their vectors as
            `texts.npy` and `questions.npy`; `limit`, hits per question.

    Returns:
        `hits`: for each question a list of `[position of the text, score]`, best first.
    """
    folder = Path(request["folder"])
    known: dict[str, Any] = {}
    texts = {}
    for name in ("questions", "texts"):
        texts[name] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        vectors = np.load(folder / f"{name}.npy", allow_pickle=False)
        known.update(zip(texts[name], vectors, strict=True))

    def transform(wanted: list[str]) -> Any:
        return np.stack([known[text] for text in wanted])

    embeddings = Embeddings({"method": "external", "transform": transform, "hybrid": True})
    embeddings.index(enumerate(texts["texts"]))
    hits = embeddings.batchsearch(texts["questions"], request["limit"])
    embeddings.close()
    return {"hits": [[[int(position), float(score)] for position, score in one] for one in hits]}


if __name__ == "__main__":
    answer_lines(search)
