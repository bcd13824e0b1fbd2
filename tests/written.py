"""Writes what the documentation says of the code: its folders, modules, settings and commands."""

from __future__ import annotations

import ast
import json
import re
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FOLDERS = ("service", "retrieval", "training", "evals", "monitoring", "infra", "benchmarks")
TREE = re.compile(r"(?<=<!-- tree -->\n```text\n).*?(?=```\n<!-- /tree -->)", re.DOTALL)
COLUMN = 34

SETTINGS = """# Reference: settings

Settings are read from `ragstone.toml` in the working folder, or from the file that the variable
`RAGSTONE_CONFIG` names, and then from the environment, which wins. `ragstone init` writes a file
with all of them, commented.

The variable of a key is `RAGSTONE_` and the key in capitals, with two underscores between section
and name: `server.port` is `RAGSTONE_SERVER__PORT`. Lists and tables are JSON in variables.

An unknown key is refused, in the file and in the environment, and the message suggests the nearest
known one. A database URL with a placeholder for a password, such as `changeme`, is refused.

`ragstone doctor` says whether the settings in force are sound.

"""

SERIES = """# Reference: series

What `GET /metrics` exports. [How to monitor](../how-to/monitor.md) says what to make of it. `route`
is the template, such as `/v1/files/{file_id}`, never the path that was asked for, and `other`
stands for all labels past the first of them. A histogram `x` is `x_bucket`, `x_sum` and `x_count`.

| series | type | labels | says |
|---|---|---|---|
"""

COMMANDS = """# Reference: commands

The help of every command, as the program prints it. Exit codes are in
[Reference: errors](errors.md).

"""


MODULES = """# Modules

What is in which file. Each line is the first line of that module's docstring.

```text
"""

FINE_TUNING = """# Reference: fine-tuning

A specification is a YAML file. `ragstone train plan` checks it, and everything that it names,
before a device is used; [How to fine-tune](../how-to/fine-tune.md) says how to go on. An unknown
key is refused. The JSON Schema is in [fine-tuning.schema.json](fine-tuning.schema.json), and
`ragstone train schema` prints it.

"""

SEARCH_TUNING = """# Reference: tuning of search

Specifications are YAML files, of an embedder for `ragstone train embedder` and of a reranker for
`ragstone train reranker`; [How to tune an embedder or a reranker](../how-to/tune-embedders.md) says
how. An unknown key is refused. The JSON Schemas are in
[embedder-tuning.schema.json](embedder-tuning.schema.json) and
[reranker-tuning.schema.json](reranker-tuning.schema.json), and `ragstone train schema --of KIND`
prints them.

"""


CLASSICAL = """# Reference: classical models

Specifications are YAML files, of a model for `ragstone models train` and of a retraining for
`ragstone models retrain`; [How to train classical models](../how-to/train-classical-models.md) says
how. An unknown key is refused. The JSON Schemas are in
[classical-models.schema.json](classical-models.schema.json) and
[retraining.schema.json](retraining.schema.json), and `ragstone models schema` prints them.

"""


def modules() -> list[Path]:
    """Return the product's modules, folder by folder, a package before what it holds."""
    found = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    return sorted(
        (path.relative_to(ROOT) for path in found if "versions" not in path.parts),
        key=lambda path: (
            FOLDERS.index(path.parts[0]),
            [(part != "__init__.py", part) for part in path.parts],
        ),
    )


def first_line(path: Path) -> str:
    """Return the first line of a module's docstring; empty if it has none."""
    docstring = ast.get_docstring(ast.parse((ROOT / path).read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n")[0]


def folders() -> str:
    """Return a line per folder, with the first line of its package's docstring."""
    packages = (path for path in modules() if path.name == "__init__.py")
    return "".join(f"{_folder(path)}\n" for path in packages)


def tree() -> str:
    """Return `MODULES.md`: a line per module, under its folder's."""
    lines = (
        _folder(path) if path.name == "__init__.py" else _entry(path, path.name)
        for path in modules()
    )
    return MODULES + "".join(f"{line}\n" for line in lines) + "```\n"


def _folder(package: Path) -> str:
    return _entry(package, f"{package.parent.name}/", indent=len(package.parts) - 2)


def _entry(path: Path, name: str, *, indent: int | None = None) -> str:
    depth = len(path.parts) - 1 if indent is None else indent
    return f"{'  ' * depth + name:<{COLUMN}} {first_line(path)}".rstrip()


def readme() -> str:
    """Return README.md with the folders as they are now."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return TREE.sub(lambda _: folders(), text)


def settings() -> str:
    """Return `docs/reference/settings.md`."""
    from service.cli.settings_text import write_reference

    return SETTINGS + write_reference()


def commands() -> str:
    """Return `docs/reference/cli.md`."""
    from typer.main import get_command

    from service.cli.entry import app

    pages = [COMMANDS]
    command = get_command(app)
    for path in _paths(command):
        with redirect_stdout(StringIO()) as said:
            command.main(
                [*path, "--help"],
                prog_name="ragstone",
                standalone_mode=False,
                terminal_width=80,
            )
        title = " ".join(["ragstone", *path])
        pages.append(f"## {title}\n\n```text\n{said.getvalue().strip()}\n```\n\n")
    return "".join(pages).strip() + "\n"


def series() -> str:
    """Return `docs/reference/series.md`."""
    from monitoring.series import exported

    rows = [
        f"| `{each.name}` | {each.kind} | {', '.join(each.labels)} | {each.text} |"
        for each in exported()
    ]
    return SERIES + "\n".join(rows) + "\n"


def _paths(command: object, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    below = getattr(command, "commands", {})
    return [path, *(deeper for name in below for deeper in _paths(below[name], (*path, name)))]


def fine_tuning() -> str:
    """Return `docs/reference/fine-tuning.md`."""
    from training.preflight import __name__ as folder
    from training.spec import schema

    whole = schema()
    parts = whole["$defs"]
    pages = [FINE_TUNING, _keys("", whole, parts)]
    for section in ("base", "data", "method", "schedule", "parallelism", "runtime"):
        pages += _sections(section, whole["properties"][section], parts)
    for section in ("evaluate", "register", "compress", "serve", "sweep"):
        pages += _sections(section, whole["properties"][section], parts)
    pages.append("## What is checked\n\n| check | what it looks for |\n|---|---|\n")
    for path in sorted((ROOT / folder.replace(".", "/")).glob("[a-z]*.py")):
        pages.append(f"| `{path.stem}` | {first_line(path.relative_to(ROOT))} |\n")
    return "".join(pages)


def _sections(name: str, value: dict[str, Any], parts: dict[str, Any]) -> list[str]:
    """Return the tables of a section and of those below it."""
    pages = []
    for reference in _references(value):
        part = parts[reference]
        kind = part["properties"].get("type", {}).get("const")
        title = f"{name} ({kind})" if kind else name
        meaning = part.get("description", "").partition("\n")[0]
        pages.append(f"## `{title}`\n\n{meaning}\n\n{_keys(name, part, parts)}")
        for key, below in part["properties"].items():
            pages += _sections(f"{name}.{key}", below, parts)
    return pages


def _keys(name: str, part: dict[str, Any], parts: dict[str, Any]) -> str:
    rows = ["| key | default | meaning |\n|---|---|---|\n"]
    for key, value in part["properties"].items():
        below = [each for each in _references(value) if "properties" in parts[each]]
        if "const" in value and key == "type":
            default = f"`{value['const']}`"
        elif key in part.get("required", ()):
            default = "needed"
        else:
            default = "" if below else f"`{json.dumps(value.get('default'))}`"
        meaning = value.get("description", "").replace("\n", " ").replace("|", "\\|")
        if not meaning and below:
            meaning = parts[below[0]].get("description", "").partition("\n")[0]
        if not meaning and "enum" in value:
            meaning = ", ".join(f"`{each}`" for each in value["enum"])
        rows.append(f"| `{key}` | {default} | {meaning} |\n")
    return "".join(rows) + "\n"


def _references(value: dict[str, Any]) -> list[str]:
    """Return the names of the sections that a value of the schema may be."""
    found = [str(value["$ref"]).rpartition("/")[2]] if "$ref" in value else []
    below = [*value.get("anyOf", ()), *value.get("oneOf", ())]
    below += [value[key] for key in ("items", "additionalProperties") if key in value]
    for each in below:
        found += _references(each) if isinstance(each, dict) else []
    return found


def fine_tuning_schema() -> str:
    """Return `docs/reference/fine-tuning.schema.json`."""
    from training.spec import schema

    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def search_tuning() -> str:
    """Return `docs/reference/search-tuning.md`."""
    from training.retrieval_models.specification import KINDS, schema

    pages = [SEARCH_TUNING]
    common = set(schema("embedder")["properties"]) & set(schema("reranker")["properties"])
    sections = [name for name in schema("embedder")["properties"] if name in common - {"loss"}]
    for kind in KINDS:
        whole = schema(kind)
        pages.append(f"# The {kind}\n\n{_keys('', whole, whole['$defs'])}")
    pages.append("# Sections of both\n\n")
    for name in sections:
        pages += _sections(name, whole["properties"][name], whole["$defs"])
    return "".join(pages)


def embedder_schema() -> str:
    """Return `docs/reference/embedder-tuning.schema.json`."""
    from training.retrieval_models.specification import schema

    return json.dumps(schema("embedder"), indent=2, ensure_ascii=False) + "\n"


def reranker_schema() -> str:
    """Return `docs/reference/reranker-tuning.schema.json`."""
    from training.retrieval_models.specification import schema

    return json.dumps(schema("reranker"), indent=2, ensure_ascii=False) + "\n"


def classical() -> str:
    """Return `docs/reference/classical-models.md`."""
    from training.classical import schema
    from training.retrain import schema as retraining
    from training.tabular.names import CLASSIFIERS, METRICS, REGRESSORS

    pages = [CLASSICAL]
    for title, whole in (("A model", schema()), ("A retraining", retraining())):
        parts = whole["$defs"]
        pages.append(f"# {title}\n\n{_keys('', whole, parts)}")
        for section in whole["properties"]:
            pages += _sections(section, whole["properties"][section], parts)
    pages.append("## What can be named\n\n| what | names |\n|---|---|\n")
    for what, names in (
        ("estimators of classification", CLASSIFIERS),
        ("estimators of regression", REGRESSORS),
        ("metrics", METRICS),
    ):
        pages.append(f"| {what} | {', '.join(f'`{name}`' for name in names)} |\n")
    return "".join(pages)


def classical_schema() -> str:
    """Return `docs/reference/classical-models.schema.json`."""
    from training.classical import schema

    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def retraining_schema() -> str:
    """Return `docs/reference/retraining.schema.json`."""
    from training.retrain import schema

    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def adapter_retraining_schema() -> str:
    """Return `docs/reference/adapter-retraining.schema.json`."""
    from training.continual import schema

    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


PAGES = {
    "docs/reference/classical-models.md": classical,
    "docs/reference/classical-models.schema.json": classical_schema,
    "docs/reference/retraining.schema.json": retraining_schema,
    "docs/reference/fine-tuning.md": fine_tuning,
    "docs/reference/fine-tuning.schema.json": fine_tuning_schema,
    "docs/reference/adapter-retraining.schema.json": adapter_retraining_schema,
    "docs/reference/search-tuning.md": search_tuning,
    "docs/reference/embedder-tuning.schema.json": embedder_schema,
    "docs/reference/reranker-tuning.schema.json": reranker_schema,
    "README.md": readme,
    "MODULES.md": tree,
    "docs/reference/settings.md": settings,
    "docs/reference/cli.md": commands,
    "docs/reference/series.md": series,
}


def main() -> None:
    sys.path.insert(0, str(ROOT))  # what is installed may be another checkout
    for name, write in PAGES.items():
        (ROOT / name).write_text(write(), encoding="utf-8")
        sys.stderr.write(f"wrote {name}\n")


if __name__ == "__main__":
    main()
