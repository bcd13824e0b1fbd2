"""What all metrics of answers share: refusals, references, and texts made comparable."""

from __future__ import annotations

import re
import string

from evals.refusals import is_refusal, is_silent
from evals.scores import Score
from evals.trial import Case, Output

SILENT = "said nothing"
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_MARKERS = re.compile(r"\s?(?:\[\d{1,3}(?:, ?\d{1,3})*\]|【\d{1,3}】)")


def settled(case: Case, output: Output) -> Score | None:
    """Return the score that needs no look at the words, or None.

    A refusal is right where there is no answer, and wrong where there is one, as in SQuAD 2.0.
    Silence is right nowhere.
    """
    if case.answerable is False:
        if is_silent(output):
            return Score.of(0.0, SILENT)
        if is_refusal(output):
            return Score.of(1.0, "rightly refused")
        return Score.of(0.0, "answered what has no answer")
    if not case.references:
        return Score.unscored("the case has no reference")
    if is_silent(output):
        return Score.of(0.0, SILENT)
    if is_refusal(output):
        return Score.of(0.0, "refused what has an answer")
    return None


def said(output: Output) -> str:
    """Return the answer without the numbers of its sources; of a classifier its label."""
    if output.prediction is not None:
        return str(output.label)
    return _MARKERS.sub("", output.text)


def squad(text: str) -> str:
    """Return a text as SQuAD's evaluation script compares it.

    Lower case, without punctuation and English articles, single spaces. Source: Rajpurkar et al.
    2016, `evaluate-v1.1.py`.

    >>> squad("The  Forth Bridge, (1890)")
    'forth bridge 1890'
    """
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())
