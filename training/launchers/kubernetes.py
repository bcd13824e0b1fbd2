"""Runs programs on Kubernetes through kubectl: as a Job, or as a TrainJob of Kubeflow."""

from __future__ import annotations

from typing import Any

from infra.errors import Conflict, InvalidConfiguration, NotFound
from training.launchers import (
    GRACE_SECONDS,
    Handle,
    Launcher,
    Log,
    Spec,
    Status,
    _manifests,
    _pods,
    _runs,
    handle_for,
)
from training.launchers._kubectl import Kubectl
from training.launchers._manifests import Manifest, Place

NAME = "kubernetes"


def build(
    *,
    image: str,
    namespace: str | None = None,
    context: str | None = None,
    kubeconfig: str | None = None,
    kubectl: str = "kubectl",
    **place: Any,
) -> Launcher:
    """Return a launcher for one namespace of one cluster.

    Args:
        image: of the container; the program and its packages are in there.
        namespace: by default that of the context.
        context: of the kubeconfig; by default the current one.
        kubeconfig: its path; by default what kubectl finds by itself.
        kubectl: the program.
        place: the other fields of `Place`, such as `kind`, `volumes` or `keep_seconds`.
    """
    try:
        described = Place(image, **place)
    except TypeError as error:
        raise InvalidConfiguration(f"The launcher 'kubernetes' cannot be built: {error}") from None
    given = {"--namespace": namespace, "--context": context, "--kubeconfig": kubeconfig}
    flags = [f"{flag}={value}" for flag, value in given.items() if value is not None]
    return Kubernetes(Kubectl((kubectl, *flags)), described)


class Kubernetes:
    """Launches one Job, or TrainJob, for each run; it stays until somebody deletes it."""

    name = NAME

    def __init__(self, kubectl: Kubectl, place: Place) -> None:
        self._kubectl = kubectl
        self._place = place
        # Named in full: other things may be called jobs on a cluster, too.
        self._resource = {"Job": "jobs.batch", "TrainJob": "trainjobs.trainer.kubeflow.org"}[
            place.kind
        ]

    def submit(self, spec: Spec, *, key: str) -> Handle:
        handle = handle_for(NAME, key)
        run_id = _runs.id_of(handle, launcher=NAME)
        secrets = _runs.secrets_of(spec)
        try:
            run = self._kubectl.create(_manifests.run(spec, run_id, self._place))
        except Conflict:
            run = self._get(run_id)
            _runs.check_digest(run["metadata"].get("annotations", {}).get(_manifests.DIGEST), spec)
        if run["spec"].get("suspend") and not _is_cancelled(run):
            for manifest in _manifests.companions(spec, run, self._place, secrets=secrets):
                try:
                    self._kubectl.create(manifest)
                except Conflict:
                    continue  # an earlier submission of the same run came this far
            self._patch(run_id, {"spec": {"suspend": False}})
        return handle

    def poll(self, handle: Handle) -> Status:
        run_id = _runs.id_of(handle, launcher=NAME)
        try:
            run = self._get(run_id)
        except NotFound:
            return _runs.ended(None, reason="lost", message=f"{run_id!r} was deleted")
        pods = self._pods(run_id)
        alive = any(pod["status"].get("phase") in {"Pending", "Running"} for pod in pods)
        if _is_cancelled(run):
            if alive:
                return Status("running", message="it was asked to end")
            return _runs.ended(_pods.exit_code(pods), reason="cancelled")
        conditions = {
            condition["type"]: condition
            for condition in run.get("status", {}).get("conditions", [])
            if condition["status"] == "True"
        }
        if "Complete" in conditions:
            return _runs.ended(0)
        if "Failed" in conditions:
            return _pods.failure(conditions["Failed"], pods)
        if any(pod["status"].get("phase") == "Running" for pod in pods):
            return Status("running")
        return Status("queued", message="; ".join(filter(None, map(_pods.waiting, pods))))

    def logs(self, handle: Handle, *, offset: int = 0) -> Log:
        """Return what the first node wrote; kubectl sends all of it each time it is asked."""
        run_id = _runs.id_of(handle, launcher=NAME)
        self._get(run_id)
        pods = self._pods(run_id)
        if not pods:
            return Log("", offset)
        written = self._kubectl.logs(pods[0]["metadata"]["name"])
        if len(written) < offset:  # the node has rotated it away, and begun a new file
            offset = 0
        piece = written[offset : offset + _runs.MAX_LOG_BYTES]
        text, taken = _runs.whole_characters(piece)
        return Log(text, offset + taken)

    def cancel(self, handle: Handle, *, grace_seconds: float = GRACE_SECONDS) -> None:
        if self.poll(handle).is_finished:
            return
        run_id = _runs.id_of(handle, launcher=NAME)
        self._patch(run_id, {"metadata": {"annotations": {_manifests.CANCELLED: "true"}}})
        # The pods first: when they are gone the Job has failed, and puts none in their place.
        self._kubectl.delete_pods(self._selector(run_id), grace_seconds=grace_seconds)
        self._patch(run_id, {"spec": {"suspend": True}})

    def reattach(self, text: str) -> Handle:
        self._get(_runs.id_of(text, launcher=NAME))
        return Handle(text)

    def _get(self, run_id: str) -> Manifest:
        return self._kubectl.get(f"{self._resource}/{run_id}")

    def _patch(self, run_id: str, change: Manifest) -> None:
        self._kubectl.patch(f"{self._resource}/{run_id}", change)

    def _selector(self, run_id: str) -> str:
        return f"{_manifests.POD_LABELS[self._place.kind]}={run_id}"

    def _pods(self, run_id: str) -> list[Manifest]:
        """Return the pods of a run, by the number of their node."""
        found: list[Manifest] = self._kubectl.get("pods", selector=self._selector(run_id))["items"]
        return sorted(found, key=_pods.index)


def _is_cancelled(run: Manifest) -> bool:
    return _manifests.CANCELLED in run["metadata"].get("annotations", {})
