"""What a Kubernetes cluster does with Jobs and TrainJobs, for tests: pods are processes here."""

from __future__ import annotations

import base64
import contextlib
import copy
import itertools
import os
import re
import subprocess
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

Object = dict[str, Any]
INDEX = "batch.kubernetes.io/job-completion-index"


class Cluster:
    """Objects, and the controllers that act on them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.changed = threading.Condition(threading.RLock())
        self.objects: dict[tuple[str, str], Object] = {}
        self.pods: dict[str, Pod] = {}
        self._numbers = itertools.count(1)
        self.requests: list[tuple[str, str]] = []
        self.down = False
        self._is_frozen = False

    def create(self, resource: str, given: Object) -> Object | None:
        with self.changed:
            key = (resource, given["metadata"]["name"])
            if key in self.objects:
                return None
            number = str(next(self._numbers))
            given["metadata"] |= {"uid": f"uid-{number}", "resourceVersion": number}
            self.objects[key] = given
            given.setdefault("status", {})
            self.reconcile()
            return given

    def patch(self, key: tuple[str, str], change: Object) -> Object:
        with self.changed:
            _merge(self.objects[key], change)
            self.reconcile()
            return self.objects[key]

    def delete(self, key: tuple[str, str], grace_seconds: float | None) -> Object:
        with self.changed:
            found = self.objects[key]
            if key[0] == "pods" and not self.pods[key[1]].ended.is_set():
                found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
                self.pods[key[1]].stop(grace_seconds)
            else:
                self._drop(key)
            return found

    def freeze(self, status: Object) -> None:
        """End the only pod, show another status of it, and let no controller act any more."""
        with self.changed:
            self._is_frozen = True
            (pod,) = self.pods.values()
            shown, pod.object = pod.object, copy.deepcopy(pod.object)
            shown["status"] = status
            pod.stop(0)

    def reconcile(self) -> None:
        """Bring pods in line with what Jobs and TrainJobs ask for."""
        with self.changed:
            if self._is_frozen:
                return
            for (resource, name), run in list(self.objects.items()):
                if resource in {"jobs", "trainjobs"}:
                    self._reconcile_run(resource, name, run)
            self.changed.notify_all()

    def _reconcile_run(self, resource: str, name: str, run: Object) -> None:
        if any(c["type"] in {"Complete", "Failed"} for c in run["status"].get("conditions", ())):
            return
        mine = [pod for pod in self.pods.values() if pod.owner == name]
        if run["spec"].get("suspend"):
            for pod in mine:
                pod.stop(None)
            return
        if not mine:
            for index in range(_nodes(run)):
                self._start_pod(resource, name, run, index)
        elif any(pod.phase == "Failed" for pod in mine):
            run["status"]["conditions"] = [_condition("Failed", "BackoffLimitExceeded")]
            for pod in mine:
                pod.stop(None)
        elif all(pod.phase == "Succeeded" for pod in mine):
            run["status"]["conditions"] = [_condition("Complete", "Completed")]

    def _start_pod(self, resource: str, owner: str, run: Object, index: int) -> None:
        spec = run["spec"]["template"]["spec"] if resource == "jobs" else _of_a_runtime(run, index)
        label = {
            "jobs": "batch.kubernetes.io/job-name",
            "trainjobs": "jobset.sigs.k8s.io/jobset-name",
        }[resource]
        name = f"{owner}-{index}-{next(self._numbers)}"
        pod: Object = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": "default",
                "uid": f"uid-{name}",
                "resourceVersion": "1",
                "labels": {label: owner},
                "annotations": {INDEX: str(index)},
            },
            "spec": spec,
            "status": {"phase": "Pending"},
        }
        self.objects["pods", name] = pod
        self.pods[name] = Pod(self, pod, owner)
        self.pods[name].start()

    def finished(self, pod: Pod) -> None:
        with self.changed:
            self.reconcile()
            if "deletionTimestamp" in pod.object["metadata"]:
                self._drop(("pods", pod.name))
            self.changed.notify_all()

    def _drop(self, key: tuple[str, str]) -> None:
        gone = self.objects.pop(key)
        for other, each in list(self.objects.items()):
            owners = each["metadata"].get("ownerReferences", ())
            if any(owner["uid"] == gone["metadata"]["uid"] for owner in owners):
                self._drop(other)
        self.changed.notify_all()

    def stop(self) -> None:
        for pod in list(self.pods.values()):
            pod.stop(0)
        for pod in list(self.pods.values()):
            pod.join(10)


class Pod(threading.Thread):
    """What a kubelet does for one pod of one container."""

    def __init__(self, cluster: Cluster, described: Object, owner: str) -> None:
        super().__init__(daemon=True)
        self.object = described
        self.name = described["metadata"]["name"]
        self.owner = owner
        self.log = cluster.folder / f"{self.name}.log"
        self.ended = threading.Event()
        self._cluster = cluster
        self._stop_at: float | None = None
        self._grace = float(described["spec"].get("terminationGracePeriodSeconds", 30))
        self._asked = False

    @property
    def phase(self) -> str:
        return str(self.object["status"]["phase"])

    def stop(self, grace_seconds: float | None) -> None:
        with self._cluster.changed:
            if self._stop_at is None:
                grace = self._grace if grace_seconds is None else grace_seconds
                self._stop_at = time.monotonic() + grace

    def run(self) -> None:
        container = self.object["spec"]["containers"][0]
        environment = self._environment(container)
        while environment is None and self._stop_at is None:
            waiting = {"reason": "CreateContainerConfigError", "message": "no such secret"}
            self._report("Pending", {"waiting": waiting})
            time.sleep(0.05)
            environment = self._environment(container)
        status, reason = self._execute(container, environment or {})
        self.ended.set()
        self._finish(status, reason)

    def _execute(self, container: Object, environment: dict[str, str]) -> tuple[int, str | None]:
        if self._stop_at is not None:
            return 137, None
        command = [_expand(part, environment) for part in container["command"]]
        limit = container["resources"]["limits"].get("memory")
        seconds = self.object["spec"].get("activeDeadlineSeconds")
        with self.log.open("wb") as log:
            try:
                process = psutil.Popen(
                    command,
                    cwd=container.get("workingDir"),
                    env={"PATH": os.environ["PATH"], **environment},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError as error:
                log.write(f"{error}\n".encode())
                return 127, "StartError"
        self._report("Running", {"running": {}})
        due = time.monotonic() + seconds if seconds else None
        reason = None
        while process.poll() is None:
            reason = self._police(process, limit and int(limit), due) or reason
            time.sleep(0.02)
        code = process.returncode
        for orphan in _session(process.pid):
            orphan.kill()
        return (128 - code if code < 0 else code), reason

    def _police(self, process: psutil.Popen, limit: int | None, due: float | None) -> str | None:
        """Do what limits and requests to stop ask for; return why, if it is a limit's doing."""
        now = time.monotonic()
        if limit and sum(_memory(each) for each in _session(process.pid)) > limit:
            process.kill()
            return "OOMKilled"
        reason = None
        if due is not None and now > due and self._stop_at is None:
            self._stop_at = now + self._grace
            reason = "DeadlineExceeded"
        if self._stop_at is not None:
            if not self._asked:
                self._asked = True
                process.terminate()
            elif now > self._stop_at:
                for each in _session(process.pid):
                    each.kill()
        return reason

    def _environment(self, container: Object) -> dict[str, str] | None:
        """Return the container's variables; `None` while a secret is missing."""
        found: dict[str, str] = {}
        for entry in container.get("env", ()):
            source = entry.get("valueFrom", {})
            if "secretKeyRef" in source:
                secret = self._cluster.objects.get(("secrets", source["secretKeyRef"]["name"]))
                if secret is None:
                    return None
                text = base64.b64decode(secret["data"][source["secretKeyRef"]["key"]]).decode()
            elif "fieldRef" in source:
                assert source["fieldRef"]["fieldPath"] == f"metadata.annotations['{INDEX}']"
                text = self.object["metadata"]["annotations"][INDEX]
            else:
                text = _expand(entry["value"], found)
            found[entry["name"]] = text
        return found

    def _report(self, phase: str, state: Object) -> None:
        with self._cluster.changed:
            self.object["status"] |= {
                "phase": phase,
                "containerStatuses": [{"name": "run", "state": state}],
            }
            self._cluster.changed.notify_all()

    def _finish(self, code: int, reason: str | None) -> None:
        tail = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
        said = "OOMKilled" if reason == "OOMKilled" else "Error" if code else "Completed"
        end = {"exitCode": code, "reason": said, "message": tail if code else ""}
        end["finishedAt"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        with self._cluster.changed:
            self._report("Failed" if code or reason else "Succeeded", {"terminated": end})
            if reason == "DeadlineExceeded":
                self.object["status"]["reason"] = reason
        self._cluster.finished(self)


def _of_a_runtime(run: Object, index: int) -> Object:
    """Return the pod of a TrainJob, as the controller makes it for the runtime of torch."""
    trainer = run["spec"]["trainer"]
    container = {
        "name": "node",
        "command": trainer["command"],
        "env": [
            *trainer["env"],
            {"name": "PET_NNODES", "value": str(trainer["numNodes"])},
            {"name": "PET_NPROC_PER_NODE", "value": str(trainer["numProcPerNode"])},
            {"name": "PET_NODE_RANK", "value": str(index)},
        ],
        "resources": trainer["resourcesPerNode"],
    }
    return {"containers": [container]}


def _nodes(run: Object) -> int:
    return int(run["spec"].get("completions") or run["spec"]["trainer"]["numNodes"])


def _condition(kind: str, reason: str) -> Object:
    return {"type": kind, "status": "True", "reason": reason, "message": f"{kind}: {reason}"}


def _merge(target: Object, change: Object) -> None:
    for name, value in change.items():
        if isinstance(value, dict):
            _merge(target.setdefault(name, {}), value)
        else:
            target[name] = value


def _expand(text: str, variables: dict[str, str]) -> str:
    """Expand $(NAME) as Kubernetes does; $$ is a dollar, an unknown name stays."""
    return re.sub(
        r"\$(?:(\$)|\(([^)]*)\))",
        lambda m: "$" if m[1] else variables.get(m[2], m[0]),
        text,
    )


def _session(pid: int) -> list[psutil.Process]:
    """Return the living processes of a container."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == pid and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _memory(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        return int(process.memory_info().rss)
    return 0
