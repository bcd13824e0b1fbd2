"""`ragstone prompts`: list, show, store, put in force, and see what a model is sent."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.output import CollectionName, Json, note, print_json, print_table, say
from service.cli.session import opened

if TYPE_CHECKING:
    from service.wiring import Components

app = typer.Typer(no_args_is_help=True, help="Prompt templates: what a model is told.")
Ref = Annotated[
    str,
    typer.Argument(
        metavar="REFERENCE", help="answer or rewrite for what is in force, or a version."
    ),
]


@app.command("list")
def list_(json: Json = False) -> None:
    """List what is in force, and the versions that are stored."""
    with opened() as parts:
        rows = _in_force(parts) + _stored(parts)
    if json:
        print_json(rows)
    else:
        columns = ("reference", "task", "in_force", "digest")
        print_table(columns, [[row[name] for name in columns] for row in rows])


@app.command("show")
def show(reference: Ref) -> None:
    """Print a template; redirect it to a file to start one of your own."""
    with opened() as parts:
        typer.echo(_text(parts, reference), nl=False)


@app.command("put")
def put(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="A YAML template.")],
    name: Annotated[str, typer.Argument(help="Such as answer.")],
    use: Annotated[bool, typer.Option("--use", help="Put it in force at once.")] = False,
    json: Json = False,
) -> None:
    """Check a template and store it as the next version of its name."""
    with opened() as parts:
        stored = parts.prompts.put(file.read_text(encoding="utf-8"), name)
        if use:
            parts.prompts.use(str(stored))
        digest = parts.prompts.read(str(stored)).digest
    if json:
        print_json({"reference": str(stored), "digest": digest, "in_force": use})
    else:
        say(f"{stored}  {digest}" + ("  in force" if use else ""))


@app.command("use")
def use(
    reference: Annotated[
        str, typer.Argument(metavar="REFERENCE", help="Such as answer@v2, or answer@shipped.")
    ],
) -> None:
    """Put a version in force; running servers take it within two seconds."""
    from service.prompts import ALIAS, KIND

    name, _, version = reference.removeprefix(f"{KIND}/").partition("@")
    with opened() as parts:
        if version == "shipped":
            parts.artifacts.untag(f"{KIND}/{name}", ALIAS)
            say(f"the shipped {name} is in force")
            return
        full = f"{KIND}/{name}@{version}" if version else f"{KIND}/{name}"
        digest = parts.prompts.use(full)
        say(f"{parts.artifacts.find(full)} is in force  {digest}")


@app.command("render")
def render(
    question: Annotated[str, typer.Argument(help="What would be asked.")],
    collection: CollectionName = "default",
    reference: Annotated[
        str, typer.Option("--prompt", metavar="REFERENCE", help="A version, not what is in force.")
    ] = "answer",
    json: Json = False,
) -> None:
    """Print the messages that a model would be sent for a question; no model is asked."""
    with opened() as parts:
        messages = _messages(parts, question, collection=collection, reference=reference)
    if json:
        print_json(messages)
        return
    for message in messages:
        say(f"--- {message['role']}", style="bold")
        say(message["content"])


def _messages(
    parts: Components, question: str, *, collection: str, reference: str
) -> list[dict[str, str]]:
    import asyncio

    from retrieval.search import SearchRequest
    from service.engines import Prompt
    from service.generation import sources
    from service.generation.budget import Plan
    from service.generation.engine import messages_of
    from service.generation.templates import parse

    template = parse(_text(parts, reference), source=reference)
    request = SearchRequest(question, limit=parts.settings.retrieval.passages)
    found = parts.search(parts.collections.get(collection), request).passages
    kept = asyncio.run(parts.screening.keep(found))
    if len(kept) < len(found):
        note(f"{len(found) - len(kept)} passages seem to hold instructions and are left out")
    return messages_of(
        template,
        Prompt(question, found),
        passages=[found[at] for at in kept],
        plan=Plan(len(kept), 0, len(template.examples)),
        nonce=sources.nonce(sources.new_secret(), question, found),
    )


def _text(parts: Components, reference: str) -> str:
    """The template of a version, or of what is in force for a task."""
    from service.generation.templates import SHIPPED, shipped_text
    from service.prompts import KIND

    for task in SHIPPED:
        if reference in (task, f"{task}@shipped"):
            in_force = "shipped" if "@" in reference else parts.prompts.reference(task)
            return shipped_text(task) if in_force == "shipped" else parts.prompts.text(in_force)
    return parts.prompts.text(
        reference if reference.startswith(f"{KIND}/") else f"{KIND}/{reference}"
    )


def _in_force(parts: Components) -> list[dict[str, Any]]:
    from service.generation.templates import SHIPPED, shipped

    return [
        {
            "reference": f"{task}@shipped",
            "task": task,
            "in_force": parts.prompts.reference(task) == "shipped",
            "digest": shipped(task).digest,
        }
        for task in SHIPPED
    ]


def _stored(parts: Components) -> list[dict[str, Any]]:
    from service.prompts import ALIAS, KIND

    rows = []
    for name in parts.artifacts.names(KIND):
        for version in parts.artifacts.versions(f"{KIND}/{name.name}"):
            template = parts.prompts.read(str(version.reference))
            rows.append(
                {
                    "reference": str(version.reference),
                    "task": template.task,
                    "in_force": ALIAS in version.aliases and name.name == template.task,
                    "digest": template.digest,
                }
            )
    return rows
