"""bm25s: lexical search over an index held in memory, compiled with numba."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import bm25s  # type: ignore[import-not-found]
import Stemmer  # type: ignore[import-not-found]

from benchmarks.peers.job import answer_lines


def search(request: dict[str, Any]) -> dict[str, Any]:
    """Index the texts of a JSON file and time each question.

    Args:
        request: `texts_file`, a JSON list of strings; `questions`; `limit`, hits per question.

    Returns:
        `index_seconds`, and `milliseconds` of each question in order.
    """
    texts = json.loads(Path(request["texts_file"]).read_text(encoding="utf-8"))
    stemmer = Stemmer.Stemmer("english")
    start = time.perf_counter()
    retriever = bm25s.BM25(backend="numba")
    tokens = bm25s.tokenize(texts, stopwords="en", stemmer=stemmer, show_progress=False)
    retriever.index(tokens, show_progress=False)
    index_seconds = time.perf_counter() - start
    limit = min(request["limit"], len(texts))

    def ask(question: str) -> float:
        begun = time.perf_counter()
        words = bm25s.tokenize([question], stopwords="en", stemmer=stemmer, show_progress=False)
        retriever.retrieve(words, k=limit, n_threads=1, show_progress=False)
        return (time.perf_counter() - begun) * 1e3

    for question in request["questions"][:20]:
        ask(question)  # numba compiles at the first call
    milliseconds = [ask(question) for question in request["questions"]]
    return {"index_seconds": index_seconds, "milliseconds": milliseconds}


if __name__ == "__main__":
    answer_lines(search)
