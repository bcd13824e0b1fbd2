"""Claims that hold made wrong in one named way, or said otherwise so that they still hold."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from benchmarks.grounding_data import Response
from infra.sentences import sentence_spans
from monitoring.grounding.names import names
from monitoring.grounding.polarity import OPPOSITES
from monitoring.grounding.quantities import Quantity, quantities
from monitoring.grounding.terms import content_terms

_VERB = re.compile(r"\b(is|are|was|were|has|have|had|can|could|will|would|may|does|did|do)\b")
_NOT = re.compile(r"\b(?:not|never)\s|n't\b")
_WORD = re.compile(r"[^\W\d_]+")
_PARENTHESES = re.compile(r"\s*\([^()]*\)")
_LISTED = re.compile(r"\b(\w[\w -]{2,30}\w) and (\w[\w -]{2,30}\w)(?=[,.;])")
_DATE = re.compile(r"\b([A-Z][a-z]+) (\d{1,2}), (\d{4})\b")
_TAIL = re.compile(r", (?:which|who|where|when|as|with|and|but|while|including)\b[^.]*(?=\.\Z)")
_SMALL = ("", "", *"two three four five six seven eight nine ten eleven twelve".split())  # noqa: SIM905
_SPAN = 40
"""Years that a shifted date lies off, at most."""


class Perturber:
    """Makes claims wrong; what it puts in comes from the claim's own context or from others."""

    def __init__(self, responses: Sequence[Response], rng: random.Random) -> None:
        self._rng = rng
        self._others = [each for each in responses if len(each.context) > 200] or list(responses)
        self._kinds: Mapping[str, Callable[[Response], Response | None]] = {
            "number": self._number,
            "date": self._date,
            "name": self._name,
            "denial": self._denial,
            "opposite": self._opposite,
            "addition": self._addition,
            "other text": self._other_text,
        }

    def wrong(self, right: Response) -> list[Response]:
        """Return the claim made wrong in each way that it can be."""
        found = []
        for kind, make in self._kinds.items():
            made = make(right)
            if (
                made is not None
                and made.text.strip()
                and made.text != right.text
                or (made is not None and made.context != right.context)
            ):
                found.append(replace(made, is_wrong=True, kind=kind))
        return found

    def rephrased(self, right: Response) -> list[Response]:
        """Return the claim said otherwise, still right."""
        text = right.text
        made = {
            _PARENTHESES.sub("", text),
            _TAIL.sub("", text),
            _LISTED.sub(r"\2 and \1", text),
            _DATE.sub(r"\2 \1 \3", text),
            self._spelled(text),
            self._pronoun(text),
        }
        return [replace(right, text=each, kind="rephrased") for each in sorted(made - {text})]

    def _number(self, right: Response) -> Response | None:
        mine = [each for each in quantities(right.text) if each.kind == "number"]
        if not mine:
            return None
        old = self._rng.choice(mine)
        theirs = [
            each.text
            for each in quantities(self._near(right.context))
            if each.kind == "number" and not each.is_among(mine)
        ]
        if theirs and self._rng.random() < 0.5:
            return _with(right, old, self._rng.choice(theirs))
        value = max(old.values)
        new = self._rng.choice([value + 1, value * 2, value + 10, value * 10, max(0, value - 1)])
        return _with(right, old, f"{new:g}" if new < 1e6 else f"{new:.0f}")

    def _date(self, right: Response) -> Response | None:
        years = [
            each
            for each in quantities(right.text)
            if each.kind == "date" and not each.is_month and not each.is_decade
        ]
        if not years:
            return None
        old = self._rng.choice(years)
        theirs = [
            each.text
            for each in quantities(self._near(right.context))
            if each.kind == "date" and len(each.text) == 4 and not each.is_among(years)
        ]
        if theirs and self._rng.random() < 0.4:
            return _with(right, old, self._rng.choice(theirs))
        shift = self._rng.choice([-1, 1]) * self._rng.randint(1, _SPAN)
        return _with(right, old, f"{max(old.values) + shift:.0f}")

    def _name(self, right: Response) -> Response | None:
        mine = names(right.text)
        if not mine:
            return None
        old = self._rng.choice(mine)
        is_own = self._rng.random() < 0.5
        context = right.context if is_own else self._rng.choice(self._others).context
        held = {term for each in mine for term in each.terms}
        theirs = [each.text for each in names(self._near(context)) if held.isdisjoint(each.terms)]
        if not theirs:
            return None
        text = right.text[: old.start] + self._rng.choice(theirs) + right.text[old.end :]
        return replace(right, text=text)

    def _denial(self, right: Response) -> Response | None:
        if _NOT.search(right.text):
            return replace(right, text=_NOT.sub("", right.text, count=1))
        if not _VERB.search(right.text):
            return None
        return replace(right, text=_VERB.sub(r"\1 not", right.text, count=1))

    def _opposite(self, right: Response) -> Response | None:
        for match in _WORD.finditer(right.text):
            (stem, *_) = content_terms(match.group()) or [""]
            if contrary := sorted(OPPOSITES.get(stem, ())):
                new = self._rng.choice(contrary)
                text = right.text[: match.start()] + new + right.text[match.end() :]
                return replace(right, text=text)
        return None

    def _addition(self, right: Response) -> Response | None:
        other = self._rng.choice(self._others)
        spans = sentence_spans(self._near(other.context))
        if other.group == right.group or not spans:
            return None
        start, end = self._rng.choice(spans)
        words = self._near(other.context)[start:end].split()[:12]
        if len(words) < 4:
            return None
        added = " ".join(words).strip(" .")
        return replace(right, text=f"{right.text.rstrip(' .')}, and {added}.")

    def _other_text(self, right: Response) -> Response | None:
        other = self._rng.choice(self._others)
        return None if other.group == right.group else replace(right, context=other.context)

    def _near(self, context: str) -> str:
        return context[:4_000]

    def _spelled(self, text: str) -> str:
        return re.sub(
            r"(?<![\w.,])(\d{1,2})(?![\w.,%])",
            lambda match: _SMALL[int(match[1])] if 1 < int(match[1]) <= 12 else match[1],
            text,
        )

    def _pronoun(self, text: str) -> str:
        found = names(text)
        if not found or found[0].start > 20 or not text[found[0].end :].startswith(" "):
            return text
        return self._rng.choice(["It", "He", "She", "They"]) + text[found[0].end :]


def _with(right: Response, old: Quantity, new: str) -> Response:
    return replace(right, text=right.text[: old.start] + new + right.text[old.end :])
