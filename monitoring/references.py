"""Reference windows as artifacts: pinned, immutable, found again by name and version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from infra import classical
from infra.artifacts.publishing import Made
from infra.artifacts.refs import Reference
from infra.artifacts.store import ArtifactStore
from infra.errors import InvalidRequest
from infra.plugins import require
from monitoring.columns import EXTRA, Kind
from monitoring.windows import Window

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
    """
    found = store.find(full_name(reference))
    if found.kind == MODEL_KIND:
        return _of_model(store.checkout(str(found), folder))
    kinds = cast("dict[str, Kind]", store.resolve(str(found)).metadata.get("kinds", {}))
    placed = store.checkout(str(found), folder)
    return replace(Window.of_parquet(placed / FILE), kinds=kinds)


def _of_model(folder: Path) -> Window:
    """Return the rows that a model was measured on, by the names that interactions give them."""
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


def full_name(name: str) -> str:
    """Return the artifact's name: a window by default."""
    return name if "/" in name else f"{KIND}/{name}"


def _to_arrow(values: Any, pa: Any) -> Any:
    if getattr(values, "ndim", 1) != 2:
        return values if hasattr(values, "type") else pa.array(values, from_pandas=True)
    flat = pa.array(values.reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])
