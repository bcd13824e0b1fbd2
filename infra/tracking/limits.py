"""What may be recorded: the form of names, and how long a text stays before it is cut."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from typing import Any

from infra.errors import InvalidRequest
from infra.words import whole

MAX_NAME_CHARACTERS = 255
MAX_KEY_CHARACTERS = 250
MAX_TEXT_CHARACTERS = 4_096
"""Of a parameter, a tag or an argument of the command; longer ones are cut, and say so."""
MAX_REASON_CHARACTERS = 16_384
MAX_PARAMETERS = 10_000
MAX_SERIES = 10_000
MAX_TAGS = 1_000
STEPS = range(-(2**63), 2**63)

_KIND = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_DIGEST = re.compile(r"[a-z0-9]{2,15}:[A-Za-z0-9+/=_-]{1,64}")
_PART = r"[A-Za-z0-9_@%+=:()., -]+"
_KEY = re.compile(rf"(?!/)(?:(?:/|^)(?!\.{{1,2}}(?:/|$)){_PART})+")


def check_kind(kind: str) -> str:
    """Return the kind of a run.

    Raises:
        InvalidRequest: it is not 1 to 64 of `a-z0-9_-`.
    """
    if not isinstance(kind, str) or not _KIND.fullmatch(kind):
        raise InvalidRequest(
            f"{_shown(kind)} is not a kind of run: use lower case letters, digits, '_' and '-', "
            "such as 'sft'",
            parameter="kind",
        )
    return kind


def check_name(name: str) -> str:
    """Return the name of a run, without space around it.

    Raises:
        InvalidRequest: it is empty, too long, or holds a character that cannot be printed.
    """
    stripped = name.strip() if isinstance(name, str) else ""
    if not 0 < len(stripped) <= MAX_NAME_CHARACTERS or not _is_printable(stripped):
        raise InvalidRequest(
            f"{_shown(name)} cannot name a run: use 1 to {MAX_NAME_CHARACTERS} printable "
            "characters",
            parameter="name",
        )
    return stripped


def check_key(key: str, *, what: str) -> str:
    """Return the name of a metric or a tag.

    Raises:
        InvalidRequest: it does not have the form of one, which every mirror can keep.
    """
    if not isinstance(key, str) or len(key) > MAX_KEY_CHARACTERS or not _KEY.fullmatch(key):
        raise InvalidRequest(
            f"{_shown(key)} cannot name a {what}: use up to {MAX_KEY_CHARACTERS} letters, digits, "
            "spaces and '_@%+=:().,-', with '/' between parts",
            parameter=what,
        )
    return key


def check_digest(digest: Any) -> str:
    """Return the digest of an artifact.

    Raises:
        InvalidRequest: it is none, such as `sha256:9f86...`.
    """
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise InvalidRequest(
            f"{_shown(digest)} is not a digest; write the algorithm, ':' and the hash, such as "
            "'sha256:9f86...'",
            parameter="digest",
        )
    return digest


def cut(text: str, limit: int = MAX_TEXT_CHARACTERS) -> str:
    """Return the text, or its beginning with the length and digest of the whole."""
    if len(text) <= limit:
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    ending = f"... [{len(text)} characters, sha256:{digest[:16]}]"
    return text[: limit - len(ending)] + ending


def storable(text: str) -> str:
    """Return the text without what a database cannot hold: NUL and lone surrogates."""
    return whole(text.replace("\0", "\N{REPLACEMENT CHARACTER}"))


def _is_printable(text: str) -> bool:
    return not any(unicodedata.category(letter) in {"Cc", "Cs", "Zl", "Zp"} for letter in text)


def _shown(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:80]}..."
