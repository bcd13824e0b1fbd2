"""Refuses, in artifacts that are loaded as models, files whose loading can run code."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable

from infra.artifacts.tree import SourceFile
from infra.errors import InvalidRequest

MODEL_KINDS = frozenset({"model", "adapter", "classical"})
"""Kinds whose files are handed to a model loader."""

_ENDINGS = (".pkl", ".pickle", ".joblib", ".dill", ".cloudpickle", ".pt", ".pth", ".ckpt", ".pyc")
_NUMPY = b"\x93NUMPY"
_HEAD_BYTES = 512


def refuse_executable(kind: str, files: Iterable[SourceFile]) -> None:
    """Look into every file of a model.

    Raises:
        InvalidRequest: one is a pickle, by its name or by its bytes.
    """
    if kind not in MODEL_KINDS:
        return
    for file in files:
        if reason := _reason(file):
            raise InvalidRequest(
                f"{file.path!r} {reason}, and loading it can run code; "
                "save the model as safetensors, ONNX or skops"
            )


def _reason(file: SourceFile) -> str | None:
    if file.path.lower().endswith(_ENDINGS):
        return "is a pickle by its name"
    with open(file.location, "rb") as stream:
        head = stream.read(_HEAD_BYTES)
        stream.seek(max(0, file.size - 1))
        last = stream.read(1)
    # Protocols 2 to 5 begin with PROTO and their number, and every pickle ends with STOP.
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05" and last == b".":
        return "is a pickle by its bytes"
    if head.startswith(_NUMPY) and b"|O'" in head.partition(b"\n")[0]:
        return "is an array of Python objects"
    return _zip_reason(file.location) if head.startswith(b"PK") else None


def _zip_reason(location: str | os.PathLike[str]) -> str | None:
    try:
        with zipfile.ZipFile(location) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return None
    pickled = [name for name in names if name.lower().endswith(_ENDINGS)]
    return f"holds the pickle {pickled[0]!r}" if pickled else None
