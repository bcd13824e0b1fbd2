"""Mail: the subject, the body as text or HTML, who wrote it to whom; attachments are named."""

from __future__ import annotations

import email
import email.policy
from contextlib import suppress
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

from infra.contracts import Document
from infra.errors import Damaged
from retrieval.loaders._composer import Composer
from retrieval.loaders._decoding import decode
from retrieval.loaders.html import add_page
from retrieval.loaders.text import add_paragraphs

if TYPE_CHECKING:
    from infra.settings import Loading

MEDIA_TYPES = frozenset({"message/rfc822"})

_MAX_PARTS = 1_000
_MAX_HEADER_CHARACTERS = 10_000
# What the standard library's parser raises on malformed messages.
_MALFORMED = (HeaderParseError, LookupError, ValueError, TypeError, AttributeError, RecursionError)


def load(path: Path, limits: Loading) -> Document:
    """Read one message; what is attached is left out and named in a warning."""
    # The newer policies parse headers as grammar, which a hostile header makes arbitrarily slow.
    message = email.message_from_bytes(path.read_bytes(), policy=email.policy.compat32)
    composer = Composer("message/rfc822", limits)
    subject = _header(message, "subject")
    composer.add("heading", subject, level=1)
    try:
        _add_body(composer, message)
    except _MALFORMED as error:
        raise Damaged(f"Its parts are malformed: {error}") from error
    metadata: dict[str, object] = {name: _header(message, name) for name in ("from", "to", "cc")}
    return composer.document(title=subject, metadata={**metadata, "date": _date(message)})


def _add_body(composer: Composer, message: Message) -> None:
    plain, page, attached = _parts(message)
    if any(_text(part).strip() for part in plain):
        for part in plain:
            add_paragraphs(composer, _text(part))
    else:
        for part in page:
            add_page(composer, _text(part))
    for name in attached:
        composer.warn(f"Attachment {name!r} was left out; save and ingest it on its own")


def _parts(message: Message) -> tuple[list[Message], list[Message], list[str]]:
    """The parts that are plain text, those that are HTML, and the names of the attachments."""
    plain: list[Message] = []
    page: list[Message] = []
    attached: list[str] = []
    queue: list[Message] = [message]
    seen = 0
    while queue and seen < _MAX_PARTS:
        part = queue.pop(0)
        seen += 1
        kind = part.get_content_type()
        inside = kind == "message/rfc822" and part is not message
        if part.is_multipart() and not inside:
            queue[:0] = cast("list[Message]", part.get_payload())
        elif inside or part.get_content_disposition() == "attachment" or part.get_filename():
            attached.append(_filename(part) or kind)
        elif kind == "text/html":
            page.append(part)
        elif kind.startswith("text/"):
            plain.append(part)
    if queue:
        attached.append(f"and {len(queue)} further parts")
    return plain, page, attached


def _filename(part: Message) -> str:
    return " ".join(str(part.get_filename() or "").split())[:200]


def _text(part: Message) -> str:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return str(part.get_payload())
    return decode(payload, declared=part.get_content_charset()).text


def _header(message: Message, name: str) -> str:
    """A header with its encoded words decoded, on one line; malformed ones as they stand."""
    items = (value for key, value in message.raw_items() if key.lower() == name)
    raw = str(next(items, ""))[:_MAX_HEADER_CHARACTERS]
    value = decode(raw.encode("ascii", "surrogateescape")).text
    with suppress(*_MALFORMED):  # it must not cost the body
        value = str(make_header(decode_header(value)))
    return " ".join(value.split())


def _date(message: Message) -> object:
    try:
        return parsedate_to_datetime(_header(message, "date"))
    except _MALFORMED:
        return ""
