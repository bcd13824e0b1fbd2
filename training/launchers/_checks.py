"""What a specification may say."""

from __future__ import annotations

import re

from infra.errors import InvalidRequest
from training.launchers import Spec

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check(spec: Spec) -> None:
    """See that a specification is possible.

    Raises:
        InvalidRequest: it is not; the message names the value.
    """
    _command(spec)
    _environment(spec)
    _amounts(spec)


def _command(spec: Spec) -> None:
    if not isinstance(spec.command, tuple):  # a text would be taken letter by letter
        raise InvalidRequest(
            f"The command {spec.command!r} is not a tuple of texts", parameter="command"
        )
    if not spec.command or not spec.command[0]:
        raise InvalidRequest("The command is empty; name a program", parameter="command")
    if any("\0" in part for part in (*spec.command, spec.folder)):
        raise InvalidRequest("A command and its folder cannot hold NUL", parameter="command")
    if not spec.folder.startswith("/"):
        raise InvalidRequest(
            f"The folder {spec.folder!r} is not an absolute path", parameter="folder"
        )
    if not NAME.fullmatch(spec.name):
        raise InvalidRequest(
            f"The name {spec.name!r} is not 1 to 63 letters, digits, '.', '_' or '-'",
            parameter="name",
        )


def _environment(spec: Spec) -> None:
    for variable in (*spec.environment, *spec.secrets):
        if not VARIABLE.fullmatch(variable):
            raise InvalidRequest(
                f"{variable!r} cannot name an environment variable", parameter="environment"
            )
    if any("\0" in value for value in spec.environment.values()):
        raise InvalidRequest("A variable's value cannot hold NUL", parameter="environment")
    if both := sorted(set(spec.environment) & set(spec.secrets)):
        raise InvalidRequest(
            f"{both[0]!r} is both in `environment` and in `secrets`", parameter="secrets"
        )


def _amounts(spec: Spec) -> None:
    amounts = {
        "nodes": (spec.nodes, 1),
        "processes_per_node": (spec.processes_per_node, 1),
        "cpus": (spec.cpus, 1),
        "gpus": (spec.gpus, 0),
        "memory_bytes": (spec.memory_bytes, 0),
        "grace_seconds": (spec.grace_seconds, 0),
    }
    for parameter, (amount, least) in amounts.items():
        if amount < least:
            raise InvalidRequest(
                f"{parameter} is {amount!r}; at least {least} is needed", parameter=parameter
            )
    if spec.time_limit_seconds is not None and spec.time_limit_seconds <= 0:
        raise InvalidRequest(
            f"time_limit_seconds is {spec.time_limit_seconds!r}; give a positive number, or None",
            parameter="time_limit_seconds",
        )
