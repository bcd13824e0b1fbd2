"""What gives an instruction to a model away: named signs, and hashed pieces of its words."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

BUCKETS = 4096
"""Of the hashed pieces."""
MAX_CHARACTERS = 4_000
"""Of one stretch that is looked at, from its beginning and its end."""
_SIZES = (3, 5)
"""Characters of a piece."""
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

_ALL = (
    r"(?:all|any|every\w*|previous\w*|prior|above|earlier|preceding|before|initial|original|system"
    r"|your|these|the|my|our|other|alle[sn]?|vorherige\w*|bisherige\w*|vorangegangene\w*|obige\w*"
    r"|davor|zuvor|deine|ihre|die|tout(?:es?)?|tous|précédente?s?|ci-dessus|todas?|todos"
    r"|anteriores?"
    r"|las|los|tutte|tutti|precedenti|sve|prethodn\w*|что|все|предыдущ\w*)"
)
_RULES = (
    r"(?:instructions?|rules?|prompts?|tasks?|commands?|orders?|directions?|guidelines?|context"
    r"|documents?|articles?|information|knowledge|assignments?|restrictions?|policies|thoughts"
    r"|told|said|know|saw|anweisungen|angaben|aufgaben|aufträge|befehle|informationen|regeln"
    r"|gesagte"
    r"|consignes|règles|instrucciones|reglas|órdenes|istruzioni|regole|instrukcije|инструкци\w*)"
)
_LET_GO = (
    r"(?:ignor\w*|forget|disregard|drop|abandon|overlook|neglect|bypass|override|discard|skip"
    r"|dismiss|do(?:n['’]?t| not) (?:follow|obey|use|look|answer|consider|listen)|stop following"
    r"|vergiss|vergessen|ignorier\w*|missacht\w*|lass\w*|oubli\w*|olvid\w*|dimentic\w*|esquec\w*"
    r"|zaboravi\w*|забуд\w*|игнорир\w*)"
)

SIGNS: Mapping[str, re.Pattern[str]] = {
    name: re.compile(pattern, re.IGNORECASE)
    for name, pattern in {
        "lets_go_of_rules": rf"\b{_LET_GO}\b(?:\W+\w+){{0,4}}?\W+{_RULES}\b",
        "lets_go_of_all": rf"\b{_LET_GO}\b(?:\W+\w+){{0,2}}?\W+{_ALL}\b",
        "lets_go_unspaced": r"忽略|忘记|忘掉|無視|無視して|忘れて|تجاهل|انس",
        "new_task": r"\b(?:new|additional|next|other|neue[nr]?|weitere[nr]?|andere|nouvelles?"
        r"|nuevas?)\W+(?:\w+\W+)?(?:task|instruction|order|statement|assignment|role|aufgabe"
        r"|anweisung"
        r"|anforderung|auftr[aä]g|befehl|tâche|consigne|tarea|instrucci)\w*",
        "starts_over": r"\b(?:start(?:en|ing)? (?:over|anew|again|afresh)|von (?:neu|vorne)"
        r"|from now on|ab jetzt|ab sofort|de ahora en adelante|désormais)\b",
        "takes_a_role": r"\b(?:you are (?:now (?:an?\b|the\b|my\b|going\b|(?-i:[A-Z]))|no longer"
        r"|(?:an?|the|my)\b|(?-i:[A-Z])\w+)|act as|acting as"
        r"|pretend|role-?play|imagine (?:that )?you|behave (?:like|as)|play the role"
        r"|du bist|sie sind (?:nun|jetzt|ein)|als \w+(?:\W+\w+){0,3}\W+(?:fungier|agier|auftret"
        r"|auftritt)\w*"
        r"|handel\w* als|spiel\w* (?:die rolle|den)|stell dir vor|tu es como|actúa como"
        r"|eres (?:un|ahora)|tu es (?:un|maintenant))\b",
        "wants_the_prompt": r"\b(?:show|print|reveal|repeat|output|return|tell|give|display|list"
        r"|write|expose"
        r"|share|what (?:is|are|was|were)|zeig\w*|wiederhol\w*|nenn\w*|gib|vorzeigen|montre\w*"
        r"|muestra)\b(?:\W+\w+){0,7}?\W+"
        r"(?:(?:system |initial |full |entire |your |original |all )*(?:prompts?|instructions"
        r"|instruktionen|embeddings"
        r"|prompt-?\w+|guidelines|rules you)|beginning of (?:this|the)|above)\b",
        "says_just": r"\b(?:just|only|simply|exactly|instead|nur|einfach|solamente)\W+"
        r"(?:(?:say|output|print|write|return|sagen?|schreib\w*|ausgeben)\b"
        r"|(?:answer|reply|respond|antworte\w*)\W+(?:with|in|by|using|as|yes|no|mit|auf|ja|nein)\b)"
        r"|\b(?:say|output|print|write|repeat|state|sage?|schreibe?|antworte)\W+"
        r"(?:after me|that you|yes\b|ja\b|the following|\"|“|'|„)",
        "stages_obedience": r"\b(?:well done|great job|good job|very good|excellent|wow|okay"
        r"|congratulations|that is done"
        r"|that's fantastic|sehr gut|gut gemacht|ausgezeichnet\w*|super|hervorragend\w*"
        r"|herzlichen glückwunsch"
        r"|bravo|muy bien)\b[^.!?]{0,60}[.!?]",
        "names_the_reader": r"\b(?:as an? (?:ai|language model|assistant)|(?:ai|llm"
        r"|language) (?:assistant|model|agent)s?"
        r"|chat ?bot|chat ?gpt|gpt-?\d?|sprachmodell|assistant:|system:|jailbreak\w*"
        r"|developer mode|DAN)\b",
        "answers_for_the_reader": r"\b(?:in|to|into|with|within|of|for|throughout|before|after"
        r"|alter|modify|revise|adjust|tweak"
        r"|augment|enhance|extend|supplement|render|encode|encrypt|translate|reverse|convert"
        r"|format|craft|provide)\W+"
        r"(?:\w+\W+){0,2}?(?:your|the final|this)\W+(?:\w+\W+)?(?:response|answer|reply|output"
        r"|message|text|"
        r"responses|answers|replies|summary)\b|\byour (?:response|answer|reply|output)\b",
        "tells_of_the_user": r"\b(?:tell|inform|convince|encourage|urge|ask|suggest|advise|remind"
        r"|redirect|direct|lead|prompt) "
        r"(?:the |all |your |that )?(?:users?|readers?|customers?|them)\b|\bfor (?:users"
        r"|readers) to\b",
        "does_not_look": r"\b(?:do(?:n['’]?n?t| not)|never|without)\W+(?:\w+\W+){0,2}?(?:look"
        r"|answer|us(?:e|ing)|according|refer|rely|mention|tell)\b"
        r"|\bnot according to\b",
        "sends_away": r"!\[[^\]]{0,80}\]\(\s{0,4}https?:|\bhttps?://\S{1,200}[?&]\w{1,30}=(?:\{"
        r"|\[|<|$|%s)"
        r"|\b(?:send|post|forward|email|upload|exfiltrat\w*|leak)\b(?:\W+\w+){0,8}?\W+(?:to"
        r"|at)\W+(?:https?|\S{1,60}@|www)",
        "fakes_a_turn": r"<\|?/?(?:im_start|im_end|system|assistant|user|endoftext|eot_id)\b"
        r"|\[/?INST\]|</?s>"
        r"|^\s{0,8}#{2,}\s?(?:instruction|system|response|new)|^\s{0,8}(?:system|assistant|user"
        r"|human|ai)\s?:",
        "commands": r"\bI (?:command|order) you\b|\byou (?:must|have to|should|shall"
        r"|will) (?:now |only |always |never )?"
        r"(?:say|answer|respond|reply|write|output|print|obey|do|follow)\b|\b(?:sie|du) (?:müssen"
        r"|musst|sollen|sollst)\b",
        "opens_with_an_order": r"^\W*(?:please |kindly |bitte )?(?:write|generate|compose|create"
        r"|draft|provide|give|describe|explain"
        r"|translate|list|summari[sz]e|analy[sz]e|develop|design|suggest|recommend|add|insert"
        r"|include|embed|append|incorporate"
        r"|mention|promote|convert|encode|decode|reverse|replace|remove|use|express|transcribe"
        r"|transform|rewrite|respond|answer|reply|show"
        r"|tell|teach|formulate|say|print|state|execute|find|identify|compare|evaluate|assess"
        r"|determine|calculate|predict|guide"
        r"|schreib\w*|generier\w*|formulier\w*|erstell\w*|sag\w*|antwort\w*|gib|nenn\w*"
        r"|beantwort\w*)\b",
        "asks": r"\?\s{0,4}$|^\W*(?:what|how|why|who|when|where|which|can you|could you"
        r"|would you)\b",
        "hard_words": r"\b(?:hate|hass\w*|idiot\w*|stupid|dumm|doof|worst|kill\w*|swear\w*"
        r"|dictator|asshole|fuck\w*|propaganda|scam\w*|malware|phishing|virus)\b",
    }.items()
}
MEASURES = ("shouting", "spaced_letters")
NAMES = (*SIGNS, *MEASURES)

_SHOUTED = re.compile(r"\b[A-ZÄÖÜ]{3,}(?:\W+[A-ZÄÖÜ']{2,}){2,}")
_SPACED = re.compile(r"(?:\b\w ){6,}")
_SPACES = re.compile(r"\s+")


def normalise(text: str) -> str:
    """Return text with look-alike forms folded, nothing that does not show, and single spaces."""
    if len(text) > MAX_CHARACTERS:
        text = f"{text[: MAX_CHARACTERS // 2]} {text[-MAX_CHARACTERS // 2 :]}"
    folded = unicodedata.normalize("NFKC", text)
    shown = "".join(
        character
        for character in folded
        if unicodedata.category(character) not in {"Cf", "Co", "Cn"}
    )
    return _SPACES.sub(" ", shown).strip()


def signs(text: str) -> NDArray[np.float64]:
    """Return which signs a normalised text shows, in the order of `NAMES`."""
    found = [float(bool(pattern.search(text))) for pattern in SIGNS.values()]
    return np.array(
        [
            *found,
            float(bool(_SHOUTED.search(text))),
            float(bool(_SPACED.search(text))),
        ]
    )


def pieces(text: str) -> NDArray[np.float64]:
    """Return the share of each bucket among the hashed character pieces, of unit length."""
    codes = np.array([ord(character) for character in f" {text.lower()} "], dtype=np.uint64)
    counts = np.zeros(BUCKETS)
    for size in _SIZES:
        if len(codes) < size:
            continue
        window = np.lib.stride_tricks.sliding_window_view(codes, size)
        hashed = np.full(len(window), np.uint64(size))
        for column in range(size):
            hashed = (hashed ^ window[:, column]) * _MULTIPLIER
            hashed ^= hashed >> np.uint64(29)
        np.add.at(counts, (hashed % np.uint64(BUCKETS)).astype(np.intp), 1.0)
    counts = np.sqrt(counts)
    norm = float(np.sqrt(counts @ counts))
    return counts / norm if norm else counts
