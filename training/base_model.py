"""The model that is tuned, without its weights: its folder, digest, configuration and tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from infra.artifacts.store import ArtifactStore
from infra.errors import InvalidConfiguration, InvalidRequest, NotFound
from infra.plugins import require
from training.model_shape import ModelShape, measure
from training.specification.base import Base

KIND = "model"
CONFIG = "config.json"
WEIGHTS = "*.safetensors"


@dataclass(frozen=True)
class BaseModel:
    """What is known of a model before it is loaded."""

    name: str
    """As the specification names it."""
    folder: Path
    """With its configuration and tokenizer, and with its weights unless it only describes it."""
    digest: str | None
    """Of all its files; `None` where only a description of it is here."""

    @cached_property
    def config(self) -> Any:
        """Its configuration, as transformers reads it."""
        transformers = require("transformers", extra="finetune")
        return transformers.AutoConfig.from_pretrained(self.folder, local_files_only=True)

    @cached_property
    def tokenizer(self) -> Any:
        """Its tokenizer, a fast one."""
        transformers = require("transformers", extra="finetune")
        return transformers.AutoTokenizer.from_pretrained(self.folder, local_files_only=True)

    @cached_property
    def shape(self) -> ModelShape:
        """Its matrices and their sizes."""
        return measure(self.config)

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Tokens at which generation stops: the tokenizer's, and those the model's files name."""
        named: list[Any] = [self.tokenizer.eos_token_id, getattr(self.config, "eos_token_id", None)]
        generation = self.folder / "generation_config.json"
        if generation.is_file():
            named.append(json.loads(generation.read_text(encoding="utf-8")).get("eos_token_id"))
        flat = [each for one in named for each in (one if isinstance(one, list) else [one])]
        return frozenset(each for each in flat if each is not None)

    def reference(self, beside: Path) -> str:
        """Return what an adapter calls it: its folder if that was named, else its name.

        Args:
            beside: the folder that paths were taken from.
        """
        is_folder = self.digest is not None and (beside / self.name).expanduser().is_dir()
        return str(self.folder.resolve()) if is_folder else self.name

    @property
    def has_weights(self) -> bool:
        return any(self.folder.glob(WEIGHTS))


def find_base(
    base: Base, *, folder: Path, store: ArtifactStore | None, checkout: Callable[[str], Path]
) -> BaseModel:
    """Find a model on this machine; nothing is downloaded.

    Args:
        base: names it.
        folder: paths in the specification are taken from here.
        store: where artifacts are, if one is open.
        checkout: lays an artifact out and returns its folder.

    Raises:
        NotFound: there is no such artifact or description.
        InvalidRequest: it is not here, or what is here is no model or another one.
        InvalidConfiguration: it is an artifact, and there is no store.
    """
    found = (
        _described(base, folder) if base.described_by else _present(base, folder, store, checkout)
    )
    for need in ("config", "tokenizer", "shape"):
        try:
            getattr(found, need)
        except (OSError, ValueError, KeyError, json.JSONDecodeError) as error:
            first = str(error).strip().partition("\n")[0]
            raise InvalidRequest(
                f"{base.model!r} has no {need} that can be read: {first}"
            ) from None
    if not getattr(found.tokenizer, "is_fast", False):
        raise InvalidRequest(f"{base.model!r} has no fast tokenizer (tokenizer.json)")
    if base.digest is not None and found.digest not in {None, base.digest}:
        raise InvalidRequest(f"{base.model!r} is {found.digest}, not {base.digest}")
    return found


def _described(base: Base, folder: Path) -> BaseModel:
    place = folder / Path(str(base.described_by)).expanduser()
    if not (place / CONFIG).is_file():
        raise NotFound("folder with a config.json", str(base.described_by))
    return BaseModel(base.model, place, base.digest)


def _present(
    base: Base, folder: Path, store: ArtifactStore | None, checkout: Callable[[str], Path]
) -> BaseModel:
    if base.model.startswith(f"{KIND}/"):
        if store is None:
            raise InvalidConfiguration(f"{base.model!r} is in the store, and none is open")
        return BaseModel(base.model, checkout(base.model), store.find(base.model).digest)
    place = folder / Path(base.model).expanduser()
    if not place.is_dir():
        place = cached(base.model)
    if not (place / CONFIG).is_file():
        raise InvalidRequest(f"{base.model!r} is no model: it has no {CONFIG}")
    return BaseModel(base.model, place, digest_of(place))


def cached(model: str) -> Path:
    """Return where the hub's client keeps a model on this machine."""
    hub = require("huggingface_hub", extra="finetune")
    name, _, revision = model.partition("@")
    try:
        return Path(hub.snapshot_download(name, revision=revision or None, local_files_only=True))
    except (hub.errors.LocalEntryNotFoundError, hub.errors.HFValidationError, ValueError):
        raise InvalidRequest(
            f"{model!r} is no folder, no artifact and not in this machine's cache of the hub; "
            "fetch it, with a token if it is gated, or describe it: base.described_by"
        ) from None


def digest_of(folder: Path) -> str:
    """Return a digest over the names and bytes of a model's files, hidden ones left out."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith("."):
            whole.update(f"{name}\0{_file_digest(path)}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def _file_digest(path: Path) -> str:
    # The hub's client names large files by their SHA-256, so that they need not be read.
    target = path.resolve().name if path.is_symlink() else ""
    if len(target) == 64 and set(target) <= set("0123456789abcdef"):
        return target
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
