"""Verdicts on claims by rule, as a language model would be asked for them."""

from __future__ import annotations

import json
import re
from typing import Any

_SHOWN = re.compile(
    r"^=== texts (\w+) ===\n(.*)\n=== end of texts \1 ===\n"
    r"=== claims \1 ===\n(.*)\n=== end of claims \1 ===$",
    re.S,
)
_WORD = re.compile(r"\w+")


def by_words(body: dict[str, Any]) -> str:
    """Say that a claim is carried if all of its words are in the texts, partly if most are."""
    found = _SHOWN.match(body["messages"][-1]["content"])
    assert found is not None
    held = set(_WORD.findall(found[2].lower()))
    verdicts = []
    for claim in re.split(r"^\| \d+\. ", found[3], flags=re.M)[1:]:
        words = set(_WORD.findall(claim.lower()))
        share = len(words & held) / max(1, len(words))
        verdicts.append("carried" if share == 1 else "partly" if share > 0.5 else "not_carried")
    return json.dumps({"verdicts": verdicts})
