"""Citation markers in text that comes in pieces: told apart from it, wherever the pieces end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

from service.generation.bracketed import BEGUN, LONGEST, MARKER, numbers_of

_BLANKS = " \t"


@dataclass(frozen=True, slots=True)
class Marker:
    """A marker that was read, with the blanks before it."""

    numbers: tuple[int, ...]
    lead: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """The word by which the model says that the sources hold no answer."""


Item: TypeAlias = str | Marker | Refusal


class Markers:
    """Cuts a stream into text, markers and refusals; joined, the texts are the same for any pieces.

    What may be the beginning of a marker or of the refusal is held until that is decided: at most
    as long as the longest of them.
    """

    def __init__(self, refusal: str) -> None:
        self._token = re.compile(rf"(?i:{MARKER.pattern})|(?P<refusal>{re.escape(refusal)})")
        self._refusal = refusal
        self._waiting = ""

    def feed(self, text: str) -> list[Item]:
        """Take the next piece and return what is decided."""
        self._waiting += text
        items = self._decided()
        held = self._held_from()
        if held:
            items.append(self._waiting[:held])
            self._waiting = self._waiting[held:]
        return items

    def end(self) -> list[Item]:
        """Return what is left: nothing more comes."""
        items = self._decided()
        if self._waiting:
            items.append(self._waiting)
            self._waiting = ""
        return items

    def _decided(self) -> list[Item]:
        items: list[Item] = []
        told = 0
        for match in self._token.finditer(self._waiting):
            text = self._waiting[told : match.start()]
            told = match.end()
            if match["refusal"] is not None:
                items += [text, Refusal()] if text else [Refusal()]
                continue
            bare = text.rstrip(_BLANKS)
            if bare:
                items.append(bare)
            items.append(Marker(numbers_of(match["numbers"]), lead=text[len(bare) :]))
        self._waiting = self._waiting[told:]
        return items

    def _held_from(self) -> int:
        """Where the part begins that the next piece may turn into a marker or a refusal."""
        text = self._waiting
        begun = BEGUN.search(text, max(0, len(text) - LONGEST))
        held = len(text) if begun is None else begun.start()
        for size in range(min(len(self._refusal) - 1, len(text)), 0, -1):
            if text.endswith(self._refusal[:size]):
                held = min(held, len(text) - size)
                break
        return len(text[:held].rstrip(_BLANKS))
