"""Follow-up questions: when one leans on what was asked before, and on which words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from service import words
from service.engines import Turn

_OPENS_A_FOLLOW_UP = re.compile(
    r"^\W*(?:and|but|so|then|also|what about|how about|what else|anything else|why not|und|et|y)\b",
    re.IGNORECASE,
)
_POINTS_BACK = re.compile(
    r"\b(?:it|its|they|them|their|theirs|he|him|his|she|her|hers|this|these|those|that one|the same"
    r"|former|latter|there|er|sie|es|ihn|ihm|dort)\b",
    re.IGNORECASE,
)
_FEW_TERMS = 2


def context_of(question: str, history: Sequence[Turn]) -> str:
    """Return the last question asked before, where this one leans on it, or nothing.

    A question leans on the last one when it opens like a follow-up ("and in winter?"), points back
    with a pronoun, or holds hardly a word of its own. The rule reads words, not meaning: an engine
    that can write rewrites the question itself.
    """
    before = next((turn.content for turn in reversed(history) if turn.role == "user"), "")
    return before if before.strip() and _leans_back(question) else ""


def standalone(question: str, history: Sequence[Turn], *, max_characters: int) -> str:
    """Return the text to search with: the question after the one it leans on, cut at the front."""
    context = context_of(question, history)
    return f"{context}\n{question}"[-max_characters:] if context else question


def _leans_back(question: str) -> bool:
    if _OPENS_A_FOLLOW_UP.search(question) or _POINTS_BACK.search(question):
        return True
    return len(set(words.content_terms(question))) <= _FEW_TERMS
