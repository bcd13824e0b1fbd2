"""What a checkpoint makes of the pieces: small ones merged, large ones given a structure."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from retrieval.indexes._asked import Asked
from retrieval.indexes._calibration import Sample, calibrated, measured
from retrieval.indexes._candidates import Candidates, Step, built
from retrieval.indexes._dense import GROWTH, Dense, merged
from retrieval.indexes._options import Options
from retrieval.indexes._piece import Piece

logger = logging.getLogger(__name__)

_GONE_SHARE = 0.2
"""A piece of which more is deleted is built anew."""
_GONE_BEFORE_MEASURING = 0.05
"""Its recall is measured again whenever so much more of it is deleted."""


def is_settled(dense: Dense, options: Options, *, asked: Asked | None = None) -> bool:
    """Whether the pieces are as the options ask for; rows added since do not count.

    They are not where questions that were asked can tell more of what they find than is known.
    """
    large = [piece for piece in dense.pieces if piece.candidates is not None]
    rest = sum(piece.count for piece in dense.pieces if piece.candidates is None)
    is_small_enough = rest < options.smallest or not options.kinds
    return is_small_enough and all(
        _is_usable(piece, options)
        and _finds_enough(piece, options)
        and not _can_be_told_more(piece, asked)
        for piece in large
    )


def settled(dense: Dense, options: Options, *, step: Step, asked: Asked | None = None) -> Dense:
    """Return the same chunks in fewer pieces that find what the options ask for.

    Deleted rows are gone from all pieces but those with a structure, which keep them until they are
    a fifth. `step` is called between the parts of a build and may raise to end it. `asked` are what
    recall is measured with, once they are enough.
    """
    kept, loose = [], []
    for piece in dense.pieces:
        if _is_usable(piece, options):
            piece = _measured_today(piece, options, asked)
        if _is_usable(piece, options) and _finds_enough(piece, options):
            kept.append(piece)
        else:
            loose.append(piece)
    rows = sum(piece.count for piece in loose)
    if options.kinds and rows >= options.smallest:
        while kept and kept[-1].count <= GROWTH * rows:
            loose.append(kept.pop())
            rows += loose[-1].count
        questions = None if asked is None else asked.questions()
        loose = [
            _structured(piece, options, step=step, questions=questions) for piece in merged(loose)
        ]
    else:
        loose = merged(loose)
    return replace(dense, pieces=(*kept, *loose))


def _is_usable(piece: Piece, options: Options) -> bool:
    """Whether its structure is of the wanted type, and most of its rows are still there."""
    return (
        piece.candidates is not None
        and bool(options.kinds)
        and piece.candidates.asked_for == options.type
        and piece.count * 2 >= options.smallest
        and len(piece.alive) - piece.count <= _GONE_SHARE * len(piece.alive)
    )


def _finds_enough(piece: Piece, options: Options) -> bool:
    return piece.candidates is not None and piece.candidates.recall >= options.recall


def _can_be_told_more(piece: Piece, asked: Asked | None) -> bool:
    candidates = piece.candidates
    return (
        asked is not None
        and candidates is not None
        and candidates.index is not None
        and asked.tells_more_than(candidates.questions_asked)
    )


def _measured_today(piece: Piece, options: Options, asked: Asked | None) -> Piece:
    """The piece with its recall as it is today, and as much effort as the setting takes."""
    candidates = piece.candidates
    if candidates is None or candidates.index is None:
        return piece
    gone = len(piece.alive) - piece.count
    is_fresh = gone - candidates.gone_when_measured <= _GONE_BEFORE_MEASURING * len(piece.alive)
    if is_fresh and _finds_enough(piece, options) and not _can_be_told_more(piece, asked):
        return piece
    questions = None if asked is None else asked.questions()
    sample = Sample.of(piece.vectors, piece.alive, questions)
    now = measured(candidates, sample)
    if now.recall < options.recall:
        logger.info("recall fell to %.3f, below %.3f", now.recall, options.recall)
        now = _raised(now, sample, options)
    return replace(piece, candidates=now)


def _raised(candidates: Candidates, sample: Sample, options: Options) -> Candidates:
    """The structure with as much effort as the setting takes; as it is where none is enough."""
    found = calibrated(candidates, sample, target=options.recall)
    if found is None:
        return candidates
    logger.info(
        "effort raised from %d to %d, refine from %d to %d, by %d questions asked: recall %.3f",
        *(candidates.effort, found.effort, candidates.refine, found.refine),
        *(found.questions_asked, found.recall),
    )
    return found


def _structured(
    piece: Piece, options: Options, *, step: Step, questions: NDArray[np.float32] | None
) -> Piece:
    """The piece with the first structure that finds enough."""
    begun = time.monotonic()
    vectors = piece.vectors
    sample = Sample.of(vectors, piece.alive, questions)
    chosen = None
    for kind in options.kinds:
        index = built(kind, vectors, storage=piece.index, threads=options.threads, step=step)
        made = Candidates(kind, options.type, effort=1, refine=1, recall=0.0, index=index)
        chosen = calibrated(made, sample, target=options.recall)
        if chosen is not None:
            break
        logger.warning("no effort of %r reaches a recall of %r", kind, options.recall)
    if chosen is None:
        chosen = Candidates("exact", options.type, effort=0, refine=0, recall=1.0)
    logger.info(
        "%d vectors got %r in %.1f s: effort %d, recall %.3f",
        *(len(piece.chunk_ids), chosen.kind, time.monotonic() - begun),
        *(chosen.effort, chosen.recall),
    )
    return replace(piece, candidates=chosen)
