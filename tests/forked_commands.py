"""The command `ragstone` without its start: processes forked from one that has imported everything.

The documentation runs some two hundred commands, each of which would spend a second on imports.
Run as a program, this is the process that forks; `forked_commands` starts it, and gives a folder
for PATH whose `ragstone` has it fork once, and stands in for what was forked until that ends.
"""

from __future__ import annotations

import array
import gc
import importlib
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PACKAGES = ("service", "training", "retrieval", "evals", "monitoring", "infra")
STANDS_IN = """#!{python} -IS
import array, json, os, signal, socket, sys
order = {{"words": sys.argv[1:], "folder": os.getcwd(), "variables": dict(os.environ)}}
text = json.dumps(order).encode()
nursery = socket.socket(socket.AF_UNIX)
nursery.connect({address!r})
files = array.array("i", [0, 1, 2]).tobytes()
nursery.sendmsg([len(text).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, files)])
nursery.sendall(text)
heard = nursery.makefile()
child = int(heard.readline())
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: os.kill(child, number))
code = int(heard.readline())
if code < 0:
    signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@contextmanager
def forked_commands(folder: Path) -> Iterator[Path]:
    """Give a folder that holds a program `ragstone`."""
    address = str(folder / "nursery")
    programs = folder / "programs"
    programs.mkdir()
    program = programs / "ragstone"
    program.write_text(STANDS_IN.format(python=sys.executable, address=address), encoding="utf-8")
    program.chmod(0o755)
    nursery = subprocess.Popen(
        [sys.executable, "-W", "default", str(Path(__file__)), address],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert nursery.stdout is not None
    try:
        assert nursery.stdout.readline() == "ready\n", "it did not start"
        yield programs
    finally:
        nursery.stdout.close()
        nursery.kill()
        nursery.wait()


def _serve(address: str) -> None:
    """Fork for each order; only processes that were forked return."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(address)
    listening.listen()
    print("ready", flush=True)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        asked, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _keep(asked)
        asked.close()


def _keep(asked: socket.socket) -> None:
    """Fork the command, and tell how it ended; only the command returns."""
    size, files = _received(asked)
    order = json.loads(asked.recv(size, socket.MSG_WAITALL))
    child = os.fork()
    if child == 0:
        asked.close()
        _become(order, files)
        return
    for file in (*files, 0, 1, 2):
        os.close(file)
    asked.sendall(f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    asked.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _received(asked: socket.socket) -> tuple[int, list[int]]:
    files = array.array("i")
    data, control, _, _ = asked.recvmsg(4, socket.CMSG_SPACE(3 * files.itemsize))
    for _, _, held in control:
        files.frombytes(held)
    return int.from_bytes(data, "big"), list(files)


def _become(order: dict[str, Any], files: list[int]) -> None:
    for place, file in enumerate(files):
        os.dup2(file, place)
        os.close(file)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(
        2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False
    )
    os.chdir(order["folder"])
    os.environ.clear()
    os.environ.update(order["variables"])
    # A page may put modules of its own where Python looks first.
    sys.path[:0] = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.argv = ["ragstone", *order["words"]]


def _import_everything() -> None:
    import infra
    import retrieval
    import service

    for package in (infra, retrieval, service):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "migrations" not in module.name:
                try:
                    importlib.import_module(module.name)
                except ModuleNotFoundError as error:  # of an extra that is not installed
                    if str(error.name).partition(".")[0] in PACKAGES:
                        raise


if __name__ == "__main__":
    _import_everything()
    gc.freeze()
    _serve(sys.argv[1])
    from service.cli import main

    main()
