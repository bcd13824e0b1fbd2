"""Paraphrase by rule: contractions, a leading phrase moved to the end, a polite frame; English."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping

from evals.perturbation import Parameters, Perturbed, Surroundings
from evals.perturbations._texts import rewrite
from evals.trial import Case

_SHORT: Mapping[str, str] = {
    "what is": "what's",
    "who is": "who's",
    "where is": "where's",
    "do not": "don't",
    "does not": "doesn't",
    "did not": "didn't",
    "is not": "isn't",
    "are not": "aren't",
    "was not": "wasn't",
    "were not": "weren't",
    "cannot": "can't",
    "will not": "won't",
    "have not": "haven't",
    "has not": "hasn't",
    "I am": "I'm",
}
_LONG = {short: long for long, short in _SHORT.items() if short not in {"what's", "who's"}}
"""`What's` and `who's` may be `what has` and `who has`, and are left alone."""
_LEADING = re.compile(
    r"\A(?P<phrase>(?:In|On|At|During|After|Before|Under|According to)\s[^,?!.\n]{1,80}), "
    r"(?P<rest>(?:how|what|when|where|which|who|whom|whose|why|is|are|was|were|do|does|did|can)\b"
    r"[^?\n]{1,300})\?\Z"
)
_ASKS = re.compile(r"\A(?:how|what|when|where|which|who|whom|whose|why)\b", re.IGNORECASE)
_FRAMES = ("Question: {}", "Please answer: {}", "Here is my question. {}", "{} Thank you.")


class Paraphrase(Parameters):
    """Rules that keep the meaning whatever the words are; no synonyms, and no model.

    It shows what little it takes to change an answer. It does not show what a person's way to
    ask would do; for that, write paraphrases down as cases of one cluster.
    """

    columns: tuple[str, ...] = ()
    """Of a row; without them, every text of more than one word."""

    def perturb(self, case: Case, draw: random.Random, around: Surroundings) -> Perturbed:
        del around
        return rewrite(
            case,
            lambda text: _rephrased(text, draw),
            columns=self.columns,
            why="no rule fits: it is neither a question, nor does it hold a contraction",
        )


def _rephrased(text: str, draw: random.Random) -> str | None:
    ways: list[Callable[[str], str]] = [_contracted, _expanded, _moved]
    if _ASKS.match(text) and text.rstrip().endswith("?"):
        frame = draw.choice(_FRAMES)
        ways.append(lambda given: frame.format(given.strip()))
    found = [new for new in (way(text) for way in ways) if new != text]
    return draw.choice(found) if found else None


def _contracted(text: str) -> str:
    return _replaced(text, _SHORT)


def _expanded(text: str) -> str:
    return _replaced(text, _LONG)


def _replaced(text: str, words: Mapping[str, str]) -> str:
    names = "|".join(re.escape(each) for each in words)
    folded = {name.lower(): new for name, new in words.items()}

    def other(found: re.Match[str]) -> str:
        new = folded[found.group().lower()]
        return new[0].upper() + new[1:] if found.group()[0].isupper() else new

    return re.sub(rf"(?<![\w'’])(?:{names})(?![\w'’])", other, text, flags=re.IGNORECASE)


def _moved(text: str) -> str:
    found = _LEADING.match(text)
    if found is None:
        return text
    phrase, rest = found["phrase"], found["rest"]
    return f"{rest[0].upper()}{rest[1:]}, {phrase[0].lower()}{phrase[1:]}?"


build = Paraphrase.model_validate
