"""The circuit breaker's states, on a clock of the test's own."""

from __future__ import annotations

from service.gateway.breaker import Breaker
from set_clock import Clock


def opened() -> tuple[Breaker, Clock]:
    clock = Clock()
    breaker = Breaker(failures=2, seconds=10, clock=clock)
    for _ in range(2):
        assert breaker.is_ready
        breaker.begin()
        breaker.fail()
    return breaker, clock


def test_failures_in_a_row_open_it() -> None:
    breaker, _ = opened()
    assert breaker.state == "open"
    assert not breaker.is_ready
    assert breaker.seconds_left == 10


def test_a_success_between_starts_the_count_again() -> None:
    breaker = Breaker(failures=2, seconds=10)
    for _ in range(5):
        breaker.fail()
        breaker.succeed()
    assert breaker.state == "closed"


def test_when_time_has_passed_one_call_tries() -> None:
    breaker, clock = opened()
    clock.now = 10
    assert breaker.state == "half_open"
    assert breaker.is_ready
    breaker.begin()
    assert not breaker.is_ready


def test_the_trial_decides() -> None:
    breaker, clock = opened()
    clock.now = 10
    breaker.begin()
    breaker.fail()
    assert breaker.state == "open"
    clock.now = 20
    breaker.begin()
    breaker.succeed()
    assert breaker.state == "closed"
    assert breaker.is_ready


def test_a_trial_whose_caller_left_decides_nothing() -> None:
    breaker, clock = opened()
    clock.now = 10
    breaker.begin()
    breaker.abandon()
    assert breaker.state == "half_open"
    assert breaker.is_ready


def test_a_probe_shortens_the_wait() -> None:
    breaker, _ = opened()
    breaker.half_open()
    assert breaker.state == "half_open"
    breaker.succeed()
    breaker.half_open()
    assert breaker.state == "closed"
