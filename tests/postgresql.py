"""Starts a real PostgreSQL on a loopback port for the length of a test session."""

from __future__ import annotations

import glob
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import NullPool, create_engine, text


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
        # Tests kill our processes, never this one: nothing here has to outlive a power cut.
        options += " -c fsync=off -c full_page_writes=off"
        options += f" -c unix_socket_directories={folder}"
        run(f"{binaries}/pg_ctl", "-D", data, "-w", "-l", f"{data}/log", "-o", options, "start")
        yield f"postgresql+psycopg://ragstone@127.0.0.1:{port}"
        run(f"{binaries}/pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def create(server: str, *, template: str = "template0") -> str:
    """Create a database, a copy of `template`; return its URL."""
    name = f"test_{uuid.uuid4().hex}"
    _administer(server, f"CREATE DATABASE {name} TEMPLATE {template}")
    return f"{server}/{name}"


def drop(url: str) -> None:
    server, _, name = url.rpartition("/")
    _administer(server, f"DROP DATABASE {name} WITH (FORCE)")


def _administer(server: str, statement: str) -> None:
    engine = create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT", poolclass=NullPool)
    with engine.connect() as connection:
        connection.execute(text(statement))


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
