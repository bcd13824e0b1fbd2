"""Fixtures of the gateway's tests: model servers that misbehave."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

import model_server
from model_server import Behaviour, Misbehaving


@pytest.fixture
def serve() -> Iterator[Callable[..., Misbehaving]]:
    """Start model servers; they are stopped at the end of the test."""
    with ExitStack() as stack:

        def start(behaviour: Behaviour = model_server.well, *, name: str = "tiny") -> Misbehaving:
            return stack.enter_context(model_server.serving(behaviour=behaviour, name=name))

        yield start
