"""Judges' servers: retried while there is time, held to a deadline, and told what went wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from evals.judges.question import Question, Reply
from infra.errors import EngineFailed, EngineTimedOut, InvalidConfiguration, Overloaded
from judge_server import JudgeServer, judging
from service.evaluation.judge_servers import ATTEMPTS, JudgeServers

QUESTION = Question("m", [{"role": "user", "content": "Hello?"}], {"type": "object"})


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with judging() as found:
        found.says = "{}"
        yield found


class Asked:
    """Asks once, and remembers how long it would have waited."""

    def __init__(self) -> None:
        self.waited: list[float] = []
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.waited.append(seconds)
        self.now += seconds

    def __call__(
        self,
        question: Question,
        times: int = 1,
        *,
        loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
    ) -> Reply:
        async def ask() -> Reply:
            servers = JudgeServers(clock=self.clock, sleep=self.sleep)
            try:
                for _ in range(times - 1):
                    await servers(question)
                return await servers(question)
            finally:
                await servers.close()

        with asyncio.Runner(loop_factory=loop) as runner:
            return runner.run(ask())


def at(server: JudgeServer, **changes: Any) -> Question:
    return replace(QUESTION, url=server.url, **changes)


def test_address_is_that_of_an_engine_and_may_end_with_the_version(server: JudgeServer) -> None:
    assert Asked()(at(server)) == Reply("{}", "", "stop")
    root = server.url.removesuffix("/v1")
    assert Asked()(replace(QUESTION, url=f"{root}/")).text == "{}"
    assert server.paths == ["/v1/chat/completions"] * 2
    assert server.asked[0] == QUESTION.body()


def test_address_and_key_come_from_the_environment(
    server: JudgeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_URL", server.url)
    monkeypatch.setenv("JUDGE_API_KEY", "sk-of-the-judge")
    assert Asked()(QUESTION, times=2).text == "{}"
    headers = [{name.lower(): value for name, value in each.items()} for each in server.headers]
    assert [each["authorization"] for each in headers] == ["Bearer sk-of-the-judge"] * 2


def test_judge_without_an_address_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_URL", raising=False)
    with pytest.raises(InvalidConfiguration, match="set JUDGE_URL or the metric's `url`"):
        Asked()(QUESTION)


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_server_that_is_busy_or_fails_is_asked_again(status: int, server: JudgeServer) -> None:
    server.failures = [(status, {}), (status, {})]
    asked = Asked()
    assert asked(at(server)).text == "{}"
    assert len(server.asked) == 3
    assert len(asked.waited) == 2
    assert asked.waited[0] < asked.waited[1]


@pytest.mark.parametrize("status", [429, 503])
def test_server_that_says_when_is_asked_then(status: int, server: JudgeServer) -> None:
    server.failures = [(status, {"retry-after": "7"})]
    asked = Asked()
    assert asked(at(server)).text == "{}"
    assert asked.waited == [7.0]


def test_server_that_is_free_after_the_deadline_is_not_waited_for(server: JudgeServer) -> None:
    server.failures = [(429, {"retry-after": "30"})]
    asked = Asked()
    with pytest.raises(Overloaded, match="answered 429"):
        asked(at(server, timeout_seconds=20.0))
    assert asked.waited == []
    assert len(server.asked) == 1


def test_server_that_stays_down_is_asked_a_few_times(server: JudgeServer) -> None:
    server.status = 503
    with pytest.raises(EngineFailed, match="answered 503"):
        Asked()(at(server))
    assert len(server.asked) == ATTEMPTS


def test_retries_of_all_calls_share_a_budget(server: JudgeServer) -> None:
    server.status = 500
    asked = Asked()

    async def ask_many() -> list[BaseException | Reply]:
        servers = JudgeServers(clock=lambda: 0.0, sleep=asked.sleep)
        try:
            calls = [servers(at(server, seed=seed)) for seed in range(20)]
            return await asyncio.gather(*calls, return_exceptions=True)
        finally:
            await servers.close()

    found = asyncio.run(ask_many())
    assert all(isinstance(each, EngineFailed) for each in found)
    assert len(server.asked) == 20 + 10  # not 20 times five


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_refused_request_is_not_repeated(status: int, server: JudgeServer) -> None:
    server.status = status
    with pytest.raises(EngineFailed, match=f"answered {status}"):
        Asked()(at(server))
    assert len(server.asked) == 1


def test_judge_that_does_not_answer_in_time_is_given_up(server: JudgeServer) -> None:
    server.seconds = 3.0
    started = time.monotonic()
    with pytest.raises(EngineTimedOut, match="did not answer within 0.2 s"):
        Asked()(at(server, timeout_seconds=0.2))
    assert time.monotonic() - started < 2


def test_server_that_takes_no_connection_in_time_is_asked_again(server: JudgeServer) -> None:
    class Deaf(asyncio.SelectorEventLoop):
        silent = 2

        async def create_connection(self, *given: Any, **how: Any) -> Any:
            self.silent -= 1
            if self.silent >= 0:  # what the system says of a host that is silent
                raise TimeoutError("timed out")
            return await super().create_connection(*given, **how)

    asked = Asked()
    assert asked(at(server), loop=Deaf).text == "{}"
    assert len(asked.waited) == 2


def test_server_that_is_not_there_is_told(server: JudgeServer) -> None:
    with pytest.raises(EngineFailed, match="cannot be asked"):
        Asked()(replace(QUESTION, url="http://127.0.0.1:9"))


def test_reply_of_megabytes_is_not_read_to_its_end(server: JudgeServer) -> None:
    server.says = "x" * (3 << 20)
    with pytest.raises(EngineFailed, match="exceeds 1,048,576 bytes"):
        Asked()(at(server))


@pytest.mark.parametrize(
    "body", [b"", b"hello", b"[]", b'{"choices": []}', b'{"choices": [{}]}', b'{"choices": [1]}']
)
def test_what_is_no_chat_completion_is_told(body: bytes, server: JudgeServer) -> None:
    server.body = body
    with pytest.raises(EngineFailed, match="no chat completion"):
        Asked()(at(server))


def test_content_that_is_no_text_is_none(server: JudgeServer) -> None:
    server.message = {"content": [{"type": "text", "text": "5"}], "refusal": 7}
    assert Asked()(at(server)) == Reply("", "", "stop")
