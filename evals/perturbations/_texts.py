"""Where the text of a case is, whatever its input: a question, messages, or columns of a row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evals.perturbation import Changed, NotApplicable, Perturbed
from evals.trial import Case


def rewrite(
    case: Case, change: Callable[[str], str | None], *, columns: Sequence[str] = (), why: str
) -> Perturbed:
    """Return the case's input with its text changed.

    Args:
        case: its text is the question, the last message, or each chosen column of a row.
        change: returns the new text, or None where there is nothing to change.
        columns: of a row; without them, every text of more than one word.
        why: what to say where nothing changes.
    """
    given = case.input
    changed: Any = given
    if isinstance(given, str):
        changed = _changed(given, change)
    elif isinstance(given, Mapping):
        chosen = columns or [name for name, value in given.items() if _is_prose(value)]
        changed = {
            name: _changed(value, change) if name in chosen and isinstance(value, str) else value
            for name, value in given.items()
        }
    elif isinstance(given, list) and given and isinstance(given[-1], Mapping):
        last = given[-1]
        if isinstance(last.get("content"), str):
            changed = [*given[:-1], {**last, "content": _changed(last["content"], change)}]
    return NotApplicable(why) if changed == given else Changed(changed)


def _changed(text: str, change: Callable[[str], str | None]) -> str:
    new = change(text)
    return text if new is None else new


def _is_prose(value: Any) -> bool:
    return isinstance(value, str) and len(value.split()) > 1
