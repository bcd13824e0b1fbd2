"""Mirrors runs to MLflow: a server, or a database that MLflow keeps itself."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib.util import find_spec
from itertools import islice
from typing import Any

from infra.errors import InvalidConfiguration, MissingDependency, StorageFailed
from infra.plugins import require
from infra.tracking.limits import cut
from infra.tracking.parameters import encode, flatten
from infra.tracking.points import Points
from infra.tracking.records import Link, RunRecord
from infra.tracking.redaction import hide

EXTRA = "tracking"
RUN_TAG = "ragstone.run"
METRICS_AT_ONCE = 1000
VALUES_AT_ONCE = 100
MAX_VALUE_CHARACTERS = 5_000
"""MLflow takes 6,000 of a parameter and 8,000 of a tag."""
REQUEST_SECONDS = 10
_STATUSES = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED", "lost": "FAILED"}
_REFUSED_IN_NAMES = re.compile(r"[^/\w.\- :]")


def build(uri: str, experiment: str = "ragstone") -> MLflow:
    """Return the mirror at a tracking `uri` such as `http://host:5000` or `sqlite:///mlflow.db`.

    User and password of a server are read from `MLFLOW_TRACKING_USERNAME` and
    `MLFLOW_TRACKING_PASSWORD`, as MLflow does.
    """
    if not uri.startswith(("http://", "https://", "sqlite:///", "postgresql")):
        raise InvalidConfiguration(
            f"tracking.mirror_options.mlflow.uri: {hide(uri)!r} is neither a server's address nor "
            "a database's; MLflow no longer writes to folders"
        )
    if find_spec("mlflow") is None:
        raise MissingDependency("mlflow", extra=EXTRA)
    return MLflow(uri, experiment)


class MLflow:
    """Writes through MLflow's client, with its telemetry off and its long retries short."""

    def __init__(self, uri: str, experiment: str) -> None:
        self._uri = uri
        self._experiment_name = experiment
        self._opened: set[str] = set()

    def open(self, run: RunRecord, remote_id: str | None) -> str:
        if remote_id in self._opened:
            return str(remote_id)
        with self._failures():
            found = self._find(run.id) or self._create(run)
            self._describe(found, run)
        self._opened.add(found)
        return found

    def write(self, remote_id: str, points: Mapping[str, Points]) -> None:
        entities = require("mlflow.entities", extra=EXTRA)
        with self._failures():
            metrics = _metrics(entities.Metric, points)
            while batch := list(islice(metrics, METRICS_AT_ONCE)):
                self._client.log_batch(remote_id, metrics=batch, synchronous=True)

    def close(self, remote_id: str, run: RunRecord, links: Sequence[Link]) -> None:
        with self._failures():
            self._describe(remote_id, run, links)
            ended_at = run.finished_at or run.seen_at
            self._client.set_terminated(
                remote_id, _STATUSES[run.state], end_time=_milliseconds(ended_at.timestamp())
            )
        self._opened.discard(remote_id)

    @cached_property
    def _client(self) -> Any:
        # Read when MLflow is imported, or at each request.
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        os.environ["DO_NOT_TRACK"] = "true"
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(REQUEST_SECONDS))
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        return require("mlflow", extra=EXTRA).MlflowClient(tracking_uri=self._uri)

    @cached_property
    def _experiment(self) -> str:
        found = self._client.get_experiment_by_name(self._experiment_name)
        if found is not None:
            return str(found.experiment_id)
        return str(self._client.create_experiment(self._experiment_name))

    def _find(self, run_id: str) -> str | None:
        """Return the copy of a run, whoever made it."""
        condition = f"tags.`{RUN_TAG}` = '{run_id}'"
        found = self._client.search_runs([self._experiment], condition, max_results=1)
        return str(found[0].info.run_id) if found else None

    def _create(self, run: RunRecord) -> str:
        tags = {RUN_TAG: run.id, "ragstone.kind": run.kind, "mlflow.source.type": "LOCAL"}
        if run.command:
            tags["mlflow.source.name"] = cut(" ".join(run.command), MAX_VALUE_CHARACTERS)
        if run.git_revision:
            tags["mlflow.source.git.commit"] = run.git_revision
        parent = self._find(run.parent) if run.parent else None
        if parent:
            tags["mlflow.parentRunId"] = parent
        created = self._client.create_run(
            self._experiment,
            start_time=_milliseconds(run.started_at.timestamp()),
            tags=tags,
            run_name=run.name,
        )
        return str(created.info.run_id)

    def _describe(self, remote_id: str, run: RunRecord, links: Sequence[Link] = ()) -> None:
        entities = require("mlflow.entities", extra=EXTRA)
        parameters = {name: _text(value) for name, value in flatten(run.parameters).items()}
        tags = dict(run.tags)
        for number, link in enumerate(links):
            tags[f"ragstone.{link.direction}.{number}.{link.role}"] = (
                f"{link.reference} {link.digest}"
            )
        if run.exit_reason:
            tags["ragstone.exit_reason"] = run.exit_reason
        for batch in _batches(parameters):
            params = [entities.Param(*item) for item in batch]
            self._client.log_batch(remote_id, params=params, synchronous=True)
        for batch in _batches(tags):
            found = [entities.RunTag(*item) for item in batch]
            self._client.log_batch(remote_id, tags=found, synchronous=True)

    @contextmanager
    def _failures(self) -> Iterator[None]:
        failure = require("mlflow.exceptions", extra=EXTRA).MlflowException
        try:
            yield
        # Those of the network are OSErrors; of a database, MLflow wraps its own.
        except (failure, OSError) as error:
            self._opened.clear()
            raise StorageFailed(f"MLflow at {hide(self._uri)!r}: {hide(str(error))}") from error


def _metrics(metric: Any, points: Mapping[str, Points]) -> Iterator[Any]:
    for name, found in points.items():
        key = _name(name)
        for step, at, value in zip(found.steps, found.times, found.values, strict=True):
            yield metric(key, float(value), _milliseconds(float(at)), int(step))


def _batches(values: Mapping[str, str]) -> Iterator[list[tuple[str, str]]]:
    pairs = ((_name(name), cut(value, MAX_VALUE_CHARACTERS)) for name, value in values.items())
    while batch := list(islice(pairs, VALUES_AT_ONCE)):
        yield batch


def _name(name: str) -> str:
    return _REFUSED_IN_NAMES.sub("_", name)[:250]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else encode(value)


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
