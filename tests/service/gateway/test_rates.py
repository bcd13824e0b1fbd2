"""Limits in exact numbers, and the laws of buckets under any traffic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.errors import InvalidRequest, RateLimited, TooLarge
from service.callers import Limits
from service.gateway.buckets import MINUTE, SECOND, Bucket, format_duration
from service.gateway.rates import Gate, Rates


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def gate_of(rates: Rates, **limits: int) -> Gate:
    return rates.gate("key", "key_1", shown="ci", limits=Limits(**limits))


def test_a_minute_of_requests_passes_at_once_and_then_one_at_a_time(clock: Clock) -> None:
    rates = Rates(clock)
    gates = (gate_of(rates, requests_per_minute=3),)
    for _ in range(3):
        rates.check(gates, 0)
        rates.take(gates, 0)
    with pytest.raises(RateLimited, match=r"'ci' may send 3 requests .* in 20s") as refused:
        rates.check(gates, 0)
    assert refused.value.retry_after_seconds == 20
    clock.now = 20 * SECOND - 1
    with pytest.raises(RateLimited):
        rates.check(gates, 0)
    clock.now = 20 * SECOND
    rates.check(gates, 0)


def test_unused_tokens_come_back(clock: Clock) -> None:
    rates = Rates(clock)
    gates = (gate_of(rates, tokens_per_minute=100),)
    rates.check(gates, 100)
    taken = rates.take(gates, 100)
    with pytest.raises(RateLimited):
        rates.check(gates, 1)
    rates.release(taken, used_tokens=40)
    rates.check(gates, 60)
    with pytest.raises(RateLimited):
        rates.check(gates, 61)


def test_tokens_beyond_the_reservation_are_counted_too(clock: Clock) -> None:
    rates = Rates(clock)
    gates = (gate_of(rates, tokens_per_minute=60),)
    rates.release(rates.take(gates, 10), used_tokens=120)
    clock.now = MINUTE
    with pytest.raises(RateLimited, match="1s"):
        rates.check(gates, 1)
    clock.now += SECOND
    rates.check(gates, 1)


def test_more_tokens_than_a_minute_has_are_too_many_for_ever(clock: Clock) -> None:
    rates = Rates(clock)
    with pytest.raises(TooLarge, match="lower max_tokens"):
        rates.check([gate_of(rates, tokens_per_minute=10)], 11)


def test_calls_at_once_are_counted_until_they_end(clock: Clock) -> None:
    rates = Rates(clock)
    gates = (gate_of(rates, max_concurrent=2),)
    first = rates.take(gates, 0)
    rates.take(gates, 0)
    with pytest.raises(RateLimited, match="2 calls under way, 2 are allowed"):
        rates.check(gates, 0)
    rates.undo(first)
    rates.check(gates, 0)


def test_headers_read_as_openai_writes_them(clock: Clock) -> None:
    rates = Rates(clock)
    gates = (gate_of(rates, requests_per_minute=60, tokens_per_minute=1000),)
    rates.take(gates, 100)
    assert rates.headers(gates) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "900",
        "x-ratelimit-reset-tokens": "6s",
    }


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ms"),
        (17 * 10**6, "17ms"),
        (SECOND, "1s"),
        (8_640 * 10**6, "8.64s"),
        (360 * SECOND, "6m0s"),
        (3_723 * SECOND, "1h2m3s"),
    ],
)
def test_times_read_as_openai_writes_them(nanoseconds: int, text: str) -> None:
    assert format_duration(nanoseconds) == text


@pytest.mark.parametrize("value", [0, -1, 10**12 + 1])
def test_absurd_limits_are_refused(value: int) -> None:
    with pytest.raises(InvalidRequest, match="between 1 and"):
        Limits(requests_per_minute=value)


def test_a_limit_that_changes_keeps_what_was_used(clock: Clock) -> None:
    rates = Rates(clock)
    gates = (gate_of(rates, requests_per_minute=2),)
    rates.take(gates, 0)
    rates.take(gates, 0)
    gates = (gate_of(rates, requests_per_minute=3),)
    rates.check(gates, 0)
    rates.take(gates, 0)
    with pytest.raises(RateLimited):
        rates.check(gates, 0)


def test_gates_that_hold_nothing_are_forgotten(clock: Clock) -> None:
    rates = Rates(clock)
    taken = rates.take((gate_of(rates, requests_per_minute=60, max_concurrent=1),), 0)
    rates.forget_idle()
    assert len(rates) == 1
    rates.release(taken, used_tokens=0)
    clock.now = SECOND
    rates.forget_idle()
    assert len(rates) == 0


STEPS = st.lists(
    st.tuples(
        st.integers(min_value=-(5 * SECOND), max_value=90 * SECOND),  # clocks step back, too
        st.integers(min_value=1, max_value=20),  # reserved
        st.integers(min_value=0, max_value=20),  # of that, used
        st.integers(min_value=0, max_value=6),  # steps until it ends
    ),
    max_size=60,
)


@given(limit=st.integers(min_value=1, max_value=20), steps=STEPS)
def test_no_traffic_passes_more_than_a_bucket_that_knew_the_future(
    limit: int, steps: list[tuple[int, int, int, int]]
) -> None:
    """What is reserved and given back never lets through more than charging the use at once."""
    bucket, known = Bucket(limit), Bucket(limit)
    now = 0
    ending: list[tuple[int, int, int]] = []  # step, unused, taken at
    passed: list[tuple[int, int]] = []
    for number, (elapsed, reserved, share, length) in enumerate(steps):
        now += elapsed
        for each_bucket in (bucket, known):
            each_bucket.drain(now)
        for each in [each for each in ending if each[0] <= number]:
            ending.remove(each)
            bucket.give_back(each[1], taken_at=each[2], now=now)
        if reserved <= limit and bucket.wait(reserved, now) == 0:
            used = min(reserved, share)
            assert known.wait(used, now) == 0
            bucket.take(reserved)
            known.take(used)
            passed.append((max(now, bucket.at), used))
            ending.append((number + length, reserved - used, now))
        assert bucket.level >= known.level
        assert 0 <= bucket.remaining(now) <= limit
    for first, (start, _) in enumerate(passed):
        total = 0
        for at, used in passed[first:]:
            total += used
            assert total * MINUTE <= limit * MINUTE + limit * max(0, at - start)


@given(
    limit=st.integers(min_value=1, max_value=10**12),
    amount=st.integers(min_value=0, max_value=10**12),
    level=st.integers(min_value=0, max_value=10**12),
)
def test_what_a_client_is_told_to_wait_is_enough_and_no_more(
    limit: int, amount: int, level: int
) -> None:
    amount, level = min(amount, limit), min(level, limit)
    bucket = Bucket(limit, level=level * MINUTE)
    wait = bucket.wait(amount, 0)
    if wait:
        assert bucket.wait(amount, wait - 1) > 0
    assert bucket.wait(amount, wait) == 0
