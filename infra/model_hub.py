"""Models by folder or by hub id, fetched where they are absent; never with pickled weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

from infra.errors import InvalidConfiguration
from infra.plugins import require

WEIGHTS = ".safetensors"
PICKLES = frozenset({".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth"})
"""Endings of weights that can carry code."""
DECIDING = frozenset({".json", WEIGHTS, ".bin", ".txt"})
"""Endings of the files that what a model says depends on."""
NOT_FETCHED = (
    *(f"*{each}" for each in sorted(PICKLES)),
    *("*.h5", "*.msgpack", "*.ot", "*.tflite", "onnx/*", "openvino/*"),
)
"""Files of the hub that nothing here reads; of a small model they are most of the bytes."""


def located(model: str, *, extra: str) -> Path:
    """Return the folder of a model that is one, or a hub id (`name` or `name@revision`).

    Raises:
        InvalidConfiguration: there is no such model, or its weights are pickles.
        MissingDependency: the packages for it are not installed.
    """
    if Path(model).is_dir():
        folder = Path(model).absolute()
        refuse_pickles(folder, model=model)
        return folder
    hub = require("huggingface_hub", extra=extra)
    name, _, revision = model.partition("@")
    try:
        folder = Path(
            hub.snapshot_download(
                name, revision=revision or None, ignore_patterns=list(NOT_FETCHED)
            )
        )
    except (OSError, ValueError) as error:  # the hub's own errors derive from these
        raise InvalidConfiguration(f"Cannot fetch model {model!r}: {error}") from error
    if not any(folder.rglob(f"*{WEIGHTS}")):
        raise InvalidConfiguration(_words(model, "no weights in safetensors"))
    return folder


def refuse_pickles(folder: Path, *, model: str) -> None:
    """Refuse a folder in which weights stand as a pickle alone.

    Libraries read safetensors where both are there.

    Raises:
        InvalidConfiguration: it has such weights.
    """
    for each in sorted(folder.rglob("*")):
        if each.suffix in PICKLES and not any(each.parent.glob(f"*{WEIGHTS}")):
            raise InvalidConfiguration(_words(model, f"only {str(each.relative_to(folder))!r}"))


def digest_of(folder: Path) -> str:
    """Return `sha256:...` of every file that decides what a model says, with their names."""
    hasher = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        if file.suffix in DECIDING and file.is_file():
            hasher.update(f"{file.relative_to(folder)}\n".encode())
            with file.open("rb") as content:
                hasher.update(hashlib.file_digest(content, "sha256").digest())
    return f"sha256:{hasher.hexdigest()}"


def _words(model: str, found: str) -> str:
    return (
        f"Model {model!r} has {found}; pickled weights can run code and are never read: name a "
        "revision with safetensors, or convert them"
    )
