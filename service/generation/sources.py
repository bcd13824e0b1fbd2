"""Retrieved text as data in a prompt: fenced, marked line by line, unable to speak for others."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence

from infra.contracts import Passage
from infra.quoted_text import MARK, lines, speech
from service.generation.bracketed import BRACKETS, MARKER

MAX_HEADING_CHARACTERS = 160

_LENTICULAR = re.compile(r"【([^】\n]{1,40})】")


def new_secret() -> bytes:
    """Return what nonces are made with; one for each process is enough."""
    return secrets.token_bytes(16)


def nonce(secret: bytes, question: str, passages: Sequence[Passage]) -> str:
    """Return the word in the fences of a request, unknown to whoever wrote the documents.

    The same request gets the same word, so that what was computed for it can be used again.
    """
    digest = hashlib.blake2b(key=secret, digest_size=6)
    for text in (question, *(passage.text for passage in passages)):
        digest.update(text.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def fence(number: int, nonce: str, *, ends: bool = False) -> str:
    """Return the line before source `number`, or the one after it."""
    return f"=== {'end of ' if ends else ''}source {number} {nonce} ==="


def block(number: int, passage: Passage, *, heading: str, nonce: str) -> str:
    """Return one passage between its fences; every line of it opens with `MARK`."""
    said = [heading, *lines(as_data(passage.text))]
    marked = "\n".join(MARK + line for line in said if line.strip())
    return f"{fence(number, nonce)}\n{marked}\n{fence(number, nonce, ends=True)}"


def blocks(passages: Sequence[Passage], *, heading: str, nonce: str) -> str:
    """Return all passages, numbered from 1; `heading` may name {title}, {source} and {number}."""
    return "\n\n".join(
        block(
            number,
            passage,
            heading=_heading(heading, number, passage),
            nonce=nonce,
        )
        for number, passage in enumerate(passages, start=1)
    )


def as_data(text: str) -> str:
    """Return text from elsewhere as a model may read it.

    Characters that do not show are left out, words that a chat template would take for its own
    lose that meaning, and numbers in square brackets, which are ours to cite with, get round ones.
    """
    said = MARKER.sub(lambda found: f"({found.group().strip(BRACKETS)})", speech(text))
    return _LENTICULAR.sub(lambda found: f"({found[1]})", said)


def _heading(form: str, number: int, passage: Passage) -> str:
    place = passage.source.rsplit("/", 1)[-1]
    title = " > ".join(part for part in (passage.title or place, passage.heading) if part)
    values = {"title": title, "source": place, "number": str(number)}
    text = re.sub(r"\{(title|source|number)\}", lambda found: values[found[1]], form)
    return " ".join(as_data(text).split())[:MAX_HEADING_CHARACTERS]
