"""Keeps passwords and keys out of what is recorded: in arguments, parameters and addresses."""

from __future__ import annotations

import re
from collections.abc import Sequence

HIDDEN = "[hidden]"
# A token is also a piece of text: `max_tokens` and `pad_token` are no secrets.
_SECRET = re.compile(
    r"(?:^|[._-])(?:"
    r"pass(?:word|wd|phrase)?|secrets?|credentials?|"
    r"(?:api|access|private|secret|account|encryption)[_-]?key(?:[_-]id)?|"
    r"(?:api|auth|access|bearer|refresh|session|hf|github|secret)[_-]?token|authorization"
    r")$",
    re.IGNORECASE,
)
_TOKEN = re.compile(r"token", re.IGNORECASE)
_PERSON_IN_ADDRESS = re.compile(r"(?<=://)[^/\s@]+(?=@)")
_KNOWN_KEY = re.compile(
    r"\b(?:rgs_|sk-|hf_|ghp_|github_pat_|glpat-|xox[abp]-|AKIA)[A-Za-z0-9_-]{12,}"
)


def is_secret(name: str) -> bool:
    """True if a thing of this name is to be hidden."""
    return bool(_SECRET.search(name) or _TOKEN.fullmatch(name.lstrip("-")))


def hide(text: str) -> str:
    """Return the text without who is in its addresses, and without keys of well-known forms."""
    return _KNOWN_KEY.sub(HIDDEN, _PERSON_IN_ADDRESS.sub(HIDDEN, text))


def hide_in_command(words: Sequence[str]) -> list[str]:
    """Return a command line without the values of secret options.

    >>> hide_in_command(["train", "--api-key", "abc", "--hf-token=def", "--max-tokens", "9"])
    ['train', '--api-key', '[hidden]', '--hf-token=[hidden]', '--max-tokens', '9']
    """
    shown: list[str] = []
    follows_secret = False
    for word in words:
        name, equals, _ = word.partition("=")
        if follows_secret and not word.startswith("-"):
            shown.append(HIDDEN)
        elif equals and is_secret(name):
            shown.append(f"{name}={HIDDEN}")
        else:
            shown.append(hide(word))
        follows_secret = word.startswith("-") and not equals and is_secret(word)
    return shown
