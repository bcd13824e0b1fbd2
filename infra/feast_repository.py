"""A Feast repository: its feature views and services, and the rows of its offline store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra import feast_registry
from infra.errors import InvalidRequest, NotFound, first_line
from infra.expectations import yaml_text
from infra.feast_registry import EXTRA
from infra.plugins import require

if TYPE_CHECKING:
    import polars as pl

SETTINGS = "feature_store.yaml"
FILE_STORES = ("file", "dask", "duckdb", "polars")
"""Offline stores of Feast that read files."""


@dataclass(frozen=True, slots=True)
class FeastView:
    """A feature view of a repository, or what a service takes of it."""

    project: str
    name: str
    called: str
    """As full names of features have it: the name, or a service's own word for it."""
    key: str
    row_key: str
    """What the rows call the key."""
    time: str
    created: str | None
    """Which of several rows of one key and time holds: the last by this column."""
    ttl_seconds: float | None
    features: tuple[str, ...]
    """All that it has."""
    taken: tuple[str, ...]
    """Those that are asked for."""
    source: Path
    renamed: Mapping[str, str]
    """By column of the file, what Feast calls it."""


@dataclass(frozen=True, slots=True)
class Repository:
    """What `feast apply` wrote down."""

    project: str
    _folder: Path
    _registry: Any

    def views(self, names: Sequence[str]) -> list[FeastView]:
        """Return feature views by name.

        Raises:
            NotFound: there is none of that name.
            InvalidRequest: it cannot be joined here, and why.
        """
        return [self._view(name) for name in names]

    def service(self, name: str) -> list[FeastView]:
        """Return what a feature service takes of each view. Raises as `views` does."""
        services = {
            each.spec.name: each.spec
            for each in self._registry.feature_services
            if each.spec.project == self.project
        }
        if name not in services:
            raise NotFound("feature service", name, among=services)
        found = []
        for each in services[name].features:
            view = self._view(each.feature_view_name)
            mapped = {pair.key: pair.value for pair in each.join_key_map}
            columns = tuple(column.name for column in each.feature_columns)
            found.append(
                replace(
                    view,
                    called=each.feature_view_name_alias or view.name,
                    row_key=mapped.get(view.key, view.key),
                    taken=columns or view.features,
                )
            )
        return found

    def _view(self, name: str) -> FeastView:
        specs = self._specs(self._registry.feature_views)
        if name not in specs:
            for kind in ("on_demand_feature_views", "stream_feature_views"):
                if name in self._specs(getattr(self._registry, kind)):
                    raise InvalidRequest(
                        f"{name!r} is one of Feast's {kind.replace('_', ' ')}, which have no rows "
                        "to join; take views of a table"
                    )
            raise NotFound("feature view", name, among=specs)
        spec = specs[name]
        source = spec.batch_source
        renamed = {pair.key: pair.value for pair in source.field_mapping}
        return FeastView(
            project=self.project,
            name=name,
            called=name,
            key=(key := self._key(spec)),
            row_key=key,
            time=renamed.get(source.timestamp_field, source.timestamp_field),
            created=renamed.get(source.created_timestamp_column, source.created_timestamp_column)
            or None,
            ttl_seconds=(spec.ttl.seconds + spec.ttl.nanos / 1e9) or None,
            features=(features := tuple(each.name for each in spec.features)),
            taken=features,
            source=self._file(name, source),
            renamed=renamed,
        )

    def _specs(self, views: Any) -> dict[str, Any]:
        return {each.spec.name: each.spec for each in views if each.spec.project == self.project}

    def _key(self, spec: Any) -> str:
        keys = {
            each.spec.name: each.spec.join_key or each.spec.name
            for each in self._registry.entities
            if each.spec.project == self.project
        }
        found = [keys.get(name, name) for name in spec.entities if name != "__dummy"]
        if len(found) != 1:
            raise InvalidRequest(
                f"The feature view {spec.name!r} has {len(found)} entities, and views are joined "
                "by one key"
            )
        return str(found[0])

    def _file(self, view: str, source: Any) -> Path:
        uri = str(source.file_options.uri).removeprefix("file://")
        if source.type != feast_registry.BATCH_FILE or "://" in uri or not uri:
            raise InvalidRequest(
                f"The rows of the feature view {view!r} are in no file of this machine; export "
                "them as Parquet, and name that in data.features"
            )
        return self._folder / uri


def read(folder: Path) -> Repository:
    """Return the repository in a folder.

    Raises:
        NotFound: there is no `feature_store.yaml`, or no registry that it names.
        InvalidRequest: either is not what it should be, or another kind than a file.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise NotFound("Feast repository", str(folder))
    settings = yaml_text.parse(path.read_text(encoding="utf-8"), source=repr(str(path)))
    if not isinstance(settings, Mapping) or not isinstance(settings.get("project"), str):
        raise InvalidRequest(f"{str(path)!r} names no project")
    registry = settings.get("registry", "data/registry.db")
    where = registry if isinstance(registry, Mapping) else {"path": registry}
    place = str(where.get("path", ""))
    if where.get("registry_type", "file") != "file" or "://" in place or "$" in place:
        raise InvalidRequest(
            f"registry of {str(path)!r} is {registry!r}; a file of this machine is read"
        )
    store = settings.get("offline_store", "file")
    kind = store.get("type", "file") if isinstance(store, Mapping) else store
    if kind not in FILE_STORES:
        raise InvalidRequest(
            f"offline_store of {str(path)!r} is {kind!r}; those that read files are read: "
            f"{', '.join(FILE_STORES)}"
        )
    return Repository(settings["project"], folder, feast_registry.read(folder / place))


def rows(view: FeastView) -> pl.DataFrame:
    """Return the rows of a view: key, time and features, by the names that Feast gives them.

    Times without a zone are of UTC, as Feast has it, and dates are their midnight there. Of rows
    of one key and time the one that was created last holds, where a column says so.

    Raises:
        NotFound: there is no such file, or a column is missing.
        InvalidRequest: it is no Parquet.
    """
    polars = require("polars", extra=EXTRA)
    if not view.source.exists():
        raise NotFound(f"file of the feature view {view.name!r}", str(view.source))
    place = view.source / "**" / "*.parquet" if view.source.is_dir() else view.source
    try:
        scanned = polars.scan_parquet(place)
        known = [view.renamed.get(name, name) for name in scanned.collect_schema().names()]
        scanned = scanned.rename(dict(view.renamed), strict=False)
        wanted = [view.key, view.time, *view.features]
        for name in [*wanted, *([view.created] if view.created else [])]:
            if name not in known:
                raise NotFound(f"column of the feature view {view.name!r}", name, among=known)
        if view.created is not None:
            scanned = scanned.sort(view.created, maintain_order=True)
            scanned = scanned.unique([view.key, view.time], keep="last", maintain_order=True)
        found: pl.DataFrame = scanned.select(wanted).collect()
    except polars.exceptions.PolarsError as error:
        raise InvalidRequest(f"{str(view.source)!r} cannot be read: {first_line(error)}") from error
    if found[view.time].dtype == polars.Date:
        found = found.with_columns(polars.col(view.time).cast(polars.Datetime("us")))
    kind = found[view.time].dtype
    if str(kind).startswith("Datetime") and not getattr(kind, "time_zone", None):
        found = found.with_columns(polars.col(view.time).dt.replace_time_zone("UTC"))
    return found
