"""Reference windows as artifacts: pinned, immutable, found again by name and version."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from infra import classical
from infra.artifacts.publishing import Made
from infra.artifacts.refs import Reference
from infra.artifacts.store import ArtifactStore
from infra.errors import InvalidRequest
from infra.plugins import require
from monitoring.canary_calls import MISSES
from monitoring.columns import EXTRA, Kind
from monitoring.prediction_pairs import COPIES
from monitoring.windows import Window

if TYPE_CHECKING:
    from monitoring.interactions import Query

KIND = "window"
FILE = "window.parquet"
MODEL_KIND = classical.KIND
MODEL_FILE = "reference.parquet"
"""In the artifact of a classical model."""
_ROW_GROUP = 65_536


def pin(
    store: ArtifactStore, name: str, window: Window, *, parents: Sequence[tuple[str, str]] = ()
) -> Reference:
    """Store a window as the next version of `window/NAME`.

    Raises:
        InvalidRequest: the window has no row; nothing can be compared with it.
    """
    if not window.rows:
        raise InvalidRequest(f"The window {name!r} has no row; a reference needs some")
    pa, parquet = (require(module, extra=EXTRA) for module in ("pyarrow", "pyarrow.parquet"))
    columns = [_to_arrow(window.read(column), pa) for column in window.names]
    table = pa.table(dict(zip(window.names, columns, strict=True)))
    metadata = {
        "rows": window.rows,
        "kinds": dict(window.kinds),
        "start": window.start.isoformat() if window.start else None,
        "end": window.end.isoformat() if window.end else None,
    }
    made = Made(metadata=metadata, parents=tuple(parents))
    with store.writer(full_name(name), made) as draft:
        parquet.write_table(table, draft.folder / FILE, row_group_size=_ROW_GROUP)
    return cast("Reference", draft.reference)


def open_reference(store: ArtifactStore, reference: str, folder: Path) -> Window:
    """Lay a pinned window out in an empty folder, and return it; columns are read when used.

    A classical model's own reference, `model/NAME@v3`, is one too.

    Raises:
        NotFound: there is no such window; near names are suggested.
        InvalidRequest: it is no window, or a model without the rows that it was measured on.
    """
    found = store.find(full_name(reference))
    if found.kind == MODEL_KIND:
        return _of_model(store.checkout(str(found), folder))
    kinds = cast("dict[str, Kind]", store.resolve(str(found)).metadata.get("kinds", {}))
    placed = store.checkout(str(found), folder)
    if not (placed / FILE).is_file():
        raise InvalidRequest(
            f"{reference!r} is neither a window nor a model; `ragstone interactions export "
            "--artifact NAME` makes windows"
        )
    return replace(Window.of_parquet(placed / FILE), kinds=kinds)


def _of_model(folder: Path) -> Window:
    """Return the rows that a model was measured on, by the names that interactions give them."""
    if not (folder / MODEL_FILE).is_file():
        raise InvalidRequest(
            "The model says nothing of the rows that it was measured on; `ragstone models train` "
            "keeps them, or pin a window of its predictions"
        )
    names = {f"feature.{each.name}": each.name for each in classical.read(folder).inputs}
    names["prediction"] = "prediction"
    whole = Window.of_parquet(folder / MODEL_FILE)

    def read(name: str) -> Any:
        values = whole.read(names[name])
        # As the text that interactions have of truth values.
        return (
            [None if value is None else str(value) for value in values.to_pylist()]
            if str(values.type) == "bool"
            else values
        )

    return replace(whole, names=tuple(names), read=read)


def alike(reference: Window, query: Query) -> Window:
    """Return the rows of a reference that a query finds among interactions.

    What a column says of none of its rows, or what no column says, narrows nothing: a canary may be
    held against what was live.
    """
    compute = require("pyarrow.compute", extra=EXTRA)
    for name in ("kind", "model", "tag", "tenant"):
        if (value := getattr(query, name)) is not None and name in reference.names:
            reference = _where(reference, compute.equal, name, value)
    if not query.copies and "id" in reference.names:
        for pattern in (COPIES, MISSES):
            reference = _where(reference, _lacks_end, "id", pattern.removeprefix("%"))
    return reference


def _where(reference: Window, holds: Callable[[Any, str], Any], name: str, value: str) -> Window:
    values = reference.read(name)
    if str(values.type) not in {"string", "large_string"}:
        return reference
    rows = np.asarray(holds(values, value).fill_null(False))
    return reference.take(rows) if rows.any() and not rows.all() else reference


def _lacks_end(values: Any, end: str) -> Any:
    compute = require("pyarrow.compute", extra=EXTRA)
    return compute.invert(compute.ends_with(values, pattern=end))


def full_name(name: str) -> str:
    """Return the artifact's name: a window by default."""
    return name if "/" in name else f"{KIND}/{name}"


def _to_arrow(values: Any, pa: Any) -> Any:
    if getattr(values, "ndim", 1) != 2:
        return values if hasattr(values, "type") else pa.array(values, from_pandas=True)
    flat = pa.array(values.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
