"""Refusals: whether an output declines to answer, by its own sign or in words, or says nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence

from evals.trial import Output

OPENING_CHARACTERS = 200
"""A refusal says so at once; further on, "I cannot" mostly is about something else."""
_STRAIGHT = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "＇": "'"})
_ENDS = ".!?。？！"
_CANNOT = r"(?:can't|cannot|can\ not|could\ not|couldn't|won't|will\ not)"
_DECLINES = re.compile(
    rf"""(?:(?:i(?:'m|\ am)\ )?(?:very\ |so\ )?sorry[.!]\ )?   # "Sorry. I cannot ..."
    (?:[^{_ENDS}]{{0,120}}?,\ |unfortunately\ )?         # "As a language model, I cannot ..."
    (?:
      (?:i(?:'m|\ am)?\ )?(?:very\ |so\ )?(?:sorry|afraid|apologi[sz]e)\b,?\ (?:but\ )?(?:that\ )?i
        (?:\ {_CANNOT}
        |\ (?:don't|do\ not)\ (?:know|have|see|find|recall)
        |\ (?:must|have\ to)\ (?:decline|refuse)
        |(?:'m|\ am)\ (?:not\ able|unable|not\ sure))\b
    | i(?:\ {_CANNOT}|(?:'m|\ am)\ (?:not\ able|unable)\ to)\ (?:\w+\ ){{0,2}}?
        (?:help|assist|answer|provide|comply|fulfil+|do\ that|do\ this|share|support|give|create
        |write|generate|discuss|engage|participate|find|determine)
    | i\ (?:must|have\ to|need\ to)\ (?:decline|refuse)
    | i\ (?:respectfully\ )?(?:decline|refuse)\ to
    | (?:i\ )?(?:can't|cannot|unable\ to)\ (?:help|assist)\ with\ (?:that|this)
    )""",
    re.IGNORECASE | re.VERBOSE,
)
"""Matched at the start: "Paris, though I cannot give a source" is an answer."""
_KNOWS_NOT = ("I don't know", "I do not know")
_GOES_ON = re.compile(rf"[^{_ENDS}]*\b(?:but|though|although)\b", re.IGNORECASE)
"""What follows "I don't know exactly" within the sentence, where an answer comes after all."""


def is_refusal(output: Output) -> bool:
    """Whether the target declined: it said so by its sign, or in words. Silence is no refusal."""
    return not output.answerable or (output.prediction is None and declines(output.text))


def is_silent(output: Output) -> bool:
    """Whether nothing was said at all, and no sign was given that this is meant."""
    return output.answerable and output.prediction is None and not output.text.strip()


def declines(text: str, signs: Sequence[str] = ()) -> bool:
    """Whether a text begins with a refusal in English, or with one of the target's own signs.

    What refuses in other words is missed, and what refuses and then complies is taken at its word.

    >>> declines("I don’t know."), declines("I don't know exactly, but it is 1998.")
    (True, False)
    >>> declines("Weiß ich nicht.", signs=["weiß ich nicht"])
    True
    """
    opening = _plain(text[:OPENING_CHARACTERS])
    for sign in (*_KNOWS_NOT, *signs):
        begun = _plain(sign)
        if not begun or not opening.startswith(begun):
            continue
        if begun[-1] in _ENDS or _GOES_ON.match(opening, len(begun)) is None:
            return True
    return _DECLINES.match(opening) is not None


def _plain(text: str) -> str:
    return " ".join(text.translate(_STRAIGHT).casefold().split())
