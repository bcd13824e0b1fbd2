"""A real Slurm of two nodes on this machine, for the length of a test session."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

NODES = ("one", "two")
PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun", "scancel", "scontrol", "squeue")
START_SECONDS = 30.0
FREE_SECONDS = 15.0
"""That jobs have to end in by themselves."""
CONFIGURATION = """
ClusterName=ragstone
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill,UsePss
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerNode=300
MpiDefault=none
ReturnToService=2
SwitchType=switch/none
KillWait=2
InactiveLimit=0
SlurmctldTimeout=30
SlurmdTimeout=30
SlurmdParameters=config_overrides
PartitionName=main Nodes={names} Default=YES State=UP MaxTime=INFINITE
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=4000\n"


class Unavailable(Exception):
    """Slurm cannot be run here."""


@dataclass
class Cluster:
    configuration: Path
    nodes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    def call(self, *command: str) -> str:
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=30
        )
        return done.stdout + done.stderr

    def free(self) -> None:
        """Take the nodes from jobs that a test left, also from one that Slurm does not end.

        On a busy machine a step may not die; a node that goes down and comes back forgets it.
        """
        self.call("scancel", "--me")
        if not self.is_idle_within(FREE_SECONDS):
            nodes = f"NodeName={','.join(NODES)}"
            self.call("scontrol", "update", nodes, "State=DOWN", "Reason=stuck")
            self.call("scontrol", "update", nodes, "State=RESUME")
            self.is_idle_within(FREE_SECONDS)

    def is_idle_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.call("sinfo", "--noheader", "--format=%D %t").split() != ["2", "idle"]:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
        return True


@contextlib.contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Yield a cluster whose nodes are idle; everything of it is removed at the end."""
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        raise Unavailable(f"no {missing[0]}: install slurmctld, slurmd, slurm-client and munge")
    if os.geteuid() != 0:
        raise Unavailable("only root can run a Slurm of its own here")
    folder = Path(tempfile.mkdtemp(prefix="ragstone-slurm-"))
    folder.chmod(0o755)
    started: list[subprocess.Popen[bytes]] = []
    try:
        cluster = _start(folder, started)
        yield cluster
    finally:
        for process in reversed(started):
            _end(process)
        _end_orphans(str(folder))
        shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path, started: list[subprocess.Popen[bytes]]) -> Cluster:
    ports = _free_ports(1 + len(NODES))
    configuration = folder / "slurm.conf"
    text = CONFIGURATION.format(controller=ports[0], folder=folder, names=",".join(NODES))
    host = socket.gethostname()
    for name, port in zip(NODES, ports[1:], strict=True):
        text += NODE.format(name=name, host=host, port=port)
        (folder / f"spool-{name}").mkdir()
    configuration.write_text(text)
    environment = {**os.environ, "SLURM_CONF": str(configuration)}
    cluster = Cluster(configuration, environment=environment)

    def run(*command: str, account: str | None = None) -> subprocess.Popen[bytes]:
        with (folder / f"{Path(command[0]).name}.out").open("ab") as output:
            process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                user=account,
                group=account and pwd.getpwnam(account).pw_gid,
                extra_groups=[] if account else None,
                start_new_session=True,
            )
        started.append(process)
        return process

    _start_munge(folder, run)
    (folder / "state").mkdir()
    run("slurmctld", "-D", "-c", "-f", str(configuration))
    for name in NODES:
        cluster.nodes[name] = run("slurmd", "-D", "-N", name, "-f", str(configuration))
    if not cluster.is_idle_within(START_SECONDS):
        said = cluster.call("sinfo") + (folder / "slurmctld.log").read_text()[-2000:]
        raise Unavailable(f"Slurm did not start here: {said}")
    return cluster


def _start_munge(folder: Path, run: object) -> None:
    """Start the service that vouches for accounts, as an account that has few rights."""
    place = folder / "munge"
    place.mkdir(mode=0o755)
    key = place / "key"
    key.write_bytes(secrets.token_bytes(128))
    key.chmod(0o600)
    account = "munge" if _exists("munge") else None
    if account:
        for path in (place, key):
            shutil.chown(path, account, account)
    socket_path = folder / "munge.socket"
    if account:  # the socket lies where the service may create it
        socket_path.symlink_to(place / "socket")
    else:
        place.mkdir(exist_ok=True)
    run(  # type: ignore[operator]
        "munged",
        "--foreground",
        "--force",
        f"--socket={place / 'socket'}",
        f"--key-file={key}",
        f"--log-file={place / 'log'}",
        f"--pid-file={place / 'pid'}",
        f"--seed-file={place / 'seed'}",
        account=account,
    )
    deadline = time.monotonic() + START_SECONDS
    while not (place / "socket").exists():
        if time.monotonic() > deadline:
            raise Unavailable("munged did not start here")
        time.sleep(0.02)


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(5)


def _end_orphans(folder: str) -> None:
    """Kill the steps that outlived their node's daemon, and their programs."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            names = [process.environ().get("SLURM_CONF", "")]
            names += [each.path for each in process.open_files()]  # a step hides its environment
            if any(name.startswith(folder) for name in names):
                process.kill()


def _exists(account: str) -> bool:
    try:
        pwd.getpwnam(account)
    except KeyError:
        return False
    return True


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
