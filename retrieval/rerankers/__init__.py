"""Rerankers: plug-ins that read a question and a passage together and say how well they fit.

A plug-in is a file with `build(**options) -> Reranker`. The laws, run over each by
`tests/contracts/test_rerankers.py`: one score per text, between 0 and 1, a batch equals its
singles, no texts give no scores; or None every time. The smallest is `none`:

>>> from retrieval.rerankers import open_reranker
>>> open_reranker("none").score("What is ragstone?", ["A kind of limestone."]) is None
True
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from infra.plugins import load


class Reranker(Protocol):
    """Scores passages for one question; safe to share between threads."""

    def score(self, question: str, texts: Sequence[str]) -> NDArray[np.float32] | None:
        """Return `(len(texts),)` scores between 0 and 1, larger is better.

        None is no opinion: the passages keep their order and their scores.
        """
        ...


def open_reranker(name: str, **options: Any) -> Reranker:
    """Build the reranker of plug-in `name`; heavy packages are imported at its first use."""
    return cast("Reranker", load("retrieval.rerankers", name)(**options))
