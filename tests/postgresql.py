"""Starts a real PostgreSQL on a loopback port for the length of a test session."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Unavailable(Exception):
    """There are no PostgreSQL server binaries on this machine."""


@contextmanager
def running_server() -> Iterator[str]:
    """Yield the URL of a fresh server, without a database name; removed at the end."""
    binaries = _binaries()
    folder = Path(tempfile.mkdtemp(prefix="ragstone-postgresql-"))
    port = _free_port()
    account = _account()
    if account:
        shutil.chown(folder, account)

    def run(*command: str) -> None:
        subprocess.run(
            command,
            check=True,
            user=account,
            group=account and pwd.getpwnam(account).pw_gid,
            extra_groups=[] if account else None,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        )

    data = str(folder / "data")
    try:
        run(f"{binaries}/initdb", "-D", data, "-U", "ragstone", "-A", "trust", "-E", "UTF8", "-N")
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c max_connections=200"
        options += f" -c unix_socket_directories={folder}"
        run(f"{binaries}/pg_ctl", "-D", data, "-w", "-l", f"{data}/log", "-o", options, "start")
        yield f"postgresql+psycopg://ragstone@127.0.0.1:{port}"
        run(f"{binaries}/pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _binaries() -> str:
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/pg_ctl"))
    path = found[-1] if found else shutil.which("pg_ctl")
    if path is None:
        raise Unavailable("no pg_ctl: install PostgreSQL to run these tests")
    return str(Path(path).resolve().parent)


def _account() -> str | None:
    """The server refuses to run as root; the account its package made is used instead."""
    return "postgres" if os.geteuid() == 0 else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
