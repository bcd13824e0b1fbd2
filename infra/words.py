"""Words of any script: numbers whole, and each character where words are written without spaces."""

from __future__ import annotations

import re

UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
)
"""Thai, Lao, Burmese, Khmer, Japanese and Chinese, for a class of a pattern."""
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_WORD = re.compile(rf"{NUMBER.pattern}|[{UNSPACED}]|[^\W\d_{UNSPACED}]+")
_CHARACTER = re.compile(f"([{UNSPACED}])")
_PUNCTUATION = re.compile(
    "[\u3001-\u3003\u3008-\u3011\u3014-\u301f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65]"
)


def words(text: str) -> list[str]:
    """Return the words without regard to case, in reading order; underscores part them.

    >>> words("Die Brücke (2.467 m) 長い橋")
    ['die', 'brücke', '2.467', 'm', '長', 'い', '橋']
    """
    return _WORD.findall(text.casefold())


def spaced(text: str) -> str:
    """Return a text whose unspaced scripts have a space around each character, for what splits.

    Their punctuation, which programs for English do not know, is left out.

    >>> spaced("built 1890年に。").split()
    ['built', '1890', '年', 'に']
    """
    return _CHARACTER.sub(r" \1 ", _PUNCTUATION.sub(" ", text))


def whole(text: str) -> str:
    r"""Return a text that can be encoded: half a surrogate pair becomes a question mark.

    >>> whole("a\udc80")
    'a?'
    """
    return text.encode("utf-8", "replace").decode()
