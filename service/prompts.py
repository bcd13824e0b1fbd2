"""Prompts in force: the artifact that `production` points at, or the one that is shipped."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import InvalidRequest, NotFound, RagstoneError
from service.generation.templates import FILE, MAX_BYTES, SHIPPED, Task, Template, parse, shipped

if TYPE_CHECKING:
    from infra.artifacts.refs import Reference
    from infra.artifacts.store import ArtifactStore

KIND = "prompt"
ALIAS = "production"
FRESH_SECONDS = 2.0
"""How long a template is used before the alias is looked up again."""


class Prompts:
    """Templates as versioned artifacts: `prompt/answer@production` is used, or the shipped one."""

    def __init__(
        self,
        store: Callable[[], ArtifactStore],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the store, opened at its first use, and a clock in seconds."""
        self._store = store
        self._clock = clock
        self._known: dict[str, tuple[float, str, Template]] = {}

    def current(self, task: Task) -> Template:
        """Return the template in force; a change of the alias is seen within two seconds."""
        known = self._known.get(task)
        now = self._clock()
        if known is not None and now - known[0] < FRESH_SECONDS:
            return known[2]
        digest = self._pointed_at(task)
        if known is None or known[1] != digest:
            template = shipped(task) if not digest else self.read(f"{KIND}/{task}@{digest}")
        else:
            template = known[2]
        self._known[task] = (now, digest, template)
        return template

    def reference(self, task: Task) -> str:
        """Return what is in force, as a person would write it."""
        return (
            str(self._store().find(f"{KIND}/{task}@{ALIAS}"))
            if self._pointed_at(task)
            else ("shipped")
        )

    def read(self, reference: str) -> Template:
        """Return a stored template.

        Raises:
            NotFound: there is none.
            InvalidRequest: the artifact holds no prompt template.
        """
        return parse(self.text(reference), source=reference)

    def text(self, reference: str) -> str:
        """Return a stored template as it was written."""
        store = self._store()
        if not any(entry.path == FILE for entry in store.resolve(reference).entries):
            raise InvalidRequest(
                f"{reference!r} holds no {FILE!r}; `ragstone prompts put` makes one"
            )
        with store.open(reference, FILE) as stream:
            return stream.read(MAX_BYTES + 1).decode("utf-8", "replace")

    def put(self, text: str, name: str) -> Reference:
        """Check a template and store it as the next version of `prompt/NAME`.

        Raises:
            InvalidRequest: it is not a template, or not for what its name says.
        """
        template = parse(text, source="the file")
        if name in SHIPPED and template.task != name:
            raise InvalidRequest(
                f"The template is for {template.task!r}; store it under that name, or another one"
            )
        from infra.artifacts.publishing import Made

        made = Made(metadata={"task": template.task, "template": template.digest})
        with self._store().writer(f"{KIND}/{name}", made) as draft:
            Path(draft.folder, FILE).write_text(text, encoding="utf-8")
        if draft.reference is None:
            raise RagstoneError("The template was not stored; try again")
        return draft.reference

    def use(self, reference: str, *, actor: str | None = None) -> str:
        """Point `production` at a version; returns the template's digest.

        Raises:
            InvalidRequest: its template is for another task than its name says.
        """
        template = self.read(reference)
        name = self._store().find(reference).name
        if name not in SHIPPED or template.task != name:
            known = ", ".join(f"{KIND}/{task}" for task in SHIPPED)
            raise InvalidRequest(
                f"{reference!r} is a template for {template.task!r}; "
                f"only versions of {known} can be in force"
            )
        self._store().tag(reference, ALIAS, actor=actor)
        self._known.clear()
        return template.digest

    def _pointed_at(self, task: Task) -> str:
        try:
            return self._store().find(f"{KIND}/{task}@{ALIAS}").digest
        except NotFound:
            return ""
