"""Typos: letters swapped, dropped, doubled or hit beside the key, within some longer words."""

from __future__ import annotations

import random
import re

from pydantic import Field

from evals.perturbation import Parameters, Perturbed, Surroundings
from evals.perturbations._texts import rewrite
from evals.trial import Case

_WORD = re.compile(r"(?<![\w'’-])[^\W\d_]{4,}(?![\w'’-])")
"""Words of four letters and more; what holds digits stays, since a number would mean another."""
_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_BESIDE = {
    key: row[max(0, at - 1) : at] + row[at + 1 : at + 2]
    for row in _ROWS
    for at, key in enumerate(row)
}


class Typos(Parameters):
    """The first and last letter of a word stay, by which people read on (Rawlinson 1976)."""

    share: float = Field(default=0.15, gt=0, le=1)
    """Of the words that can have one; at least one has."""
    columns: tuple[str, ...] = ()
    """Of a row; without them, every text of more than one word."""

    def perturb(self, case: Case, draw: random.Random, around: Surroundings) -> Perturbed:
        del around
        return rewrite(
            case,
            lambda text: self._mistype(text, draw),
            columns=self.columns,
            why="no word has four letters",
        )

    def _mistype(self, text: str, draw: random.Random) -> str | None:
        words = list(_WORD.finditer(text))
        if not words:
            return None
        count = max(1, round(self.share * len(words)))
        parts, end = [], 0
        for word in sorted(draw.sample(words, count), key=lambda each: each.start()):
            parts += [text[end : word.start()], _misspelt(word.group(), draw)]
            end = word.end()
        return "".join([*parts, text[end:]])


def _misspelt(word: str, draw: random.Random) -> str:
    at = draw.randrange(1, len(word) - 2)
    letter, following = word[at], word[at + 1]
    ways = [f"{letter}{letter}{following}", following]
    if letter != following:
        ways.append(f"{following}{letter}")
    if beside := _BESIDE.get(letter):
        ways.append(f"{draw.choice(beside)}{following}")
    return f"{word[:at]}{draw.choice(ways)}{word[at + 2 :]}"


build = Typos.model_validate
