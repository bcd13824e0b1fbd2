"""Puts feature views of a Feast repository as datasets, which models take columns from."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from infra import feast_repository
from infra.artifacts.publishing import Made
from infra.artifacts.refs import Reference
from infra.artifacts.store import ArtifactStore
from infra.datasets.datasets import KIND, Datasets, Options
from infra.errors import InvalidConfiguration, InvalidRequest
from infra.feast_repository import FeastView
from infra.feature_views import FeatureView
from training import spec as specifications
from training.tabular.specification import Classical, FeastViews

_STRANGE = re.compile(r"[^A-Za-z0-9._-]")


def resolved(
    spec: Classical, *, folder: Path, store: ArtifactStore | None, note: Callable[[str], None]
) -> Classical:
    """Return a specification whose `data.feast` became `data.features` of datasets.

    The rows of each view are put as they are now, a next version if they changed; so the model is
    made from a version, and requests are answered from the newest that was put.

    Raises:
        NotFound: there is no such repository, service, view or column.
        InvalidRequest: a view cannot be joined, or does not fit to the others.
        InvalidConfiguration: there is no artifact store.
    """
    if not spec.data.feast:
        return spec
    if store is None:
        raise InvalidConfiguration("data.feast: its rows become datasets, and no store is open")
    features = list(spec.data.features)
    for each in spec.data.feast:
        for view in _chosen(each, folder):
            reference = put(view, store)
            note(f"the feature view {view.name!r} of Feast is {reference}")
            features.append(_as_feature_view(view, reference, each))
    values = spec.model_dump(mode="json", by_alias=True)
    values["data"] |= {"feast": [], "features": [each.model_dump() for each in features]}
    return specifications.check(Classical, values, source="the specification with data.feast")


def put_all(repository: Path, names: Sequence[str], store: ArtifactStore) -> list[Reference]:
    """Put views of a repository by name, so that models that take from them get what is new."""
    return [put(view, store) for view in feast_repository.read(repository).views(names)]


def put(view: FeastView, store: ArtifactStore) -> Reference:
    """Put the rows of a view as `dataset/PROJECT.VIEW`; raises as `feast_repository.rows`.

    All features are put, so that models that take some of them share versions.
    """
    name = _STRANGE.sub("-", f"{view.project}.{view.name}")
    facts = {"feast": {"project": view.project, "view": view.name}}
    rows = feast_repository.rows(view)
    if not len(rows):
        raise InvalidRequest(f"The feature view {view.name!r} of Feast has no row")
    return Datasets(store).put(rows, name, Options(made=Made(metadata=facts)))


def _chosen(asked: FeastViews, folder: Path) -> list[FeastView]:
    repository = feast_repository.read(folder / Path(asked.repository).expanduser())
    views = (
        repository.views(asked.views)
        if asked.service is None
        else repository.service(asked.service)
    )
    strange = sorted(set(asked.row_keys) - {view.key for view in views})
    if strange:
        raise InvalidRequest(f"data.feast: row_keys names {strange[0]!r}, which is no join key")
    return views


def _as_feature_view(view: FeastView, reference: Reference, asked: FeastViews) -> FeatureView:
    values = {
        "rows": f"{KIND}/{reference.name}",
        "key": view.key,
        "row_key": asked.row_keys.get(view.key, view.row_key),
        "time": view.time,
        "columns": view.taken,
        "prefix": f"{view.called}__" if asked.full_names else "",
        "ttl_seconds": view.ttl_seconds,
        "lag_seconds": asked.lag_seconds,
        "required": asked.required,
    }
    return FeatureView.model_validate(values)
