"""API keys: made at random, shown once, stored as a hash."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable

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


def drawn(id_: str) -> float:
    """Return a number from 0 to below 1 that is the id's own, the same in every process."""
    digest = hashlib.sha256(id_.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


class Ids:
    """Makes identifiers as long as those of `new_id`: the second, then 64 bits of randomness.

    Beginning with the time they land at one end of an index; random ones dirty a page each, which
    costs a database more than the row itself. The kernel is asked for randomness once for many:
    each time it is asked, another thread may take the interpreter meanwhile.
    """

    def __init__(self, prefix: str, *, clock: Callable[[], float] = time.time) -> None:
        self._prefix = prefix
        self._clock = clock
        self._ready: list[str] = []

    def __call__(self) -> str:
        """Return the next; of any thread."""
        while True:
            try:
                return self._ready.pop()
            except IndexError:
                begun = f"{self._prefix}{int(self._clock()):08x}"
                text = secrets.token_hex(8 * IDS_AT_ONCE)
                self._ready += [begun + text[at : at + 16] for at in range(0, len(text), 16)]
