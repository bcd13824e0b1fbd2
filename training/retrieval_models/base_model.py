"""The model that is tuned, before it is loaded: its files, that none runs code, what it reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import InvalidRequest
from training import base_model
from training.places import Places
from training.retrieval_models.specification import Base

MODULES = "modules.json"
OWN = "sentence_transformers."
"""Modules of the library itself; classes of any other name are somebody's code."""


@dataclass(frozen=True, slots=True)
class Found:
    """A model that can be tuned."""

    name: str
    """As the specification names it."""
    folder: Path
    digest: str
    max_tokens: int
    dimension: int | None
    """Of a vector; None where the small files do not tell."""
    is_artifact: bool = False


def find(base: Base, default: str | None, places: Places, *, kind: str) -> Found:
    """Find a model on this machine; nothing is downloaded and nothing of it is run.

    Args:
        base: names it.
        default: the model in its place if it names none: a folder or a name.
        places: where named things are.
        kind: `embedder` or `reranker`.

    Raises:
        NotFound: there is no such artifact.
        InvalidRequest: it is not here, is another one, brings code along, has no safetensors, or
            is no model of the kind.
    """
    name = base.model or default
    if name is None:
        raise InvalidRequest("the collection is built with no model that can be tuned; name one")
    folder, digest = _place(name, places)
    if not (folder / "config.json").is_file():
        raise InvalidRequest(f"{name!r} is no model: it has no config.json")
    for reason in _unsafe(folder):
        raise InvalidRequest(f"{name!r} {reason}")
    if base.digest is not None and digest != base.digest:
        raise InvalidRequest(f"{name!r} is {digest}, not {base.digest}")
    config = _read(folder / "config.json")
    for reason in _of_other_kind(folder, config, kind):
        raise InvalidRequest(f"{name!r} {reason}")
    reads, dimension = _max_tokens(folder, config), config.get("hidden_size")
    return Found(name, folder, digest, reads, dimension, _is_artifact(name))


def _place(name: str, places: Places) -> tuple[Path, str]:
    """Return the folder of a model and the digest of its files."""
    if _is_artifact(name):
        if places.store is None:
            raise InvalidRequest(f"{name!r} is in the store, and none is open")
        return places.checkout(name), places.store.find(name).digest
    folder = places.folder / Path(name).expanduser()
    if not folder.is_dir():
        try:
            folder = base_model.cached(name)
        except InvalidRequest:
            raise InvalidRequest(
                f"{name!r} is no folder, no artifact and not in this machine's cache of the hub; "
                "fetch it first"
            ) from None
    return folder, base_model.digest_of(folder)


def _is_artifact(name: str) -> bool:
    return name.startswith(f"{base_model.KIND}/")


def _unsafe(folder: Path) -> Iterator[str]:
    """Return why loading a model could run somebody's code."""
    for path in sorted(folder.rglob("*config*.json")):
        if _read(path).get("auto_map"):
            yield f"needs code of its own ('auto_map' in {path.name}), which is never run"
    for entry in _listed(folder):
        kind = str(entry.get("type", ""))
        if not kind.startswith(OWN):
            yield f"has a module {kind!r}, which is code of its own; it is never run"
    if any(folder.rglob("*.py")):
        yield "brings code along, which is never run; name a model without .py files"
    if not any(folder.glob("*.safetensors")):
        yield "has no weights as safetensors, and others could run code; convert it first"


def _of_other_kind(folder: Path, config: dict[str, Any], kind: str) -> Iterator[str]:
    architectures = [str(each) for each in config.get("architectures") or ()]
    scores = any("SequenceClassification" in each for each in architectures)
    if kind == "embedder":
        if scores:
            yield "scores pairs; an embedder is tuned from a model that turns texts into vectors"
        elif not (folder / "tokenizer.json").is_file():
            yield "has no tokenizer.json"
    elif (folder / MODULES).is_file() and not scores:
        yield "turns texts into vectors; a reranker is tuned from a cross-encoder"
    elif scores and _outputs(config) != 1:
        yield f"has {_outputs(config)} outputs, a reranker has one"


def _outputs(config: dict[str, Any]) -> int:
    """Return how many scores a pair gets; files of transformers leave out that they are two."""
    return len(config.get("id2label") or ("", ""))


def _max_tokens(folder: Path, config: dict[str, Any]) -> int:
    stated = _read(folder / "sentence_bert_config.json").get("max_seq_length")
    return int(stated or config.get("max_position_embeddings") or 512)


def _listed(folder: Path) -> list[dict[str, Any]]:
    found = _parsed(folder / MODULES)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _read(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds; what is none, or not there, is an empty one."""
    found = _parsed(path)
    return found if isinstance(found, dict) else {}


def _parsed(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
