"""Elements of a page: trees, not text, so that nothing that a model said can become markup."""

from __future__ import annotations

import re
from typing import TypeAlias

from lxml import etree, html

Element: TypeAlias = "etree._Element"
Child: TypeAlias = "Element | str | None"

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_UNFIT = re.compile(
    "[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\u202a-\u202e\u2066-\u2069]"
)
"""Characters that no XML may hold, and those that turn the order of what follows them."""


def element(tag: str, *children: Child, **attributes: str | float) -> Element:
    """Return an element with texts and elements in it.

    An attribute is written with `-` for `_`; a trailing `_` is for names that Python keeps.
    """
    made = etree.Element(tag)
    for name, value in attributes.items():
        text = f"{value:.6g}" if isinstance(value, float) else str(value)
        made.set(name.rstrip("_").replace("_", "-"), clean(text))
    for child in children:
        if child is None:
            continue
        if not isinstance(child, str):
            made.append(child)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + clean(child)
        else:
            made.text = (made.text or "") + clean(child)
    return made


def document(title: str, style: str, *body: Child) -> bytes:
    """Return a whole page in UTF-8 that runs no script and loads nothing."""
    page = element(
        "html",
        element(
            "head",
            element("meta", charset="utf-8"),
            element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            element("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("title", title),
            element("style", style),
        ),
        element("body", *body),
        lang="en",
    )
    return bytes(html.tostring(page, doctype="<!doctype html>", encoding="utf-8")) + b"\n"


def clean(text: str) -> str:
    """Return a text with a replacement character for what XML cannot hold and what hides."""
    return _UNFIT.sub("\ufffd", text)


def short(text: str, most: int) -> str:
    """Return a text of at most `most` characters and, if it was longer, how many are left out."""
    if len(text) <= most:
        return text
    return f"{text[:most]} [... {len(text) - most:,} more characters]"


def number(value: float | None) -> str:
    """Return a number as reports show it."""
    return "-" if value is None else f"{value:.4g}"
