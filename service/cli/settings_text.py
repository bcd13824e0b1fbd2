"""The settings as text: the commented file that `init` writes, and the reference page."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from infra import (
    engine_settings,
    fine_tuning_settings,
    gateway_settings,
    model_settings,
    monitoring_settings,
    retrieval_settings,
    settings,
)
from infra.settings import ENVIRONMENT_PREFIX, Settings

MODULES = (
    settings,
    gateway_settings,
    engine_settings,
    fine_tuning_settings,
    model_settings,
    monitoring_settings,
    retrieval_settings,
)


@dataclass(frozen=True, slots=True)
class Setting:
    """One key, as an operator meets it."""

    section: str
    """Empty for the keys outside every section."""
    name: str
    kind: str
    default: Any
    explanation: str
    about: str = ""
    """What its section is about, where the code says it."""

    @property
    def key(self) -> str:
        return _below(self.section, self.name)

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.key.replace(".", "__").upper()

    @property
    def toml(self) -> str:
        """The line that sets it."""
        return f"{self.name} = {'...' if self.default is None else to_toml(self.default)}"


def every_setting() -> list[Setting]:
    """Return all settings, section by section, in the order in which the code declares them."""
    explanations = _explanations()
    return list(_fields(Settings, "", explanations))


def named_settings() -> list[Setting]:
    """Return the settings of what an operator names, such as `[engines.NAME]`."""
    return list(_named(Settings, "", _explanations()))


def write_toml(chosen: Mapping[str, Any]) -> str:
    """Return a `ragstone.toml` that sets what is chosen and shows the rest, commented out."""
    lines = [
        "# Settings of Ragstone. What is commented out shows the default.",
        f"# A variable wins over this file: server.port is {ENVIRONMENT_PREFIX}SERVER__PORT.",
    ]
    section = ""
    for setting in every_setting():
        if setting.section != section:
            section = setting.section
            about = [f"# {line}" for line in setting.about.splitlines()]
            lines += ["", *about, f"[{section}]"]
        lines += [f"# {line}" for line in setting.explanation.splitlines()]
        if setting.key in chosen:
            lines.append(f"{setting.name} = {to_toml(chosen[setting.key])}")
        else:
            lines.append(f"# {setting.toml}")
    return "\n".join(lines) + "\n"


def write_reference() -> str:
    """Return the tables of the settings page, in Markdown."""
    lines: list[str] = []
    section = None
    for setting in [*every_setting(), *named_settings()]:
        if setting.section != section:
            section = setting.section
            lines += ["", f"## {f'[{section}]' if section else 'Outside every section'}", ""]
            lines += [setting.about, ""] if setting.about else []
            lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        default = _default(setting.default)
        meaning = " ".join(setting.explanation.split())
        lines.append(f"| `{setting.name}` | {setting.kind} | {default} | {meaning} |")
    return "\n".join(lines).strip() + "\n"


def to_toml(value: Any) -> str:
    """Return a value as TOML writes it."""
    import json

    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value:_}" if value >= 10_000 and value != 65_535 else str(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(to_toml(item) for item in value)}]"
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{key} = {to_toml(item)}" for key, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    return json.dumps(str(value))  # a JSON string is a TOML basic string


def _fields(
    model: Any, section: str, explanations: Mapping[tuple[str, str], str]
) -> Iterator[Setting]:
    """Yield the keys of a section, then those of the sections in it."""
    for group, inner, about in _groups(model, section, explanations):
        for name, info in inner.model_fields.items():
            if not _is_section(info):
                default = info.get_default(call_default_factory=True)
                text = explanations.get((inner.__name__, name), "")
                yield Setting(group, name, _kind(info), default, text, about)


def _named(
    model: Any, section: str, explanations: Mapping[tuple[str, str], str]
) -> Iterator[Setting]:
    """Yield the keys of what has a name in a section, of what may be absent, and of all below."""
    for group, inner, _ in _groups(model, section, explanations):
        for name, info in inner.model_fields.items():
            if (named := _named_section(info)) is not None:
                below = _below(group, f"{name}.NAME")
            elif (named := _optional_section(info)) is not None:
                below = _below(group, name)
            else:
                continue
            yield from _fields(named, below, explanations)
            yield from _named(named, below, explanations)


def _default(value: Any) -> str:
    if value is PydanticUndefined:
        return "required"
    return "none" if value is None else f"`{to_toml(value)}`"


def _groups(
    model: Any, section: str, explanations: Mapping[tuple[str, str], str], about: str = ""
) -> Iterator[tuple[str, Any, str]]:
    """Yield a section and all in it, however deep: its dotted name, its model, its explanation."""
    yield section, model, about
    for name, info in model.model_fields.items():
        if _is_section(info):
            text = explanations.get((model.__name__, name), "")
            yield from _groups(info.annotation, _below(section, name), explanations, text)


def _below(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def _named_section(info: FieldInfo) -> Any:
    """Return what a table of sections holds by name, or None."""
    inner = get_args(info.annotation)[-1:] if get_origin(info.annotation) is dict else ()
    is_section = inner and isinstance(inner[0], type) and issubclass(inner[0], BaseModel)
    return inner[0] if is_section else None


def _optional_section(info: FieldInfo) -> Any:
    """Return the section that a key holds or does not, or None if it holds something else."""
    parts = get_args(info.annotation) if _is_union(info.annotation) else ()
    sections = [each for each in parts if isinstance(each, type) and issubclass(each, BaseModel)]
    return sections[0] if sections else None


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in {Union, UnionType}


def _options(annotation: Any) -> tuple[Any, ...]:
    """Return the values that a key may have, where they are few."""
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    parts = get_args(annotation) if _is_union(annotation) else ()
    return next((get_args(each) for each in parts if get_origin(each) is Literal), ())


def _is_section(info: FieldInfo) -> bool:
    return isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel)


def _kind(info: FieldInfo) -> str:
    """Return the type in words, with its bounds."""
    source = str(getattr(info.annotation, "__name__", "") or info.annotation)
    names = {
        "str": "text",
        "bool": "`true` or `false`",
        "int": "whole number",
        "float": "number",
        "Path": "path",
        "dict": "table",
        "tuple": "list of texts",
    }
    if options := _options(info.annotation):
        return " or ".join(f"`{to_toml(option)}`" for option in options)
    if _optional_section(info) is not None:
        return "table"
    word = names.get(source.removesuffix(" | None"), "text")
    bounds = [_bound(rule) for rule in info.metadata]
    return ", ".join([word, *(bound for bound in bounds if bound)])


def _bound(rule: Any) -> str:
    for attribute, word in (("ge", "at least"), ("gt", "more than"), ("le", "at most")):
        limit = getattr(rule, attribute, None)
        if limit is not None:
            return f"{word} {to_toml(limit)}"
    return ""


def _explanations() -> dict[tuple[str, str], str]:
    """Return the docstrings below the fields, by class and field; Python does not keep them."""
    found: dict[tuple[str, str], str] = {}
    nodes = [node for module in MODULES for node in ast.parse(inspect.getsource(module)).body]
    for node in nodes:
        if not isinstance(node, ast.ClassDef):
            continue
        for field, following in zip(node.body, node.body[1:], strict=False):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and isinstance(following, ast.Expr)
                and isinstance(following.value, ast.Constant)
            ):
                found[node.name, field.target.id] = inspect.cleandoc(str(following.value.value))
    return found
