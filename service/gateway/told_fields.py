"""What the fields of a model's answer tell: texts, names, and what is masked whole or left out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

from infra.expectations.recognizers import mask

NAMES = frozenset(
    {
        "code",
        "finish_reason",
        "id",
        "model",
        "native_finish_reason",
        "object",
        "provider",
        "role",
        "service_tier",
        "stop_reason",
        "system_fingerprint",
        "type",
    }
)
"""Fields that a program reads, and no model writes; each event tells the whole of them."""
CALLS = frozenset({"tool_calls", "function_call"})
"""Fields in which a model calls functions."""
ARGUMENTS = frozenset({"arguments", "input"})
"""Of such a call; a program reads them, so they pass as they are."""
HOLDERS = ("message", "delta")
"""Fields of a choice that hold what the model says."""
TOLD_AT_ONCE = frozenset(
    {
        "annotations",
        "citations",
        "content_filter_results",
        "error",
        "prompt_filter_results",
        "search_results",
        "sources",
        "usage",
    }
)
"""Fields that hold texts within, each of them whole in one event."""
PADDING = frozenset({"obfuscation", "p"})
"""Fields that only hide how long an event is; what is written anew hides nothing by them."""
Path: TypeAlias = tuple[str, ...]
"""The names that lead to a text, from its choice or from the answer."""
_NAME = re.compile(r"[\w.:/#-]{1,200}", re.ASCII)
_PLAIN = re.compile(r"[A-Za-z_]{1,60}")
_SPELT_OUT = re.compile(r".{0,60}(logprobs|token_ids)")
"""Fields that tell a text once more, token by token."""


@dataclass(frozen=True, slots=True)
class Told:
    """A text in an answer, or a piece of one in an event."""

    choice: int | None
    """None where it stands beside the choices."""
    path: Path
    holder: dict[str, Any]

    @property
    def text(self) -> str:
        return str(self.holder[self.path[-1]])

    def replace(self, text: str) -> None:
        self.holder[self.path[-1]] = text


def told_in(content: dict[str, Any], *, is_event: bool) -> list[Told]:
    """Return where the texts of an answer or of an event stand.

    What else may hold texts is masked here; of an event it is left out, where nobody knows how its
    pieces join.
    """
    if content.get("choices") is not None:
        content["choices"] = objects(content["choices"])
    found = _told(content, None, leaves_out=is_event, known=("choices",))
    for choice in objects(content.get("choices")):
        found += _in_choice(choice, index_of(choice), is_event=is_event)
    return found


def add(choice: dict[str, Any], path: Path, rest: str) -> None:
    """Add to a text what follows."""
    holder = choice
    for name in path[:-1]:
        if not isinstance(holder.get(name), dict):
            holder[name] = {}
        holder = holder[name]
    holder[path[-1]] = (holder.get(path[-1]) or "") + rest


def masked(value: Any, *, passed: Iterable[str] = ()) -> Any:
    """Return JSON with every text within masked, but for names and the fields that are `passed`."""
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, list):
        return [masked(part, passed=passed) for part in value]
    if not isinstance(value, dict):
        return value
    return {_masked_key(name): _masked_field(name, value[name], passed) for name in value}


def index_of(choice: dict[str, Any]) -> int:
    """Return which of the answers this is of."""
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def objects(values: Any) -> list[dict[str, Any]]:
    """Return the objects in a list."""
    return [each for each in values if isinstance(each, dict)] if isinstance(values, list) else []


def _in_choice(choice: dict[str, Any], index: int, *, is_event: bool) -> list[Told]:
    found = _told(choice, index, leaves_out=is_event, known=HOLDERS)
    for part in HOLDERS:
        said = choice.get(part)
        if isinstance(said, dict):
            _join_parts(said)
            found += _heard(said, index, part)
            found += _told(said, index, (part,), leaves_out=True, known=("audio",))
        elif isinstance(said, str):
            found.append(Told(index, (part,), choice))
        elif said is not None:
            del choice[part]
    return found


def _told(
    holder: dict[str, Any],
    index: int | None,
    path: Path = (),
    *,
    leaves_out: bool,
    known: Iterable[str],
) -> list[Told]:
    found = []
    for name, value in tuple(holder.items()):
        if name in known:
            continue
        is_call = name in CALLS and index is not None
        is_known = name in TOLD_AT_ONCE or is_call or _SPELT_OUT.fullmatch(name)
        if name in PADDING or _masked_key(name) != name:
            del holder[name]
        elif isinstance(value, str) and name not in NAMES:
            found.append(Told(index, (*path, name), holder))
        elif isinstance(value, dict | list) and leaves_out and not is_known and _tells(value):
            del holder[name]
        else:
            holder[name] = _masked_field(name, value, ARGUMENTS if is_call else ())
    return found


def _heard(said: dict[str, Any], index: int, part: str) -> list[Told]:
    """Keep of a spoken answer the transcript: the sound says what it does, and nothing masks it."""
    heard = said.get("audio")
    if not isinstance(heard, dict):
        said.pop("audio", None)
        return []
    for name in heard.keys() - {"id", "expires_at", "transcript"}:
        del heard[name]
    return _told(heard, index, (part, "audio"), leaves_out=True, known=())


def _tells(value: Any, name: str = "") -> bool:
    """Whether there are texts within."""
    if isinstance(value, dict):
        return any(_tells(part, each) or _masked_key(each) != each for each, part in value.items())
    if isinstance(value, list):
        return any(map(_tells, value))
    return isinstance(value, str) and not _is_name(name, value)


def _masked_field(name: str, value: Any, passed: Iterable[str]) -> Any:
    if isinstance(value, str) and (name in passed or _is_name(name, value)):
        return value
    return None if _SPELT_OUT.fullmatch(name) else masked(value, passed=passed)


def _is_name(name: str, value: str) -> bool:
    return name in NAMES and _NAME.fullmatch(value) is not None


def _masked_key(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else mask(name)


def _join_parts(said: dict[str, Any]) -> None:
    """Make one text of the parts in which some servers send it: it is masked as a whole."""
    parts = said.get("content")
    if isinstance(parts, list):
        texts = [part.get("text") for part in objects(parts)]
        said["content"] = "".join([text for text in texts if isinstance(text, str)])
