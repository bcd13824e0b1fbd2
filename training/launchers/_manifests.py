"""Manifests of a run on Kubernetes: a Job, or a TrainJob of Kubeflow, and what it needs beside."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from infra.errors import InvalidConfiguration
from training.launchers import Spec, _ranks

Kind = Literal["Job", "TrainJob"]
Manifest = dict[str, Any]

DIGEST = "ragstone/specification"
CANCELLED = "ragstone/cancelled"
INDEX = "batch.kubernetes.io/job-completion-index"
OWNER = "app.kubernetes.io/managed-by"
GPU = "nvidia.com/gpu"
VERSIONS: Mapping[Kind, str] = {"Job": "batch/v1", "TrainJob": "trainer.kubeflow.org/v1alpha1"}
POD_LABELS: Mapping[Kind, str] = {
    "Job": "batch.kubernetes.io/job-name",
    "TrainJob": "jobset.sigs.k8s.io/jobset-name",
}
"""The label by which the pods of one are found."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where on a cluster runs are put."""

    image: str
    kind: Kind = "Job"
    volumes: Mapping[str, str] = field(default_factory=dict)
    """Claims of persistent volumes, by the path they are mounted at."""
    service_account: str | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    keep_seconds: int | None = None
    """How long a finished Job stays; `None` leaves that to whoever cleans up."""
    runtime: str = "torch-distributed"
    """The ClusterTrainingRuntime of a TrainJob."""
    torchrun: tuple[str, ...] = ("torchrun",)

    def __post_init__(self) -> None:
        if self.kind not in VERSIONS:
            raise InvalidConfiguration(f"No kind {self.kind!r}; use 'Job' or 'TrainJob'")
        of_the_runtime = self.volumes or self.service_account or self.node_selector
        if self.kind == "TrainJob" and (of_the_runtime or self.keep_seconds is not None):
            raise InvalidConfiguration(
                "Volumes, service accounts, node selectors and lifetimes of a TrainJob belong into "
                f"its training runtime {self.runtime!r}; set them there"
            )


def run(spec: Spec, run_id: str, place: Place) -> Manifest:
    """Return the manifest of the run itself; it waits where it needs `companions` first."""
    make = _job if place.kind == "Job" else _train_job
    manifest = make(spec, run_id, place)
    if needs_companions(spec, place):
        manifest["spec"]["suspend"] = True
    return {
        "apiVersion": VERSIONS[place.kind],
        "kind": place.kind,
        "metadata": {
            "name": run_id,
            "labels": _labels(spec),
            "annotations": {DIGEST: spec.digest},
        },
        **manifest,
    }


def needs_companions(spec: Spec, place: Place) -> bool:
    return bool(spec.secrets) or (spec.nodes > 1 and place.kind == "Job")


def companions(
    spec: Spec, owner: Manifest, place: Place, *, secrets: Mapping[str, str]
) -> list[Manifest]:
    """Return what goes when the run goes: its secrets, and the name its nodes meet under."""
    run_id = owner["metadata"]["name"]
    metadata = {
        "name": run_id,
        "labels": _labels(spec),
        "ownerReferences": [
            {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": run_id,
                "uid": owner["metadata"]["uid"],
            }
        ],
    }
    made: list[Manifest] = []
    if secrets:
        data = {name: base64.b64encode(text.encode()).decode() for name, text in secrets.items()}
        made.append({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
    if spec.nodes > 1 and place.kind == "Job":
        selector = {POD_LABELS["Job"]: run_id}
        service = {"clusterIP": "None", "selector": selector, "publishNotReadyAddresses": True}
        made.append({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service})
    return made


def _job(spec: Spec, run_id: str, place: Place) -> Manifest:
    job: Manifest = {
        "completions": spec.nodes,
        "parallelism": spec.nodes,
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "template": {"metadata": {"labels": _labels(spec)}, "spec": _pod(spec, run_id, place)},
    }
    if place.keep_seconds is not None:
        job["ttlSecondsAfterFinished"] = place.keep_seconds
    return {"spec": job}


def _pod(spec: Spec, run_id: str, place: Place) -> Manifest:
    names = {path: f"volume-{number}" for number, path in enumerate(place.volumes)}
    container: Manifest = {
        "name": "run",
        "image": place.image,
        "command": _literal(_ranks.on_each_node(spec, torchrun=place.torchrun)),
        "workingDir": spec.folder,
        "env": _environment(spec, run_id) + _ranks_of_a_job(spec, run_id),
        "resources": _resources(spec),
        # What it wrote last is kept with its end, for whoever asks why.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": name, "mountPath": path} for path, name in names.items()],
    }
    pod: Manifest = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": place.service_account is not None,
        "terminationGracePeriodSeconds": math.ceil(spec.grace_seconds),
        "containers": [container],
        "volumes": [
            {"name": names[path], "persistentVolumeClaim": {"claimName": claim}}
            for path, claim in place.volumes.items()
        ],
    }
    if spec.time_limit_seconds is not None:
        # Of the pod: that of the Job would count the time spent waiting for a node.
        pod["activeDeadlineSeconds"] = math.ceil(spec.time_limit_seconds)
    if spec.nodes > 1:
        pod["subdomain"] = run_id
    if place.service_account is not None:
        pod["serviceAccountName"] = place.service_account
    if place.node_selector:
        pod["nodeSelector"] = dict(place.node_selector)
    return pod


def _train_job(spec: Spec, run_id: str, place: Place) -> Manifest:
    # The runtime sets torchrun's variables, so torchrun starts the program in any case. A
    # TrainJob knows no working folder.
    enter = ["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", spec.folder]
    job: Manifest = {
        "runtimeRef": {"name": place.runtime},
        "trainer": {
            "image": place.image,
            "command": _literal([*enter, *place.torchrun, *_ranks.started_by_torchrun(spec)]),
            "numNodes": spec.nodes,
            "numProcPerNode": spec.processes_per_node,
            "env": _environment(spec, run_id),
            "resourcesPerNode": _resources(spec),
        },
    }
    if spec.time_limit_seconds is not None:
        job["activeDeadlineSeconds"] = math.ceil(spec.time_limit_seconds)
    return {"spec": job}


def _labels(spec: Spec) -> dict[str, str]:
    # The value of a label ends with a letter or a digit.
    return {OWNER: "ragstone", "app.kubernetes.io/name": re.sub(r"[^A-Za-z0-9]+$", "", spec.name)}


def _literal(texts: Iterable[str]) -> list[str]:
    """Keep Kubernetes from expanding $(NAME), of commands and of variables."""
    return [text.replace("$", "$$") for text in texts]


def _environment(spec: Spec, run_id: str) -> list[Manifest]:
    plain: list[Manifest] = [
        {"name": name, "value": value}
        for name, value in zip(spec.environment, _literal(spec.environment.values()), strict=True)
    ]
    return plain + [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": run_id, "key": name}}}
        for name in spec.secrets
    ]


def _ranks_of_a_job(spec: Spec, run_id: str) -> list[Manifest]:
    shared = _ranks.meeting(spec)
    if not shared:
        return []
    first = f"{run_id}-0.{run_id}" if spec.nodes > 1 else "127.0.0.1"
    port = str(_ranks.PORT)
    shared |= {"MASTER_ADDR": first, "MASTER_PORT": port}
    shared |= {"PET_MASTER_ADDR": first, "PET_MASTER_PORT": port}
    number = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}
    return [
        *({"name": name, "value": value} for name, value in shared.items()),
        {"name": _ranks.number_variable(spec), "valueFrom": number},
    ]


def _resources(spec: Spec) -> Manifest:
    requests: Manifest = {"cpu": str(spec.cpus)}
    limits: Manifest = {}
    if spec.memory_bytes:
        requests["memory"] = limits["memory"] = str(spec.memory_bytes)
    if spec.gpus:
        requests[GPU] = limits[GPU] = str(spec.gpus)
    return {"requests": requests, "limits": limits}
