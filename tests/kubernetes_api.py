"""A small Kubernetes on a loopback port: the API that kubectl needs, Jobs, and pods that run.

It keeps objects in memory and runs the containers of pods as processes of this machine, so that
the real kubectl can be used without a cluster. It knows what the launcher relies on, and answers
404 to everything else.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

from kubernetes_cluster import Cluster, Object

KUBECTL = shutil.which("kubectl")
KINDS = {
    ("v1", "pods"): "Pod",
    ("v1", "secrets"): "Secret",
    ("v1", "services"): "Service",
    ("apis/batch/v1", "jobs"): "Job",
    ("apis/trainer.kubeflow.org/v1alpha1", "trainjobs"): "TrainJob",
}
VERBS = ["create", "delete", "get", "list", "patch", "watch"]
PATH = re.compile(
    r"/(?:api/(?P<core>v1)|(?P<group>apis/[^/]+/[^/]+))/namespaces/(?P<namespace>[^/]+)"
    r"/(?P<resource>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<sub>log))?"
)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        url = urlparse(self.path)
        if self._is_down() or self._discover(url.path):
            return
        found = PATH.fullmatch(url.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if found is None:
            self._fail(404, "NotFound", f"no {url.path}")
        elif found["sub"] == "log":
            pod = self.cluster.pods.get(found["name"])
            data = pod.log.read_bytes() if pod is not None and pod.log.exists() else b""
            self._send(200, data, "text/plain")
        elif found["name"] is not None:
            with self.cluster.changed:
                self._answer(found, self.cluster.objects.get((found["resource"], found["name"])))
        elif query.get("watch") in {"true", "1"}:
            self._watch(found["resource"], query)
        else:
            self._list(found["resource"], query)

    def do_POST(self) -> None:
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = PATH.fullmatch(urlparse(self.path).path)
        if self._is_down():
            return
        if found is None:
            self._fail(404, "NotFound", f"no {self.path}")
            return
        made = self.cluster.create(found["resource"], given)
        name = given["metadata"]["name"]
        if made is None:
            self._fail(409, "AlreadyExists", f'{found["resource"]} "{name}" already exists')
        else:
            self._json(201, made)

    def do_PATCH(self) -> None:
        change = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._change(lambda key: self.cluster.patch(key, change))

    def do_DELETE(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        options = json.loads(self.rfile.read(length) or b"{}")
        grace = options.get("gracePeriodSeconds")
        self._change(lambda key: self.cluster.delete(key, grace))

    def _change(self, change: Any) -> None:
        found = PATH.fullmatch(urlparse(self.path).path)
        if self._is_down():
            return
        with self.cluster.changed:
            key = (found["resource"], found["name"]) if found else ("", "")
            if found is None or key not in self.cluster.objects:
                self._fail(404, "NotFound", f'{key[0]} "{key[1]}" not found')
            else:
                self._json(200, change(key))

    def _is_down(self) -> bool:
        self.cluster.requests.append((self.command, self.path))
        if self.cluster.down:
            self._fail(503, "ServiceUnavailable", "the server is currently unable to handle it")
        return self.cluster.down

    def _discover(self, path: str) -> bool:
        groups = sorted({group for group, _ in KINDS if group != "v1"})
        if path == "/openapi/v3":
            places = {
                path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in ("api/v1", *groups)
            }
            self._json(200, {"paths": places})
            return True
        if path.startswith("/openapi/v3/"):
            self._json(200, _schema(path.removeprefix("/openapi/v3/").removeprefix("api/")))
            return True
        if path == "/api":
            self._json(200, {"kind": "APIVersions", "versions": ["v1"]})
        elif path == "/apis":
            named = [_group(group) for group in groups]
            self._json(200, {"kind": "APIGroupList", "apiVersion": "v1", "groups": named})
        elif (group := path.removeprefix("/api/").removeprefix("/")) in {"v1", *groups}:
            resources = [
                {
                    "name": resource,
                    "singularName": kind.lower(),
                    "namespaced": True,
                    "kind": kind,
                    "verbs": VERBS,
                }
                for (of, resource), kind in KINDS.items()
                if of == group
            ]
            version = group.removeprefix("apis/")
            listed = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version}
            self._json(200, {**listed, "resources": resources})
        else:
            return False
        return True

    def _list(self, resource: str, query: dict[str, str]) -> None:
        with self.cluster.changed:
            items = [
                each
                for (of, _), each in self.cluster.objects.items()
                if of == resource and _is_selected(each, query)
            ]
            version = "v1" if resource in {"pods", "secrets", "services"} else "batch/v1"
            kind = {"pods": "PodList", "jobs": "JobList"}.get(resource, "List")
            metadata = {"resourceVersion": "1"}
            listed = {"kind": kind, "apiVersion": version, "metadata": metadata, "items": items}
            self._json(200, listed)

    def _watch(self, resource: str, query: dict[str, str]) -> None:
        """Tell of one deletion, and end; kubectl asks for nothing else."""
        name = query["fieldSelector"].removeprefix("metadata.name=")
        with self.cluster.changed:
            watched = self.cluster.objects.get((resource, name))
            while (resource, name) in self.cluster.objects:
                self.cluster.changed.wait(0.2)
            event = {"type": "DELETED", "object": watched} if watched else {}
        data = json.dumps(event).encode() + b"\n" if event else b""
        self._send(200, data, "application/json")

    def _answer(self, found: re.Match[str], each: Object | None) -> None:
        if each is None:
            self._fail(404, "NotFound", f'{found["resource"]} "{found["name"]}" not found')
        else:
            self._json(200, each)

    def _fail(self, code: int, reason: str, message: str) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        self._json(code, {**status, "reason": reason, "message": message, "code": code})

    def _json(self, code: int, value: Object) -> None:
        self._send(code, json.dumps(value).encode(), "application/json")

    def _send(self, code: int, data: bytes, kind: str) -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def running_cluster(folder: Path) -> Iterator[tuple[Cluster, str]]:
    """Yield a cluster, and the path of a kubeconfig for it."""
    cluster = Cluster(folder)
    handler = type("ClusterHandler", (Handler,), {"cluster": cluster})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    config = folder / "kubeconfig"
    config.write_text(json.dumps(_kubeconfig(server.server_address[1])))
    try:
        yield cluster, str(config)
    finally:
        cluster.stop()
        server.shutdown()
        server.server_close()
        thread.join(5)


def _kubeconfig(port: int) -> Object:
    place = {"cluster": "test", "user": "test", "namespace": "default"}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "test", "user": {}}],
        "contexts": [{"name": "test", "context": place}],
        "current-context": "test",
    }


def _schema(group: str) -> Object:
    """Say that the server itself finds misspelt fields, so that kubectl does not try to."""
    parameter = {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}
    version = group.removeprefix("apis/").split("/")
    paths = {}
    for (of, resource), kind in KINDS.items():
        if of == group:
            named = {"group": "/".join(version[:-1]), "version": version[-1], "kind": kind}
            patch = {
                "parameters": [parameter],
                "responses": {},
                "x-kubernetes-action": "patch",
                "x-kubernetes-group-version-kind": named,
            }
            paths[f"/{group}/namespaces/{{namespace}}/{resource}/{{name}}"] = {"patch": patch}
    return {"openapi": "3.0.0", "info": {"title": "test", "version": "1"}, "paths": paths}


def _group(path: str) -> Object:
    name, version = path.removeprefix("apis/").split("/")
    versions = [{"groupVersion": f"{name}/{version}", "version": version}]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def _is_selected(each: Object, query: dict[str, str]) -> bool:
    labels = each["metadata"].get("labels", {})
    wanted = [part.split("=") for part in query.get("labelSelector", "").split(",") if part]
    name = query.get("fieldSelector", "").removeprefix("metadata.name=")
    matches = all(labels.get(label) == value for label, value in wanted)
    return matches and name in {"", each["metadata"]["name"]}
