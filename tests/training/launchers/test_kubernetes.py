"""Manifests against their schemas, and kubectl against a small API with pods that run."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.errors import InvalidConfiguration, InvalidRequest, NotReady
from kubernetes_api import KUBECTL, running_cluster
from kubernetes_cluster import Cluster
from training.launchers import Handle, Launcher, Spec, Status, _manifests, handle_for, open_launcher
from training.launchers._manifests import Place
from waiting import until

Ended = Callable[[Launcher, Handle], Status]
OWNER = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "run-1", "uid": "0-1"},
}
LARGE = Spec(
    ("python", "train.py", "--rate", "$(RATE)"),
    "/srv/train",
    name="tune.",
    environment={"A": "$(B) $$"},
    secrets=("TOKEN",),
    nodes=2,
    processes_per_node=8,
    gpus=8,
    cpus=16,
    memory_bytes=64 * 2**30,
    time_limit_seconds=3600.5,
)
SMALL = Spec(("true",), "/")
PLACES = {
    "bare": Place("image:1"),
    "full": Place(
        "registry.example.org/train@sha256:00",
        volumes={"/data": "datasets", "/out": "results"},
        service_account="trainer",
        node_selector={"pool": "gpu"},
        keep_seconds=86_400,
    ),
}


def shell(folder: Path, script: str, **fields: Any) -> Spec:
    return Spec(("sh", "-c", script), str(folder), **{"grace_seconds": 1.0, **fields})


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("spec", [SMALL, LARGE], ids=["small", "large"])
def test_manifests_hold_against_the_schemas(spec: Spec, place: str, tmp_path: Path) -> None:
    manifests = [
        _manifests.run(spec, "run-1", PLACES[place]),
        *_manifests.companions(spec, OWNER, PLACES[place], secrets={"TOKEN": "t"}),
    ]
    assert [each["kind"] for each in manifests] == [
        *("Job", "Secret"),
        *(["Service"] if spec.nodes > 1 else []),
    ]
    assert _validated(manifests, tmp_path) == ""


def test_misspelt_field_does_not_hold_against_the_schemas(tmp_path: Path) -> None:
    manifest = _manifests.run(SMALL, "run-1", PLACES["bare"])
    manifest["spec"]["backofLimit"] = manifest["spec"].pop("backoffLimit")
    assert "backofLimit" in _validated([manifest], tmp_path)


def _validated(manifests: list[dict[str, Any]], folder: Path) -> str:
    """Return what the validator complains of."""
    paths = []
    for number, manifest in enumerate(manifests):
        paths.append(folder / f"{number}.json")
        paths[-1].write_text(json.dumps(manifest))
    validator = Path(sys.executable).parent / "kubernetes-validate"
    done = subprocess.run(
        [validator, "--strict", "-k", "1.34", *paths], capture_output=True, text=True, timeout=120
    )
    said = done.stdout + done.stderr
    assert all(path.name in said for path in paths), said
    return "" if done.returncode == 0 else said


@pytest.mark.parametrize("spec", [SMALL, LARGE], ids=["small", "large"])
def test_train_job_holds_against_the_models_of_kubeflow(spec: Spec) -> None:
    models = pytest.importorskip("kubeflow_trainer_api.models", reason="no kubeflow-trainer-api")
    manifest = _manifests.run(spec, "run-1", Place("image:1", kind="TrainJob"))
    model = models.TrainerV1alpha1TrainJob
    assert model.from_dict(copy.deepcopy(manifest)).to_dict() == manifest
    manifest["spec"]["trainer"]["numNode"] = 2
    assert model.from_dict(copy.deepcopy(manifest)).to_dict() != manifest


def test_train_job_leaves_pods_to_its_runtime() -> None:
    with pytest.raises(InvalidConfiguration, match="training runtime 'torch-distributed'"):
        Place("image:1", kind="TrainJob", volumes={"/data": "datasets"})
    with pytest.raises(InvalidConfiguration, match="'CronJob'"):
        open_launcher("kubernetes", image="image:1", kind="CronJob")
    with pytest.raises(InvalidConfiguration, match="'volume'"):
        open_launcher("kubernetes", image="image:1", volume={})


def test_secret_stands_in_the_secret_alone() -> None:
    run = _manifests.run(LARGE, "run-1", PLACES["full"])
    assert run["spec"]["suspend"] is True
    secret, service = _manifests.companions(
        LARGE, OWNER, PLACES["full"], secrets={"TOKEN": "open sesame"}
    )
    assert secret["data"] == {"TOKEN": "b3BlbiBzZXNhbWU="}
    assert "sesame" not in json.dumps([run, service])
    owners = [each["metadata"]["ownerReferences"][0]["uid"] for each in (secret, service)]
    assert owners == ["0-1", "0-1"]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[Cluster, str]]:
    if KUBECTL is None:
        pytest.skip("no kubectl on the PATH")
    with running_cluster(tmp_path) as running:
        yield running


@pytest.fixture
def launcher(cluster: tuple[Cluster, str]) -> Launcher:
    return open_launcher("kubernetes", image="image:1", kubeconfig=cluster[1])


def test_nodes_know_their_rank_and_where_they_meet(
    launcher: Launcher, cluster: tuple[Cluster, str], tmp_path: Path, ended: Ended
) -> None:
    script = 'echo "$RANK of $WORLD_SIZE at $MASTER_ADDR" > "rank-$RANK"; echo "I am $RANK"'
    handle = launcher.submit(shell(tmp_path, script, nodes=2), key="ranks")
    assert ended(launcher, handle).exit_code == 0
    name = handle.partition(":")[2]
    assert [(tmp_path / f"rank-{number}").read_text() for number in range(2)] == [
        f"{number} of 2 at {name}-0.{name}\n" for number in range(2)
    ]
    assert launcher.logs(handle).text == "I am 0\n"
    service = cluster[0].objects["services", name]
    assert service["spec"]["clusterIP"] == "None"


def test_run_of_two_nodes_fails_with_the_first_that_does(
    launcher: Launcher, tmp_path: Path, ended: Ended
) -> None:
    script = 'if [ "$RANK" = 1 ]; then echo "no memory card" >&2; exit 3; fi; sleep 600'
    handle = launcher.submit(shell(tmp_path, script, nodes=2), key="one of two")
    status = ended(launcher, handle)
    assert (status.state, status.exit_code, status.reason) == ("failed", 3, "exit")
    assert status.message == "no memory card"


def test_train_job_is_launched_watched_and_cancelled(
    cluster: tuple[Cluster, str], tmp_path: Path, ended: Ended
) -> None:
    launcher = open_launcher(
        "kubernetes",
        image="image:1",
        kubeconfig=cluster[1],
        kind="TrainJob",
        torchrun=("sh", "-c", 'shift; exec "$@"', "torchrun"),
    )
    script = "pwd; printenv PET_NODE_RANK PET_NNODES"
    handle = launcher.submit(shell(tmp_path, script, nodes=2), key="well")
    assert ended(launcher, handle).exit_code == 0
    assert launcher.logs(handle).text == f"{tmp_path}\n0\n2\n"
    failing = launcher.submit(shell(tmp_path, "exit 5"), key="badly")
    assert ended(launcher, failing).exit_code == 5
    endless = launcher.submit(shell(tmp_path, "sleep 600"), key="endless")
    until(lambda: launcher.poll(endless).state == "running")
    launcher.cancel(endless, grace_seconds=1)
    assert launcher.poll(endless).reason == "cancelled"


def test_submission_that_died_half_way_is_completed(
    launcher: Launcher,
    cluster: tuple[Cluster, str],
    tmp_path: Path,
    ended: Ended,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TOKEN", "arrived")
    spec = shell(tmp_path, 'echo "$TOKEN"; echo once >> count', secrets=("TOKEN",))
    run_id = handle_for("kubernetes", "half way").partition(":")[2]
    # What a launcher that died after its first request leaves: a Job that waits.
    cluster[0].create("jobs", _manifests.run(spec, run_id, Place("image:1")))
    monkeypatch.setattr(
        "training.launchers.kubernetes.handle_for", lambda *_: f"kubernetes:{run_id}"
    )
    handle = launcher.submit(spec, key="half way")
    assert launcher.submit(spec, key="half way") == handle
    assert ended(launcher, handle).exit_code == 0
    assert launcher.logs(handle).text == "arrived\n"
    assert (tmp_path / "count").read_text() == "once\n"


def test_cancelled_run_is_not_launched_again_by_its_key(launcher: Launcher, tmp_path: Path) -> None:
    spec = shell(tmp_path, "echo once >> count; sleep 600")
    handle = launcher.submit(spec, key="cancelled")
    until((tmp_path / "count").exists)
    launcher.cancel(handle, grace_seconds=1)
    assert launcher.submit(spec, key="cancelled") == handle
    assert launcher.poll(handle).reason == "cancelled"
    assert (tmp_path / "count").read_text() == "once\n"


def test_deleted_run_is_lost(
    launcher: Launcher, cluster: tuple[Cluster, str], tmp_path: Path, ended: Ended
) -> None:
    handle = launcher.submit(shell(tmp_path, "true"), key="deleted")
    assert ended(launcher, handle).state == "succeeded"
    cluster[0].delete(("jobs", handle.partition(":")[2]), None)
    assert launcher.poll(handle).reason == "lost"


@pytest.mark.parametrize(
    ("pod", "reason"),
    [
        ({"reason": "Evicted"}, "lost"),
        ({"conditions": [{"type": "DisruptionTarget", "status": "True"}]}, "lost"),
        ({}, "lost"),
        ({"reason": "DeadlineExceeded"}, "timeout"),
    ],
)
def test_what_kubernetes_did_to_a_pod_is_told(
    launcher: Launcher,
    cluster: tuple[Cluster, str],
    tmp_path: Path,
    pod: dict[str, Any],
    reason: str,
) -> None:
    handle = launcher.submit(shell(tmp_path, "sleep 600"), key="evicted")
    cluster[0].freeze({"phase": "Failed", **pod})
    condition = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}
    cluster[0].objects["jobs", handle.partition(":")[2]]["status"]["conditions"] = [condition]
    status = launcher.poll(handle)
    assert (status.state, status.exit_code, status.reason) == ("failed", None, reason)


def test_what_a_pod_waits_for_is_told(
    launcher: Launcher, cluster: tuple[Cluster, str], tmp_path: Path
) -> None:
    handle = launcher.submit(shell(tmp_path, "sleep 600"), key="waits")
    waiting = {"reason": "ImagePullBackOff", "message": "no such image"}
    statuses = [{"name": "run", "state": {"waiting": waiting}}]
    cluster[0].freeze({"phase": "Pending", "containerStatuses": statuses})
    status = launcher.poll(handle)
    assert (status.state, status.message) == ("queued", "ImagePullBackOff no such image")


def test_cluster_that_does_not_answer_is_not_a_failed_run(
    launcher: Launcher, cluster: tuple[Cluster, str], tmp_path: Path, ended: Ended
) -> None:
    handle = launcher.submit(shell(tmp_path, "true"), key="down")
    cluster[0].down = True
    with pytest.raises(NotReady, match="does not answer"):
        launcher.poll(handle)
    cluster[0].down = False
    assert ended(launcher, handle).state == "succeeded"


def test_what_kubectl_cannot_do_is_explained(tmp_path: Path) -> None:
    spec = shell(tmp_path, "true")
    nowhere = open_launcher("kubernetes", image="image:1", kubectl="no-such-kubectl")
    with pytest.raises(InvalidConfiguration, match="'no-such-kubectl' is not on the PATH"):
        nowhere.submit(spec, key="nowhere")
    if KUBECTL is None:
        pytest.skip("no kubectl on the PATH")
    (tmp_path / "config").write_text('{"apiVersion": "v1", "kind": "Config"}')
    config = str(tmp_path / "config")
    lost = open_launcher("kubernetes", image="image:1", kubeconfig=config, context="elsewhere")
    with pytest.raises((InvalidConfiguration, InvalidRequest), match="elsewhere"):
        lost.submit(spec, key="elsewhere")
