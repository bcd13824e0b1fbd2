"""API keys: made at random, shown once, stored as a hash."""

from __future__ import annotations

import hashlib
import secrets

PREFIX = "rgs_"
IDS_AT_ONCE = 128


def new_key() -> str:
    """Return a fresh key with 256 bits of randomness."""
    return PREFIX + secrets.token_urlsafe(32)


def fingerprint(key: str) -> str:
    """Return the SHA-256 under which a key is stored.

    A key is random, not chosen by a person, so a plain hash cannot be guessed back and a slow one
    would only tax every request.
    """
    return hashlib.sha256(key.encode()).hexdigest()


def new_id(prefix: str) -> str:
    """Return a public identifier such as `file-5f2a...`, 96 bits of randomness."""
    return prefix + secrets.token_hex(12)


class Ids:
    """Makes identifiers as `new_id` does, and asks the kernel for randomness once for many.

    Each time it is asked, another thread may take the interpreter meanwhile.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._ready: list[str] = []

    def __call__(self) -> str:
        """Return the next; of any thread."""
        while True:
            try:
                return self._ready.pop()
            except IndexError:
                text = secrets.token_hex(12 * IDS_AT_ONCE)
                self._ready += [self._prefix + text[at : at + 24] for at in range(0, len(text), 24)]
