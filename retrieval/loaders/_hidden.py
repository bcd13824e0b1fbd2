"""Tells which elements of a web page a reader does not see, by attributes and style sheets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_INVISIBLE = re.compile(
    r"display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|content-visibility\s*:\s*hidden"
    r"|(?<![\w-])opacity\s*:\s*0(?:\.0*)?(?:\s*[;!]|\s*$)"
    r"|font-size\s*:\s*(?:[01](?:\.\d{1,4})?(?:px|pt)|0(?:\.[0-2]\d{0,4})?(?:r?em|%|v[wh])?)\s*(?:[;!]|$)"
    r"|text-indent\s*:\s*-\d{3,}|(?<![\w-])(?:left|top)\s*:\s*-\d{4,}",
    re.IGNORECASE,
)
_COLOR = re.compile(
    r"(?<![\w-])(background(?:-color)?|color)\s*:\s*([#\w]+(?:\([^)]{0,60}\))?)", re.IGNORECASE
)
_DISPLAY = re.compile(r"(?<![\w-])display\s*:\s*(?!none)\w", re.IGNORECASE)
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_BRACE = re.compile(r"[{}]")
_SELECTOR = re.compile(r"(?:[a-z][a-z0-9]*)?([.#][\w-]+)$", re.IGNORECASE)
_WHITE = frozenset({"#fff", "#ffffff", "white", "rgb(255,255,255)"})
_MAX_RULES = 20_000


def is_hidden(attributes: Mapping[str, str], hiding: frozenset[str] = frozenset()) -> bool:
    """Whether an element with these attributes is out of sight.

    Args:
        attributes: of the element, in lower case.
        hiding: selectors such as `.secret` that the page's style sheets hide.
    """
    if attributes.get("hidden", "until-found") != "until-found":
        return True
    if attributes.get("aria-hidden", "").lower() == "true":
        return True
    style = attributes.get("style", "")
    if style and (_INVISIBLE.search(style) or _is_ink_on_ink(style)):
        return True
    if not hiding:
        return False
    names = [f".{name}" for name in attributes.get("class", "").split()]
    return f"#{attributes.get('id', '')}" in hiding or any(name in hiding for name in names)


def hiding_selectors(style_sheets: Iterable[str]) -> frozenset[str]:
    """The `.class` and `#id` selectors that hide, unless another rule shows the same ones.

    Rules within `@media` and the like are left alone: they speak of paper or of small screens.
    """
    hidden: set[str] = set()
    shown: set[str] = set()
    for sheet in style_sheets:
        for selectors, body in _rules(_COMMENT.sub("", sheet)):
            if _DISPLAY.search(body):
                shown.update(re.findall(r"[.#][\w-]+", selectors))
            elif _INVISIBLE.search(body) or _is_ink_on_ink(body):
                found = (_SELECTOR.match(selector.strip()) for selector in selectors.split(","))
                hidden.update(match.group(1) for match in found if match)
    return frozenset(hidden - shown)


def _rules(sheet: str) -> list[tuple[str, str]]:
    """Selectors and declarations of the rules outside blocks."""
    rules: list[tuple[str, str]] = []
    depth, start, selectors = 0, 0, ""
    for brace in _BRACE.finditer(sheet):
        part = sheet[start : brace.start()]
        start = brace.end()
        if brace.group() == "{":
            depth += 1
            if depth == 1:
                selectors = part.rpartition(";")[2]
        else:
            if depth == 1 and "@" not in selectors:
                rules.append((selectors, part))
            depth = max(0, depth - 1)
        if len(rules) >= _MAX_RULES:
            break
    return rules


def _is_ink_on_ink(style: str) -> bool:
    colors: dict[str, str] = {}
    for name, value in _COLOR.findall(style):
        color = value.lower().replace(" ", "")
        colors[name.lower()[:10]] = "#fff" if color in _WHITE else color
    return "color" in colors and colors["color"] == colors.get("background")
