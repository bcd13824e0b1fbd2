"""What a question asks for, and the words of texts made comparable across forms and scripts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from infra.words import NUMBER, UNSPACED

Kind: TypeAlias = Literal["date", "number", "person", "place", "reason", "manner", "other"]

# Where no spaces are written, two neighbouring characters stand in for a word.
_TOKEN = re.compile(rf"[{UNSPACED}]+|{NUMBER.pattern}|[^\W\d_{UNSPACED}]+(?:['’][^\W\d_]+)*\d*")
_IS_UNSPACED = re.compile(f"[{UNSPACED}]")

_STOP_WORDS = """
    a about after all also an and any are as at be been before being both but by can could did
    do does doing during each else ever few for from get gets give given got had has have having
    he her here hers him his how i if in into is it its itself just kind let like list made make
    many may me might more most much must my name named of on one only or other our out over own
    please same shall she should so some such tell than that the their them then there these
    they this those through to too type under until up upon us use used very was we were what
    when where whether which while who whom whose why will with within would you your
"""

# Read in this order: the first that matches decides.
_ASKS: tuple[tuple[Kind, str], ...] = (
    (
        "number",
        r"""\bhow\ (?:many|much|long|old|far|tall|large|big|high|deep|wide|fast|often|heavy|hot
        |late|early|strong|frequently)\b
        |\b(?:what|which)\ (?:\w+\ ){0,4}?(?:percent\w*|number|amount|size|price|cost|population
        |rate|limit|distance|length|height|width|depth|weight|speed|age|share|proportion|fraction
        |ratio|temperature|score|total|version|port|salary|fee|dose)\b
        |\bwie\ (?:viele?|lange?|oft|hoch|groß|alt|weit)\b|\bcombien\b|\bcuánt[oa]s?\b
        |多少|[几幾]|\bكم\b""",
    ),
    (
        "date",
        r"""\bwhen\b|\b(?:what|which)\ (?:\w+\ )?(?:years?|dates?|day|month|centur(?:y|ies)
        |decades?|time|era|period|season)\b
        |\bwann\b|\bwelche[mns]?\ (?:jahr|datum|monat)\w*|\bquand\b|\bcuándo\b
        |何时|何時|什么时候|什麼時候|哪一?年|\bمتى\b""",
    ),
    (
        "place",
        r"""\bwhere\b|\b(?:what|which)\ (?:\w+\ )?(?:countr(?:y|ies)|cit(?:y|ies)|state|town
        |place|region|location|continent|province|county|area|street|building|river|island|folder
        |directory)\b
        |\bwo(?:hin|her)?\b|\boù\b|\bd[oó]nde\b|哪里|哪裡|哪儿|在哪|\bأين\b""",
    ),
    (
        "person",
        r"""\bwho(?:m|se)?\b|\b(?:what|which)\ (?:\w+\ )?(?:person|man|woman|author|king|queen
        |president|leader|scientist|company|organi[sz]ation|team|group|people|actor|singer
        |player)\b
        |\bwe[rnm]\b|\bqui\b|\bquién(?:es)?\b|谁|誰|\bمن\ (?:هو|هي|الذي)\b""",
    ),
    (
        "reason",
        r"""\bwhy\b|\bwhat\ (?:\w+\ )?(?:reasons?|causes?|caused)\b|\bwarum\b|\bpourquoi\b
        |\bpor\ qué\b|为什么|為什麼|\bلماذا\b""",
    ),
    ("manner", r"\bhow\b|\bwie\b|\bcomment\b|\bcómo\b|如何|怎么|怎樣|\bكيف\b"),
)
_KINDS = tuple((kind, re.compile(asks, re.IGNORECASE | re.VERBOSE)) for kind, asks in _ASKS)

_NUMBER = re.compile(
    r"""\d+(?:[.,]\d+)*|[一二三四五六七八九十百千万億亿兩两]
    |\b(?:two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen
    |seventeen|eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundreds?
    |thousands?|millions?|billions?|half|dozens?|once|twice|third|quarter|zero)\b""",
    re.IGNORECASE | re.VERBOSE,
)
_DATE = re.compile(
    r"""\b(?:1\d{3}|20\d{2})s?\b|\b\d{1,4}(?:st|nd|rd|th)?\ ?(?:BCE?|AD|CE)\b|\bcentur(?:y|ies)\b
    |\b(?:January|February|March|April|May|June|July|August|September|October|November|December)\b
    |\b(?:Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.?\ \d
    |\b(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)days?\b|\b\d{1,2}:\d{2}\b|\b\d{1,2}\ ?[ap]\.?m\b
    |\b(?:Januar|Februar|März|Mai|Juni|Juli|Oktober|Dezember|Jahrhundert)|\d\ ?[年月日]""",
    re.VERBOSE,
)
_REASON = re.compile(
    r"""\b(?:because|since|due\ to|owing\ to|caus(?:ed?|ing)|as\ a\ result
    |result(?:s|ed)?\ (?:of|from|in)|in\ order\ to|so\ that|therefore|thus|reasons?
    |leads?\ to|led\ to|to\ (?:avoid|prevent|allow|ensure|keep)
    |weil|wegen|aufgrund|parce\ que|porque)\b
    |因为|因為|由于|所以""",
    re.IGNORECASE | re.VERBOSE,
)
_MANNER = re.compile(
    r"""\b(?:by|through|via|using|with|in\ order\ to|then|durch)\b|通过|[`$]
    |(?:\A|[,:]\s+)(?:add|call|choose|click|copy|create|delete|download|edit|enter|export|give|install
    |make|open|pass|press|put|remove|run|select|send|set|start|stop|turn|type|use|write)\b""",
    re.IGNORECASE | re.VERBOSE,
)
_DEFINES = re.compile(r"(.{1,80}?)\b(?:is|are|was|were|means|refers\ to|stands\ for)\b", re.DOTALL)
_WRITTEN_WORD = re.compile(r"[^\W\d_]\w*(?:[-'’]\w+)*")
_PLACE_WORD = re.compile(
    r"\b(?:in|at|near|from|to|of|on|between|across|under|within)\b", re.IGNORECASE
)
_NEGATED = re.compile(
    r"\b(?:not|never|no|none|neither|nor|without|cannot|nicht|kein\w*)\b|n['’]t\b|不|没",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Question:
    """A question, read once for all the sentences that may answer it."""

    kind: Kind
    terms: tuple[str, ...]
    """Content terms, each once, in order."""
    borrowed: frozenset[str]
    """The terms a follow-up takes from what was asked before; they weigh less."""
    pairs: frozenset[tuple[str, str]]
    """Neighbouring content terms."""
    names: tuple[str, ...]
    """The terms written as a name: capitalised after the first word, or with a capital inside."""
    numbers: tuple[str, ...]
    negated: bool


def read_question(text: str, *, context: str = "") -> Question:
    """Read a question; a follow-up borrows the terms of `context`, what was asked before."""
    own = content_terms(text)
    content = own + (content_terms(context) if context else [])
    found = tuple(dict.fromkeys(content))
    names = frozenset(_names(text)) | frozenset(_names(context))
    return Question(
        kind=next((kind for kind, pattern in _KINDS if pattern.search(text)), "other"),
        terms=found,
        borrowed=frozenset(found) - frozenset(own),
        pairs=pairs(own),
        names=tuple(term for term in found if term in names),
        numbers=tuple(term for term in found if term[0].isdigit()),
        negated=is_negated(text),
    )


def terms(text: str) -> list[str]:
    """Light stems, bare numbers and pairs of unspaced characters, in reading order."""
    found: list[str] = []
    for match in _TOKEN.finditer(unicodedata.normalize("NFKC", text)):
        token = match.group()
        if _IS_UNSPACED.match(token):
            found += [token[at : at + 2] for at in range(max(1, len(token) - 1))]
        else:
            found.append(stem(token.casefold()))
    return found


def content_terms(text: str) -> list[str]:
    """The terms that carry meaning; all of them where none does."""
    found = terms(text)
    return [term for term in found if term not in _STOP_STEMS] or found


def pairs(found: Sequence[str]) -> frozenset[tuple[str, str]]:
    """Each term with the next one."""
    return frozenset(zip(found, found[1:], strict=False))


def stem(word: str) -> str:
    """Strip what inflects an English word; a word of another language loses a letter or two.

    >>> stem("invented"), stem("inventions"), stem("cities"), stem("thomas's"), stem("6,924")
    ('invent', 'invent', 'city', 'thomas', '6924')
    """
    if word[0].isdigit():
        return word.replace(",", "")
    word = re.sub(r"(?<=\w)['’](?:s|re|ve|ll|d|m)?$", "", word)
    word = _REGULAR_FORMS.get(word, word)
    for ending, instead in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word[: -len(ending)] + instead
            break
    if len(word) > 4 and word[-1] == word[-2] and word[-1] not in "lsz":
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


_ENDINGS = (
    ("ies", "y"), ("sses", "ss"), ("ss", "ss"), ("us", "us"), ("is", "is"), ("as", "as"),
    ("ions", ""), ("tion", "t"), ("sion", "s"), ("ings", ""), ("ing", ""), ("edly", ""), ("ed", ""),
    ("es", "e"), ("s", ""), ("ly", ""),
)  # fmt: skip
_IRREGULAR_FORMS = """
    become became|begin began begun|break broke broken|bring brought|build built|buy bought
    catch caught|child children|choose chose chosen|come came|deal dealt|draw drew drawn
    drive drove driven|eat ate eaten|fall fell fallen|feed fed|feel felt|fight fought|find found
    fly flew flown|foot feet|forget forgot forgotten|freeze froze frozen|go went gone
    grow grew grown|hear heard|hide hid hidden|hold held|keep kept|know knew known|lay laid
    lead led|leave left|lose lost|man men|mean meant|meet met|pay paid|ride rode ridden
    rise rose risen|run ran|say said|see saw seen|seek sought|sell sold|send sent
    shake shook shaken|shoot shot|show shown|sing sang sung|sink sank sunk|sleep slept
    speak spoke spoken|spend spent|stand stood|steal stole stolen|strike struck|swim swam swum
    take took taken|teach taught|tell told|think thought|throw threw thrown|wear wore worn
    win won|woman women|write wrote written
"""
_REGULAR_FORMS = {
    form: group.split()[0]
    for group in re.split(r"[|\n]", _IRREGULAR_FORMS)
    for form in group.split()[1:]
}
_STOP_STEMS = frozenset({*_STOP_WORDS.split(), *map(stem, _STOP_WORDS.split())})


def is_negated(text: str) -> bool:
    return bool(_NEGATED.search(text))


def holds_kind(question: Question, sentence: str) -> bool:
    """Whether the sentence holds something new of the kind asked for, as a date for "when"."""
    match question.kind:
        case "date":
            return _holds_new(_DATE, question, sentence)
        case "number":
            return _holds_new(_NUMBER, question, sentence)
        case "person":
            return _holds_new_name(question, sentence)
        case "place":
            return _holds_new_name(question, sentence) and bool(_PLACE_WORD.search(sentence))
        case "reason":
            return bool(_REASON.search(sentence))
        case "manner":
            return bool(_MANNER.search(sentence))
        case "other":
            return True


def defines(question: Question, sentence: str) -> bool:
    """Whether the sentence opens by saying what the question's terms are: "A tower is ..."."""
    opening = _DEFINES.match(sentence)
    return opening is not None and set(question.terms) == set(content_terms(opening.group(1)))


def _holds_new(pattern: re.Pattern[str], question: Question, sentence: str) -> bool:
    known = set(question.terms)
    return any(not known.issuperset(terms(match.group())) for match in pattern.finditer(sentence))


def _holds_new_name(question: Question, sentence: str) -> bool:
    """Always so in a script without capitals, where names cannot be told."""
    if not any(letter.isupper() or letter.islower() for letter in sentence):
        return True
    return any(name not in question.terms for name in _names(sentence))


def _names(text: str) -> list[str]:
    return [
        term
        for match in _WRITTEN_WORD.finditer(text)
        if _is_name(match.group(), opens=match.start() == 0)
        for term in terms(match.group())
        if term not in _STOP_STEMS
    ]


def _is_name(word: str, *, opens: bool) -> bool:
    """Whether a word is capitalised; the one that opens the text needs a second capital."""
    return word[0].isupper() and (not opens or any(letter.isupper() for letter in word[1:]))
