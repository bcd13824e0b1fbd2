"""Denial and opposites: whether two sentences say the same and not the contrary."""

from __future__ import annotations

import re
from collections.abc import Mapping

from monitoring.grounding.terms import content_terms

_DENIES = re.compile(
    r"""\b(?:not|no|never|none|neither|nor|without|cannot|nobody|nothing|nowhere|hardly|unable
    |fail(?:s|ed)?|nicht|nie|niemals|kein\w*|ohne|jamais|aucune?|sans|nunca|ning[uú]n\w*|tampoco)\b
    |n['’]t\b|\bn(?:e\b|['’]).{1,30}?\b(?:pas|plus|jamais)\b|[不没沒無非未]|ません|ない|لا\s|ليس|لم\s""",
    re.IGNORECASE | re.VERBOSE,
)
_OPPOSITES = """
    increase/decrease decline reduce diminish fall drop lower|rise/fall drop decline decrease
    raise/lower reduce|higher/lower less|more/less fewer|most/least fewest
    greater/smaller less lower
    larger/smaller|longer/shorter|faster/slower|stronger/weaker|better/worse|best/worst
    improve/worsen impair deteriorate|enhance/impair reduce inhibit suppress
    promote/inhibit prevent suppress block|activate/inhibit suppress deactivate inactivate
    induce/inhibit prevent suppress|upregulate/downregulate|stimulate/inhibit suppress
    positive/negative|protect/harm damage expose|beneficial/harmful|effective/ineffective
    cause/prevent cure|gain/lose loss|win/lose|won/lost|success/failure|succeed/fail
    accelerate/slow delay decelerate|warm/cool cold|warming/cooling|hot/cold|expand/shrink contract
    grow/shrink|before/after|earlier/later|early/late|first/last|start/end stop|begin/end
    open/close|allow/forbid prohibit ban|legal/illegal|include/exclude|accept/reject refuse
    support/oppose|agree/disagree|approve/reject|buy/sell|north/south|east/west|left/right
    above/below|inside/outside|male/female|man/woman|boy/girl|father/mother
    son/daughter|brother/sister|husband/wife|king/queen|alive/dead|born/died|young/old
    major/minor|maximum/minimum|always/never|all/none|everyone/nobody|public/private
    common/rare uncommon|possible/impossible|true/false|right/wrong|dependent/independent
    associated/unrelated|required/dispensable unnecessary|sensitive/resistant|strong/weak
    high/low|upper/lower|rich/poor|safe/dangerous unsafe|presence/absence|present/absent
"""
_PLAINLY = frozenset({False})
_CLAUSE = re.compile(
    r"[,;:.!?](?=\s|\Z)|[。，；：！？、]|\b(?:but|although|whereas|while|aber|sondern)\b"
)


def _stems(words: str) -> frozenset[str]:
    return frozenset(term for word in words.split() for term in content_terms(word))


def _opposites() -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for pair in re.split(r"[|\n]", _OPPOSITES):
        one, _, others = pair.strip().partition("/")
        for first, second in ((_stems(one), _stems(others)), (_stems(others), _stems(one))):
            for term in first:
                found[term] = found.get(term, frozenset()) | second
    return found


OPPOSITES = _opposites()
"""By stem, the stems that say the contrary."""


def denies(text: str) -> bool:
    """Whether a text denies something, by words of some languages."""
    return bool(_DENIES.search(text))


def denied(text: str) -> dict[str, frozenset[bool]]:
    """Return, by content term, whether it stands within a denial's reach, or out of it, or both.

    A denial reaches over the words after it to the end of its clause; in a script without spaces,
    and where it comes last, over its sentence.
    """
    if not _DENIES.search(text):
        return dict.fromkeys(content_terms(text), _PLAINLY)
    found: dict[str, set[bool]] = {}
    for clause in _CLAUSE.split(text):
        match = _DENIES.search(clause)
        before, after = (clause, "") if match is None else _reach(clause, match)
        for part, flag in ((before, False), (after, True)):
            for term in content_terms(part):
                found.setdefault(term, set()).add(flag)
    return {term: frozenset(flags) for term, flags in found.items()}


def turned(claim: Mapping[str, frozenset[bool]], text: Mapping[str, frozenset[bool]]) -> float:
    """Return the share of shared terms that one denies and the other does not; 0 for none."""
    shared = claim.keys() & text.keys()
    differ = sum(claim[term].isdisjoint(text[term]) for term in shared)
    return differ / len(shared) if shared else 0.0


def _reach(clause: str, match: re.Match[str]) -> tuple[str, str]:
    after = clause[match.end() :]
    if len(content_terms(after)) < len(content_terms(clause)) / 4 or not match.group().isascii():
        return "", clause
    return clause[: match.start()], after


def contradicted(claimed: frozenset[str], held: frozenset[str]) -> list[str]:
    """Return the stems of a claim that a text lacks while it holds their contrary."""
    return [
        term
        for term in claimed - held
        if (contrary := OPPOSITES.get(term)) and contrary & held and not contrary & claimed
    ]
