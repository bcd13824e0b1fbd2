"""Punctuation: the last mark dropped, repeated or set apart, spaces doubled, lines added."""

from __future__ import annotations

import random
import re

from pydantic import Field

from evals.perturbation import Parameters, Perturbed, Surroundings
from evals.perturbations._texts import rewrite
from evals.trial import Case

_LAST = re.compile(r"[?!.？！。]+\s*\Z")
_SPACE = re.compile(r"(?<=\S) (?=\S)")


class Punctuation(Parameters):
    """What stands within a text, such as the comma of a number, stays."""

    edits: int = Field(default=2, ge=1, le=5)
    """How many of the five; fewer where a text has no mark or no space."""
    columns: tuple[str, ...] = ()
    """Of a row; without them, every text of more than one word."""

    def perturb(self, case: Case, draw: random.Random, around: Surroundings) -> Perturbed:
        del around
        return rewrite(
            case,
            lambda text: self._repunctuate(text, draw),
            columns=self.columns,
            why="there is no text",
        )

    def _repunctuate(self, text: str, draw: random.Random) -> str | None:
        if not text.strip():
            return None
        ways = ["begin", "end"]
        if _LAST.search(text):
            ways += ["mark", "mark"]
        if _SPACE.search(text):
            ways.append("space")
        new = text
        for way in sorted(set(draw.sample(ways, min(self.edits, len(ways))))):
            new = _edited(new, way, draw)
        return new if new != text else f"{text}\n"


def _edited(text: str, way: str, draw: random.Random) -> str:
    if way == "begin":
        return draw.choice(["\n", "  ", "- "]) + text
    if way == "end":
        return text + draw.choice(["\n", "  ", " \n\n"])
    if way == "space":
        return _SPACE.sub(lambda _: draw.choice([" ", "  "]), text)
    last = _LAST.search(text)
    if last is None:
        return text
    mark = last.group().strip()
    # A mark that is dropped must leave something to read.
    ways = [f" {mark}", mark * 3] + ([""] if text[: last.start()].strip() else [])
    return text[: last.start()] + draw.choice(ways)


build = Punctuation.model_validate
