"""Specifications: what is refused, and what makes two of them equal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import InvalidConfiguration, InvalidRequest
from training.launchers import Spec, _limits, _ranks, _runs, handle_for, open_launcher
from training.launching import read_spec


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"command": ()}, "command"),
        ({"command": ("",)}, "command"),
        ({"command": "rm -rf /"}, "command"),
        ({"command": ("a\0b",)}, "command"),
        ({"folder": "relative"}, "folder"),
        ({"name": "has a space"}, "name"),
        ({"name": "-begins-so"}, "name"),
        ({"environment": {"NOT-A-NAME": "1"}}, "environment"),
        ({"environment": {"A": "\0"}}, "environment"),
        ({"secrets": ("A=B",)}, "environment"),
        ({"environment": {"A": "1"}, "secrets": ("A",)}, "secrets"),
        ({"nodes": 0}, "nodes"),
        ({"processes_per_node": 0}, "processes_per_node"),
        ({"cpus": 0}, "cpus"),
        ({"gpus": -1}, "gpus"),
        ({"memory_bytes": -1}, "memory_bytes"),
        ({"time_limit_seconds": 0}, "time_limit_seconds"),
        ({"grace_seconds": -1}, "grace_seconds"),
    ],
)
def test_impossible_value_is_refused_by_name(fields: dict[str, Any], parameter: str) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        Spec(**{"command": ("true",), "folder": "/", **fields})
    assert refusal.value.parameter == parameter


def test_specifications_are_equal_by_what_they_say() -> None:
    first = Spec(("a",), "/", environment={"A": "1", "B": "2"})
    second = Spec(("a",), "/", environment={"B": "2", "A": "1"})
    assert first.digest == second.digest
    assert first.digest != Spec(("a",), "/", environment={"A": "1", "B": "3"}).digest


def test_what_comes_from_outside_is_read_or_refused_by_name() -> None:
    spec = read_spec({"command": ["python", "train.py"], "folder": "/srv/train", "gpus": 2})
    assert spec == Spec(("python", "train.py"), "/srv/train", gpus=2)
    with pytest.raises(InvalidRequest, match="no 'gpu'; it has command"):
        read_spec({"command": ["a"], "folder": "/", "gpu": 1})
    with pytest.raises(InvalidRequest, match="folder: Field required"):
        read_spec({"command": ["a"]})
    with pytest.raises(InvalidRequest, match="nodes: Input should be a valid integer"):
        read_spec({"command": ["a"], "folder": "/", "nodes": "many"})


def test_launchers_are_chosen_by_name() -> None:
    with pytest.raises(InvalidConfiguration, match="kubernetes, local, ray, slurm"):
        open_launcher("lokal")


@given(st.text(min_size=1), st.text(min_size=1))
def test_keys_have_handles_of_their_own(first: str, second: str) -> None:
    handles = {handle_for("local", first), handle_for("local", second)}
    assert len(handles) == len({first, second})
    for handle in handles:
        assert handle == f"local:{_runs.id_of(handle, launcher='local')}"


@given(st.text(), st.integers(min_value=0, max_value=10))
def test_log_cut_anywhere_is_put_together_again(text: str, size: int) -> None:
    data, offset, pieces = text.encode(), 0, []
    while offset < len(data):
        piece, taken = _runs.whole_characters(data[offset : offset + size + 4])
        pieces.append(piece)
        offset += taken
    assert "".join(pieces) == text


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (7, 7), (128, 128), (137, -9), (255, 255)])
def test_exit_codes_of_shells_become_signals(code: int, expected: int) -> None:
    assert _runs.signed(code) == expected


def test_time_was_over_if_timeout_says_so_or_the_kill_came_after_the_limit() -> None:
    assert _limits.was_reached(10, code=124, seconds=10)
    assert _limits.was_reached(10, code=-9, seconds=12)
    assert not _limits.was_reached(10, code=-9, seconds=3)
    assert not _limits.was_reached(10, code=1, seconds=12)


def test_several_processes_are_started_by_torchrun_and_one_is_not() -> None:
    one = Spec(("python", "train.py"), "/")
    assert _ranks.on_one_node(one, torchrun=["torchrun"]) == ["python", "train.py"]
    four = Spec(("python", "$train.py"), "/", processes_per_node=4)
    assert _ranks.on_one_node(four, torchrun=["torchrun"]) == [
        *("torchrun", "--standalone", "--nproc-per-node", "4", "--no-python"),
        *("python", "$$train.py"),  # it takes $ for the beginning of a name of its own
    ]
    with pytest.raises(InvalidRequest, match="2 nodes"):
        _ranks.on_one_node(Spec(("a",), "/", nodes=2), torchrun=["torchrun"])
