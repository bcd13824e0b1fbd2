"""Reads and writes YAML as JSON's values and dates: bounded, without aliases or repeated keys."""

from __future__ import annotations

import re
from typing import Any

import yaml

from infra.errors import InvalidRequest, TooLarge

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 32

_BREAKS = re.compile("[\x85\u2028\u2029\ufeff]")
# Fewer words have a meaning of their own than in YAML 1.1: a country NO, a code 010 and a time
# 12:30 stay the text that they look like.
_PLAIN = {
    "bool": (r"true|True|false|False", "tTfF"),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+",
        "-+.0123456789",
    ),
    "null": (r"~|null|Null|", ["~", "n", "N", ""]),
    "timestamp": (
        r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
        r"(?:[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?(?:Z|[-+][0-9]{2}:[0-9]{2})?)?",
        "0123456789",
    ),
}


def parse(text: str, *, source: str = "the text") -> Any:
    """Return what a YAML document says, in dicts, lists, text, numbers, dates and booleans.

    Raises:
        InvalidRequest: it is not YAML, has an alias, a tag of a program, or a key twice.
        TooLarge: it is longer than `MAX_CHARACTERS` or deeper than `MAX_DEPTH`.
    """
    if len(text) > MAX_CHARACTERS:
        raise TooLarge(
            f"{source} has {len(text)} characters; at most {MAX_CHARACTERS} are read as YAML"
        )
    try:
        _refuse_traps(text, source)
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise InvalidRequest(f"{source} is not YAML that can be read: {_words(error)}") from None
    except ValueError as error:  # a date such as 2024-13-45, a number of 5,000 digits
        raise InvalidRequest(f"{source} has a value that cannot be: {error}") from None


def write(value: Any) -> str:
    """Return a value as YAML that `parse` reads back as it was."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100))


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    problem = f"the key {key.value!r} stands twice"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = {}

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True

    def represent_text(self, data: str) -> yaml.ScalarNode:
        # Read back as line breaks unless they are escaped.
        style = '"' if _BREAKS.search(data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)
for _name, (_pattern, _first) in _PLAIN.items():
    for _kind in (_Loader, _Dumper):
        _kind.add_implicit_resolver(
            f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z"), list(_first)
        )


def _refuse_traps(text: str, source: str) -> None:
    """Look at the text's events, which are flat, before anything is built of them."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise InvalidRequest(
                f"{source} has the alias '*{event.anchor}'{_place(event.start_mark)}; "
                "write the value out"
            )
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise TooLarge(
                f"{source} is nested deeper than {MAX_DEPTH} levels{_place(event.start_mark)}"
            )


def _words(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "malformed"
    return f"{problem}{_place(getattr(error, 'problem_mark', None))}"


def _place(mark: Any) -> str:
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
