"""Sentence boundaries of prose in any script, as character spans, in linear time."""

from __future__ import annotations

import re

# Possessive runs and the look-behind keep every pattern linear: a run of stops is entered once.
_BOUNDARY = re.compile(
    r"""
    (?P<stop>(?<![.!?…])[.!?…]++)(?:["'”’»)\]}]|\[\d{1,3}\])*+(?=\s|\Z)
    |(?P<full>[。！？｡؟।॥۔።။៖]++["'”’»)\]」』】）》〉]*+)
    |(?P<blank>\n[^\S\n]*+\n\s*+)
    |(?P<item>\n[^\S\n]*+(?=(?:[-*•‣◦▪–—]|\(?(?:\d{1,3}|[A-Za-z])[.)])[^\S\n]+\S))
    """,
    re.VERBOSE,
)
_WORD_BEFORE_STOP = re.compile(r"[\w.&'’-]{1,24}\Z")
_OPENERS = "\"'“‘«([{„‚¿¡*_`"
_WINDOW = 26

# Never the end of a sentence: a name or a number follows.
_TITLES = frozenset(
    """adm art bzw capt cf cmdr col dr e.g eg etal fr gen gov hon i.e ie lt maj messrs mlle mm mme
    mr mrs ms mt prof rep rev sen sgt st supt viz vs z.b""".split()  # noqa: SIM905
)
# The end of a sentence unless a number follows.
_BEFORE_NUMBERS = frozenset(
    """app art ca ch chap cl eq eqs ex fig figs jan feb mar apr jun jul aug sep sept oct nov dec
    no nos nr p para pp pt ref refs sec sect tab tbl v vol vols §""".split()  # noqa: SIM905
)
# The end of a sentence only when the next word is one that starts sentences.
_DEPENDS = frozenset(
    """a.m al approx assn ave blvd bros co corp dept dist est etc ext ft gmbh inc int'l intl jr
    ltd min mfg mtn natl p.m ph.d plc rd sq sr tel univ""".split()  # noqa: SIM905
)
_STARTERS = frozenset(
    """a after all also although among an and another any as at because before both but by despite
    during each even finally first for from he her here his how however i if in instead it its
    later many meanwhile more moreover most my no nor not now on once one only or other our she
    since so some such that the their then there therefore these they this those though thus to
    today under unlike until we what when where whether which while who why with yet you
    your""".split()  # noqa: SIM905
)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Return the `(start, end)` spans of the sentences, in order, without white space around them.

    Every character that is not white space lies in exactly one span.
    """
    ends = [match.end() for match in _BOUNDARY.finditer(text) if _ends_sentence(match, text)]
    if " | " in text:
        ends = sorted({*ends, *_table_row_ends(text)})
    ends.append(len(text))
    return _trim(text, _without_lone_markers(text, ends))


def _ends_sentence(match: re.Match[str], text: str) -> bool:
    stop = match.group("stop")
    if stop is None:
        return True
    following = _following(text, match.end())
    if not following:
        return True
    lead = following.lstrip(_OPENERS)[:1]
    if lead.islower() or following[0] in ".…":  # dot leaders of a table of contents
        return False
    if stop != ".":
        return True
    return _period_ends(text, match.start("stop"), following)


def _following(text: str, position: int) -> str:
    """The next word with its opening quotes, or nothing at the end or before a blank line."""
    window = text[position : position + _WINDOW]
    words = window.split(None, 1)
    return words[0] if words else ""


def _period_ends(text: str, dot: int, following: str) -> bool:
    found = _WORD_BEFORE_STOP.search(text, max(0, dot - _WINDOW), dot)
    if found is None:
        after_space = dot > 0 and text[dot - 1].isspace()
        return not after_space or following.lstrip(_OPENERS)[:1].isupper()
    word = found.group().lstrip("'’-").lower()
    if word in _TITLES:
        return False
    if word in _BEFORE_NUMBERS:
        return not following.lstrip(_OPENERS)[:1].isdigit()
    initial = len(word) == 1 and word.isalpha() and found.group()[-1].isupper()
    dotted = "." in word and all(len(part) == 1 for part in word.split("."))
    if initial or dotted or word in _DEPENDS:
        return following.strip(_OPENERS + ",;:.!?").lower() in _STARTERS
    return True


def _table_row_ends(text: str) -> list[int]:
    """Line ends beside a line that reads like a table row (`a | b`)."""
    ends = []
    position = 0
    previous_is_row = False
    for line in text.split("\n"):
        is_row = " | " in line
        if position and (is_row or previous_is_row):
            ends.append(position)
        previous_is_row = is_row
        position += len(line) + 1
    return ends


_MARKER = re.compile(r"\s*+(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,5})\.\Z")


def _without_lone_markers(text: str, ends: list[int]) -> list[int]:
    """Leave out the ends after a list marker: `1.` belongs to what follows it."""
    kept = []
    start = 0
    for end in ends:
        lone = end - start <= _WINDOW and end < len(text) and _MARKER.match(text, start, end)
        if lone:
            continue
        kept.append(end)
        start = end
    return kept


def _trim(text: str, ends: list[int]) -> list[tuple[int, int]]:
    spans = []
    start = 0
    for end in ends:
        piece = text[start:end]
        body = piece.strip()
        if body:
            first = start + len(piece) - len(piece.lstrip())
            spans.append((first, first + len(body)))
        start = end
    return spans
