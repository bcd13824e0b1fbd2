"""A version of a model, from the artifact store into memory: checked, opened, tried once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from infra import classical
from infra.artifacts.manifest import Manifest
from infra.artifacts.refs import Reference
from infra.artifacts.store import ArtifactStore
from infra.classical import Column, ModelFile
from infra.classical_rows import MISSING_TEXT, is_text
from infra.errors import EngineFailed, InvalidRequest, NotFound, StorageFailed
from infra.model_settings import Models
from service.prediction.columns import Reader
from service.prediction.joining import Joins
from service.prediction.tensors import DATATYPES
from service.prediction.views import Views
from service.runtimes import Limits, Runtime, open_runtime, skops

PIPELINE = "model.skops"
"""Beside every model, for explanations."""
_TRIED_ROWS = 2
Key: TypeAlias = tuple[str, str]
"""Name and digest: the same content may have several names."""


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """A version of a model that answers."""

    reference: Reference
    model: ModelFile
    runtime: Runtime
    reader: Reader
    kinds: Mapping[str, classical.Kind]
    """By column."""
    labels: NDArray[Any] | None
    """The classes, in the type in which they are told; None of a regression."""
    class_names: Sequence[str]
    """The same as texts; none of a regression."""
    label_type: str
    """The protocol's word for the labels' type."""
    number_type: str
    """Of probabilities, or of a regression's values."""

    @property
    def name(self) -> str:
        return self.reference.name

    @property
    def key(self) -> Key:
        return (self.reference.name, self.reference.digest)

    @property
    def served(self) -> str:
        """Name and version, as interactions have it."""
        return str(self.reference).partition("/")[2]

    @property
    def version(self) -> str:
        """The number, or the digest of what has none any more."""
        return str(self.reference.version or self.reference.digest)

    @property
    def joined_digests(self) -> list[str]:
        """What its views are read from."""
        joins = self.reader.joins
        return [each.version.reference.digest for each in joins.views] if joins else []

    def reads_like(self, other: Loaded) -> bool:
        """Whether rows that were read for another version are what this one would read."""
        mine, theirs = self.model, other.model
        return (mine.inputs, mine.views, mine.time) == (theirs.inputs, theirs.views, theirs.time)

    def inputs(self) -> list[tuple[str, str]]:
        """Name and datatype of each input tensor; what comes from views is none."""
        return [(each.name, DATATYPES[each.type]) for each in self.reader.asked]


def read(
    store: ArtifactStore,
    reference: str,
    options: Models,
    *,
    views: Views | None = None,
    pins: Mapping[str, str] | None = None,
) -> Loaded:
    """Load a version and try it on made-up rows; nothing is laid out on the disk.

    Args:
        store: holds it.
        reference: of it.
        options: bounds.
        views: in memory already; by default its own are read.
        pins: of views, the versions that are meant instead of the newest.

    Raises:
        NotFound: there is no such version, it is no classical model, or a view is gone.
        InvalidRequest: its file is not what it says to be, it does not run, or a view of it is not
            what it was trained with.
    """
    with store.reading(reference) as found:
        manifest = store.resolve(found.pinned)
        model = classical.parse(json_of(_bytes(store, found.pinned, manifest, classical.FILE)))
        data = _bytes(store, found.pinned, manifest, model.file, most=options.max_model_bytes)
    runtime = open_runtime(model, data, _limits(options))
    answer = _tried(model, runtime)
    labels, label_type = _labels(model)
    joins = None
    if model.views:
        if views is None:
            views = Views(lambda: store, options.view_bytes)
        joins = Joins(model, views.open(model, pins))
    reader = Reader(model, options.max_rows, options.unknown == "refuse", joins)
    return Loaded(
        reference=found,
        model=model,
        runtime=runtime,
        reader=reader,
        kinds={each.name: each.type for each in reader.asked},
        labels=labels,
        class_names=tuple(classical.text_of(each) for each in model.classes or ()),
        label_type=label_type,
        number_type="FP32" if answer.dtype == np.float32 else "FP64",
    )


def described(store: ArtifactStore, reference: str) -> ModelFile:
    """Return what a version says of itself. Raises as `read` does."""
    with store.reading(reference) as found:
        manifest = store.resolve(found.pinned)
        return classical.parse(json_of(_bytes(store, found.pinned, manifest, classical.FILE)))


def pipeline(store: ArtifactStore, loaded: Loaded, options: Models) -> Any:
    """Return the fitted pipeline that lies beside a model, whatever format answers.

    Raises:
        NotFound: there is none.
        InvalidRequest: it holds types that nobody reviewed.
    """
    pinned = loaded.reference.pinned
    data = _bytes(store, pinned, store.resolve(pinned), PIPELINE, most=options.max_model_bytes)
    return skops.load(loaded.model, data, _limits(options))


def _limits(options: Models) -> Limits:
    return Limits(options.max_model_bytes, options.trusted_types)


def _bytes(
    store: ArtifactStore,
    pinned: str,
    manifest: Manifest,
    path: str,
    *,
    most: int = classical.MAX_BYTES,
) -> bytes:
    entry = manifest.entry(path)
    if entry is None:
        if path == classical.FILE:
            raise NotFound("classical model", pinned.partition("@")[0])
        raise NotFound("file", path, among=(each.path for each in manifest.entries))
    if entry.size > most:
        raise InvalidRequest(f"{path!r} has {entry.size:,} bytes, {most:,} are allowed")
    with store.open(pinned, path) as stream:
        data = stream.read(entry.size + 1)
    if f"sha256:{hashlib.sha256(data).hexdigest()}" != entry.digest:
        raise StorageFailed(f"{path!r} of {pinned!r} does not match its digest; verify the store")
    return data


def json_of(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"{classical.FILE!r} is not JSON: {error}") from None


def _tried(model: ModelFile, runtime: Runtime) -> NDArray[Any]:
    """Run rows of plausible values: a model that cannot answer them is not put live."""
    try:
        answer = runtime.run({each.name: _plausible(each) for each in model.inputs})
    except EngineFailed as error:
        raise InvalidRequest(f"The model does not run: {error.message}") from error
    shape = (_TRIED_ROWS, len(model.classes)) if model.classes else (_TRIED_ROWS,)
    if answer.shape != shape or answer.dtype.kind != "f":
        raise InvalidRequest(
            f"The model answers {answer.dtype} of shape {answer.shape!r}, not numbers of {shape!r}"
        )
    return answer


def _plausible(column: Column) -> NDArray[Any]:
    if is_text(column):
        values = np.empty(_TRIED_ROWS, dtype=np.object_)
        values[:] = classical.text_of(column.categories[0]) if column.categories else MISSING_TEXT
        return values
    value = next((each for each in (column.low, column.high) if each is not None), 0.0)
    return np.full(_TRIED_ROWS, value, dtype=np.float64)


def _labels(model: ModelFile) -> tuple[NDArray[Any] | None, str]:
    """Return the classes as they are told: of one type as they are, else as texts."""
    if model.classes is None:
        return None, ""
    kinds = {type(each) for each in model.classes}
    for kind, word, array in ((bool, "BOOL", np.bool_), (int, "INT64", np.int64)):
        if kinds == {kind}:
            return np.array(model.classes, dtype=array), word
    if kinds <= {int, float}:
        return np.array(model.classes, dtype=np.float64), "FP64"
    labels = np.empty(len(model.classes), dtype=np.object_)
    labels[:] = [classical.text_of(each) for each in model.classes]
    return labels, "BYTES"
