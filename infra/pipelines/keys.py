"""The cache key of a step, of all that its outcome depends on, and what changed between two."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from infra.artifacts.manifest import Manifest, digest_line
from infra.pipelines.definition import Step
from infra.pipelines.records import Made
from infra.pipelines.sources import Sources

FORMAT = 1
"""Raised when keys of older releases mean something else: every step runs once more then."""
UNKNOWN = "?"
"""Stands for the content of an input that is still to be made."""


def parts(
    step: Step,
    inputs: Mapping[str, Made],
    *,
    sources: Sources,
    environment: Mapping[str, str],
) -> dict[str, Any]:
    """Return all that the outcome of a step depends on.

    Retries, time-outs, resources, secrets and the step's own name are not among it.
    """
    local = {
        name: _digest({inside: sources.digests[path] for inside, path in files.items()})
        for name, files in sources.local.items()
    }
    # Who is told the name of an input sees its lineage too, not its files alone.
    asked = json.dumps([step.run, step.arguments])
    return {
        "format": FORMAT,
        "run": list(step.run),
        "python": step.python,
        "with": step.arguments,
        "inputs": {
            name: made.digest if f"${{references.{name}}}" in asked else made.content
            for name, made in inputs.items()
        }
        | local,
        "outputs": {
            name: [each.artifact, each.path, each.tabular] for name, each in step.outputs.items()
        },
        "code": dict(sources.code),
        "versions": dict(sources.versions),
        "environment": {
            # Hashed: the value may be nobody's business, and only whether it changed matters.
            name: _digest(environment[name]) if name in environment else None
            for name in step.environment
        },
    }


def key(of: Mapping[str, Any]) -> str:
    """Return the hash of the parts of a step."""
    return _digest(of)


def content(manifest: Manifest) -> str:
    """Return the digest of the files of an artifact, whatever they were made from."""
    return digest_line(Manifest(manifest.kind, manifest.entries).canonical())


def changes(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    *,
    names: tuple[Mapping[str, str], Mapping[str, str]],
) -> list[str]:
    """Return in words what is different between the parts of two runs of a step.

    Args:
        before: parts of the earlier run.
        after: parts of the later one; an input that is `UNKNOWN` counts as the same.
        names: the references behind the inputs, of the earlier and of the later run.
    """
    found: list[str] = []
    if (before["run"], before["python"]) != (after["run"], after["python"]):
        found.append(f"the command is now {_what(after)}, was {_what(before)}")
    for name, old, new in _different(before["with"], after["with"]):
        found.append(f"argument {name} changed {old!r:.60} -> {new!r:.60}")
    for name, _, new in _different(before["inputs"], after["inputs"]):
        if new != UNKNOWN:
            found.append(_input(name, names[0].get(name), names[1].get(name)))
    for name, old, new in _different(before["code"], after["code"]):
        state = "was added" if old is None else "is no longer used" if new is None else "changed"
        found.append(f"code {name} {state}")
    for name, old, new in _different(before["versions"], after["versions"]):
        found.append(f"{name} changed {_short(old)} -> {_short(new)}")
    for name, _, _ in _different(before["environment"], after["environment"]):
        found.append(f"variable {name} changed")
    if before["outputs"] != after["outputs"]:
        found.append("its outputs are declared differently")
    if not found and before["format"] != after["format"]:
        found.append("this release of Ragstone computes keys in another way")
    return found


def _what(of: Mapping[str, Any]) -> str:
    return repr(of["python"] or " ".join(of["run"]))[:120]


def _input(name: str, old: str | None, new: str | None) -> str:
    if new is None:
        return f"input {name} is no longer read"
    if old is None:
        return f"input {name} is new: {new}"
    (old_name, _, old_version), (new_name, _, new_version) = old.partition("@"), new.partition("@")
    if old_name != new_name:
        return f"input {name} changed {old} -> {new}"
    if old_version == new_version:
        return f"input {new_name} changed"
    return f"input {new_name} changed {_short(old_version)} -> {_short(new_version)}"


def _short(version: str | None) -> str:
    if version is None:
        return "none"
    return version[:19] if version.startswith("sha256:") else version


def _different(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[tuple[str, Any, Any]]:
    names: Iterable[str] = dict.fromkeys([*before, *after])
    for name in names:
        if before.get(name) != after.get(name):
            yield name, before.get(name), after.get(name)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
