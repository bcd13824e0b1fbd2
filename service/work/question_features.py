"""What the questions to a collection are about, and what is cited, as columns of a window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from infra.errors import InvalidRequest
from infra.plugins import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from infra.contracts import Vectors
    from infra.monitoring_settings import Questions
    from monitoring.windows import Window
    from service.wiring import Components

PREFIX = "question_"
NAMES = (
    *("question_topic", "question_distance", "question_out_of_domain", "question_vector"),
    *("question_length", "question_language", "retrieval_score"),
)
"""Of the columns that a monitor of questions compares beside its own."""
PASSAGE = "passage_vector"
"""And of that which it compares where passages are asked for."""
_QUESTION, _CITED = "question", "cited"
_SEED = 0


def names(options: Questions | None) -> tuple[str, ...]:
    """Return the columns that are compared for such options."""
    if options is None:
        return ()
    return (*NAMES, PASSAGE) if options.passages else NAMES


def beside(
    parts: Components, options: Questions, reference: Window, window: Window
) -> tuple[Window, Window]:
    """Return reference and window, of both the rows whose question is kept, with what it is about.

    Topics are found on half of the reference, and the window is compared with the other half. The
    embedder is that of the build which answers now, for both.

    Raises:
        NotFound: there is no such collection.
        InvalidRequest: the reference has too few questions, or does not say what was cited.
    """
    from monitoring.text_features import fit_domain, window_of

    before, asked_before = _asked(reference, most=2 * options.most_rows)
    if not asked_before:
        raise InvalidRequest(
            "The reference has no questions; pin a window that was recorded with "
            "telemetry.content = true"
        )
    now, asked = _asked(window, most=options.most_rows)
    vectors = _embedded(parts, options.collection, asked_before)
    domain = fit_domain(vectors, topics=options.topics, seed=_SEED)
    held_out = domain.held_out
    texts = [asked_before[row] for row in held_out]
    features = [
        window_of(domain=domain, vectors=vectors[held_out], texts=texts, prefix=PREFIX),
        window_of(
            domain=domain,
            vectors=_embedded(parts, options.collection, asked),
            texts=asked,
            prefix=PREFIX,
        ),
    ]
    both = before.take(held_out).beside(features[0]), now.beside(features[1])
    if not options.passages:
        return both
    if _CITED not in reference.names:
        raise InvalidRequest(
            "The reference does not say what answers cited; pin one that this release exports"
        )
    return _with_passages(parts, options, both[0]), _with_passages(parts, options, both[1])


def _with_passages(parts: Components, options: Questions, window: Window) -> Window:
    """Return the window with the vector of what each answer cites first, if it cites anything."""
    from monitoring.windows import Window

    cited = window.read(_CITED) if _CITED in window.names else []
    texts = cited.to_pylist() if hasattr(cited, "to_pylist") else list(cited)
    rows = [row for row, text in enumerate(texts) if text and text.strip()]
    found = _embedded(parts, options.collection, [texts[row] for row in rows], kind="document")
    vectors = np.full((window.rows, found.shape[1]), np.nan)
    vectors[rows] = found
    return window.beside(Window.of({PASSAGE: vectors}))


def _asked(window: Window, *, most: int) -> tuple[Window, list[str]]:
    """Return the rows with a question, at most so many, drawn at random, and their questions."""
    if _QUESTION not in window.names:
        return window.take(np.empty(0, dtype=np.int64)), []
    said = window.read(_QUESTION)
    if hasattr(said, "to_pylist"):
        # Of a window of millions, only what is drawn becomes objects of Python.
        said = said.cast("large_string")
        rows = np.flatnonzero(_is_question(said))
    else:
        rows = np.array([row for row, text in enumerate(said) if text and text.strip()], np.int64)
    if rows.size > most:
        rows = np.sort(np.random.default_rng(_SEED).choice(rows, size=most, replace=False))
    drawn = said.take(rows).to_pylist() if hasattr(said, "to_pylist") else [said[n] for n in rows]
    return window.take(rows), [str(text) for text in drawn]


def _is_question(said: Any) -> Any:
    """Return which values of an Arrow column say something, as booleans of shape (rows,)."""
    from monitoring.columns import EXTRA

    compute = require("pyarrow.compute", extra=EXTRA)
    is_some = compute.and_not(
        compute.greater(compute.binary_length(said), 0), compute.utf8_is_space(said)
    )
    return compute.fill_null(is_some, False).to_numpy()


def _embedded(
    parts: Components,
    collection: str,
    texts: Sequence[str],
    *,
    kind: Literal["query", "document"] = "query",
) -> Vectors:
    whole = parts.collections.get(collection)
    embedder = parts.embedders.of(whole.recipe, collection=whole.name)
    if not texts:
        return np.empty((0, embedder.dimension), dtype=np.float32)
    return embedder.embed(texts, kind=kind)
