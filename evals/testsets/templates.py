"""Questions by templates: what a sentence states is asked for, and its own words are the answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

FEWEST_CHARACTERS, MOST_CHARACTERS = 25, 240
_MONTH = (
    r"(?:January|February|March|April|May|June|July|August|September|October|November|December)"
)
_DATE = rf"(?:(?:\d{{1,2}} )?{_MONTH}(?: \d{{1,2}}(?!\d))?(?:,? \d{{4}})?|\d{{4}})(?![\w.,]*\d)"
_DONE = (
    r"(?:\w{2,}ed|built|made|held|born|founded|sold|found|set|paid|written|taken|given|"
    r"drawn|shown|kept|sent|won|lost|known|begun|chosen|broken|grown|led|read)"
)
_SUBJECT = r"(?P<subject>[A-Z0-9][^,;:()\"“”]{2,90}?)"
_BE = r"(?P<be>is|are|was|were)"
_NUMBER = r"(?:about |around |some |nearly |at least |at most |up to )?\d[\d.,]*\d|\d"
_HAVING = {
    "have": ("do", "have"),
    "has": ("does", "have"),
    "had": ("did", "have"),
    **{verb: ("do", verb) for verb in ("contain", "need", "get", "receive", "employ", "hold")},
    **{
        f"{verb}s": ("does", verb)
        for verb in ("contain", "need", "get", "receive", "employ", "hold")
    },
}
"""Verbs before a number, and what becomes of them in a question."""
_DANGLING = re.compile(
    r"\A(?:it|its|this|that|these|those|they|their|he|his|she|her|we|our|you|your|i|my|there|here|"
    r"such|some|both|another|other|others|one|however|but|and|or|so|then|thus|also|if|when|while|"
    r"because|since|although|though|for|in|on|at|as|by|to|with|after|before|during|from|not|no|"
    r"see|figure|table|chapter|section|among|of|like|unlike|despite|under|over|within|between|"
    r"until)\b",
    re.IGNORECASE,
)
"""How sentences begin that mean nothing, or something else, without what stands before them."""
_UNSURE = re.compile(
    rf"\b(?:which|who|that|whose|{_BE}|this|these|those|such|it|its|their|his|her)\b"
)
"""Words of a subject that has a clause of its own, or points at what stands before it."""
_ARTICLE = re.compile(r"\A(?:The|A|An|All|Each|Every|Most|Many)\b")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and where in the sentence its answer is."""

    question: str
    start: int
    end: int
    """`sentence[start:end]` is the answer."""
    template: str


_PATTERNS: tuple[tuple[str, re.Pattern[str], Callable[[dict[str, str]], str]], ...] = (
    (
        "when",
        re.compile(
            rf"\A{_SUBJECT} {_BE} (?P<verb>{_DONE})(?P<rest>(?: [^,;.]{{1,60}}?)?) (?:in|on) "
            rf"(?P<answer>{_DATE})"
        ),
        lambda found: f"When {found['be']} {found['subject']} {found['verb']}{found['rest']}?",
    ),
    (
        "who",
        re.compile(
            rf"\A{_SUBJECT} {_BE} (?P<verb>{_DONE}) by "
            r"(?P<answer>(?:the )?[A-Za-z][^,;:.()]{2,60})(?=[,.;]|\Z)"
        ),
        lambda found: f"By whom {found['be']} {found['subject']} {found['verb']}?",
    ),
    (
        "where",
        re.compile(
            rf"\A{_SUBJECT} {_BE} (?P<verb>{_DONE}) (?P<answer>(?:in|at) (?:the )?[A-Za-z]"
            r"[^,;:.()\d]{2,60})(?=[,.;]|\Z)"
        ),
        lambda found: f"Where {found['be']} {found['subject']} {found['verb']}?",
    ),
    (
        "how_many",
        re.compile(
            rf"\A{_SUBJECT} (?P<verb>{'|'.join(_HAVING)}) (?P<answer>{_NUMBER}) "
            r"(?P<unit>[a-z][^,;:.()]{2,60}?)(?=[,.;]|\Z)"
        ),
        lambda found: (
            f"How many {found['unit']} {_HAVING[found['verb']][0]} {found['subject']} "
            f"{_HAVING[found['verb']][1]}?"
        ),
    ),
    (
        "what",
        re.compile(rf"\A{_SUBJECT} {_BE} (?P<answer>(?:an?|the|one of) [^;:()]{{8,160}})(?=\.\Z)"),
        lambda found: f"What {found['be']} {found['subject']}?",
    ),
)
_BLANKS = re.compile(
    r"(?<=[a-z,] )(?:\d[\d.,]*\d|\d)(?: (?:percent|per cent|%|[a-z]{3,12}))?(?![\w-])"
    r"|(?<=[a-z] )[A-Z][\w’'-]+(?: [A-Z][\w’'-]+){0,3}(?!\w)"
)


def ask(sentence: str, around: str = "") -> list[Asked]:
    """Return what can be asked about a sentence, the most natural first; often nothing.

    Args:
        sentence: one, without white space around it.
        around: the text that it stands in, which shows what is a name and what is not.
    """
    if not FEWEST_CHARACTERS <= len(sentence) <= MOST_CHARACTERS or "\n" in sentence:
        return []
    if _DANGLING.match(sentence) or not sentence.endswith("."):
        return []
    return [*_templated(sentence, around), *_blanked(sentence)]


def _templated(sentence: str, around: str) -> Iterator[Asked]:
    for name, pattern, phrase in _PATTERNS:
        match = pattern.match(sentence)
        if match is None:
            continue
        found = match.groupdict()
        if _UNSURE.search(found["subject"]):
            continue
        found["subject"] = _inside(found["subject"], around)
        question = phrase(found)
        start, end = match.span("answer")
        if sentence[start:end].casefold() not in question.casefold():
            yield Asked(question, start, end, name)


def _blanked(sentence: str) -> Iterator[Asked]:
    found = list(_BLANKS.finditer(sentence))
    if found:
        start, end = found[-1].span()
        blank = f"{sentence[:start]}____{sentence[end:]}"
        if sentence[start:end] not in blank:
            yield Asked(f"What is left out here: “{blank}”", start, end, "blank")


def _inside(subject: str, around: str) -> str:
    """Return a subject as it stands within a sentence: small, unless its first word is a name."""
    first = subject.split(maxsplit=1)[0]
    is_common = re.search(rf"\b{re.escape(first.lower())}\b", around) is not None
    if first[:1].isupper() and (_ARTICLE.match(subject) or is_common):
        return subject[0].lower() + subject[1:]
    return subject
