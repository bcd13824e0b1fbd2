"""The official `openai` SDK against this service in front of a real vLLM, call by call."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest

from running_server import RunningServer, start
from vllm_server import MODEL, VllmServer
from waiting import until

ROUTE = "assistant"
HELLO: list[Any] = [{"role": "user", "content": "Hello, who are you?"}]
WEATHER: dict[str, Any] = {
    "name": "weather",
    "strict": True,
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Rome", "Oslo"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
PERSON = {
    "type": "object",
    "properties": {"grade": {"type": "string", "enum": ["low", "high"]}},
    "required": ["grade"],
    "additionalProperties": False,
}
FAR_BEFORE_ITS_END_SECONDS = 3.0
"""Whoever is not stopped goes on for some twenty. Being stopped takes less than 0.2 as a rule, but
not surely on a machine whose cores run other tests as well."""


@pytest.fixture(scope="module")
def service(
    vllm_server: VllmServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """This service with two routes to vLLM: a plain one, and one where few can run at a time."""
    route = {"targets": [{"upstream": "cpu", "model": MODEL}], "retries": 0, "context_tokens": 2048}
    narrow = {"targets": [{"upstream": "narrow", "model": MODEL}], "retries": 0}
    upstream = {"urls": [vllm_server.url], "api_key": vllm_server.key}
    running = start(
        tmp_path_factory.mktemp("models"),
        RAGSTONE_GATEWAY__UPSTREAMS=json.dumps(
            {"cpu": upstream, "narrow": {**upstream, "max_running": 1}}
        ),
        RAGSTONE_GATEWAY__ROUTES=json.dumps({ROUTE: route, "narrow": narrow}),
    )
    running.wait_until_ready()
    yield running
    running.stop()


@pytest.fixture
def client(service: RunningServer, vllm_beside: VllmServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_route_is_a_model(client: openai.OpenAI) -> None:
    assert ROUTE in [model.id for model in client.models.list()]
    assert client.models.retrieve(ROUTE).id == ROUTE


def test_a_chat_is_answered_with_its_usage(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=ROUTE, messages=HELLO, max_completion_tokens=12, temperature=0
    )
    assert answer.model == ROUTE
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12
    assert answer.usage.prompt_tokens > 0


def test_a_stream_says_the_same_as_the_plain_answer(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": ROUTE, "messages": HELLO, "max_tokens": 20, "seed": 7}
    plain = client.chat.completions.create(**asked, temperature=0)
    chunks = list(client.chat.completions.create(**asked, temperature=0, stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == plain.choices[0].message.content
    assert {chunk.model for chunk in chunks} == {ROUTE}
    assert all(chunk.usage is None for chunk in chunks), "nobody asked for it"


def test_a_stream_ends_with_its_usage_where_it_is_asked_for(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model=ROUTE,
            messages=HELLO,
            max_tokens=9,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 9


def test_the_same_seed_gives_the_same_text(client: openai.OpenAI) -> None:
    texts = {
        client.chat.completions.create(
            model=ROUTE, messages=HELLO, max_tokens=16, temperature=1, seed=seed
        )
        .choices[0]
        .message.content
        for seed in (3, 3, 3)
    }
    assert len(texts) == 1


def test_several_turns_are_read(client: openai.OpenAI) -> None:
    short = client.chat.completions.create(model=ROUTE, messages=HELLO, max_tokens=1)
    turns = [*HELLO, {"role": "assistant", "content": "A stone."}, *HELLO]
    longer = client.chat.completions.create(model=ROUTE, messages=turns, max_tokens=1)
    assert longer.usage is not None
    assert short.usage is not None
    assert longer.usage.prompt_tokens > short.usage.prompt_tokens


def test_logprobs_come_through(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=ROUTE, messages=HELLO, max_tokens=3, logprobs=True, top_logprobs=2
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [len(token.top_logprobs) for token in logprobs.content] == [2, 2, 2]


def test_a_schema_is_kept_to(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=ROUTE,
        messages=HELLO,
        max_tokens=60,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "person", "schema": PERSON, "strict": True},
        },
    )
    assert json.loads(answer.choices[0].message.content or "")["grade"] in {"low", "high"}


def test_a_function_is_called(client: openai.OpenAI) -> None:
    # Random weights may write white space until there is no room for more: then again.
    for seed in range(15):
        answer = client.chat.completions.create(
            model=ROUTE,
            messages=HELLO,
            seed=seed,
            temperature=1,
            max_tokens=1000,
            tools=[{"type": "function", "function": WEATHER}],  # type: ignore[list-item]
            tool_choice={"type": "function", "function": {"name": "weather"}},
        )
        if calls := answer.choices[0].message.tool_calls:
            break
    assert calls is not None
    assert calls[0].type == "function"
    assert json.loads(calls[0].function.arguments)["city"] in {"Rome", "Oslo"}


def test_plain_completions_too(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=ROUTE, prompt="Once upon", max_tokens=5, echo=True)
    assert answer.choices[0].text.startswith("Once upon")
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    chunks = list(client.completions.create(model=ROUTE, prompt="Once", max_tokens=5, stream=True))
    assert chunks[-1].choices[0].finish_reason == "length"


def test_a_response_is_written_streamed_and_gone_on_from(client: openai.OpenAI) -> None:
    first = client.responses.create(model=ROUTE, input="Hello", max_output_tokens=8, temperature=0)
    assert first.status == "incomplete"
    assert first.output_text
    assert first.usage is not None
    assert first.usage.output_tokens == 8
    with client.responses.stream(
        model=ROUTE, input="And then?", previous_response_id=first.id, max_output_tokens=8
    ) as stream:
        end = list(stream)[-1]
    assert end.type == "response.incomplete"
    last = end.response
    assert last.usage is not None
    assert last.usage.input_tokens > first.usage.input_tokens
    assert client.responses.retrieve(last.id).output_text == last.output_text
    client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(first.id)


def test_a_response_calls_a_function(client: openai.OpenAI) -> None:
    # Random weights may write white space until there is no room for more: then again.
    for _ in range(15):
        response = client.responses.create(
            model=ROUTE,
            input="Hello",
            max_output_tokens=1000,
            tools=[{"type": "function", **WEATHER}],  # type: ignore[list-item]
            tool_choice={"type": "function", "name": "weather"},
        )
        if response.status == "completed":
            break
    (call,) = [item for item in response.output if item.type == "function_call"]
    assert json.loads(call.arguments)["city"] in {"Rome", "Oslo"}
    again = client.responses.create(
        model=ROUTE,
        previous_response_id=response.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "rain"}],
        max_output_tokens=5,
    )
    assert again.output_text


def test_a_response_keeps_to_a_schema(client: openai.OpenAI) -> None:
    response = client.responses.create(
        model=ROUTE,
        input="Hello",
        max_output_tokens=60,
        text={"format": {"type": "json_schema", "name": "person", "schema": PERSON}},
    )
    assert json.loads(response.output_text)["grade"] in {"low", "high"}


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"model": "missing"}, openai.NotFoundError),
        ({"temperature": -1}, openai.BadRequestError),
        ({"max_tokens": 0}, openai.BadRequestError),
        ({"max_tokens": 1_000_000}, openai.BadRequestError),
        ({"messages": []}, openai.BadRequestError),
        ({"messages": [{"role": "nobody", "content": "Hi"}]}, openai.BadRequestError),
        ({"messages": [{"role": "user"}]}, openai.BadRequestError),
        ({"messages": [{"role": "user", "content": "word " * 5000}]}, openai.BadRequestError),
        ({"tools": "none"}, openai.BadRequestError),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_impossible_is_refused_in_openai_s_shape(
    client: openai.OpenAI, change: dict[str, Any], error: type[openai.APIStatusError], stream: bool
) -> None:
    asked = {"model": ROUTE, "messages": HELLO, "max_tokens": 5, **change, "stream": stream}
    with pytest.raises(error) as refused:
        client.chat.completions.create(**asked)
    body = refused.value.body
    assert isinstance(body, dict)
    assert {"message", "type", "param", "code"} <= body.keys()
    assert refused.value.response.headers["x-request-id"]


def test_an_answer_over_documents_is_written_by_the_model(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="rain")
    text = " ".join(f"Rule {n}: when it rains, the roof is closed by hand." for n in range(200))
    file = client.files.create(file=("rules.txt", text.encode()), purpose="assistants")
    client.vector_stores.files.create_and_poll(file.id, vector_store_id=store.id)
    answer = client.chat.completions.create(
        model="rag/rain",
        messages=[{"role": "user", "content": "What happens when it rains?"}],
        max_tokens=20,
        extra_body={"generator": ROUTE},
    )
    assert answer.usage is not None
    # The model's own count: passages were left out until prompt and answer fit its context.
    assert 500 < answer.usage.prompt_tokens <= 2048 - 20
    assert 0 < answer.usage.completion_tokens <= 20
    found = client.responses.create(
        model=ROUTE,
        input="What happens when it rains?",
        max_output_tokens=20,
        tools=[{"type": "file_search", "vector_store_ids": [store.id], "max_num_results": 1}],
    )
    assert [item.type for item in found.output][0] == "file_search_call"
    assert found.usage is not None
    assert found.usage.input_tokens > 100


def long_chat(model: str, *, stream: bool) -> dict[str, Any]:
    return {
        "model": model,
        "messages": HELLO,
        "max_tokens": 1900,
        "temperature": 1,
        "stream": stream,
        "ignore_eos": True,
    }


def leave_when(url: str, body: dict[str, Any], is_time: Callable[[int], bool]) -> bool:
    """Send a request and drop the connection as soon as `is_time(bytes so far)`.

    Returns:
        Whether it was still under way then.
    """

    async def ask() -> bool:
        async with httpx.AsyncClient(timeout=60) as client:
            request = asyncio.create_task(receive(client))
            # In a thread: asking vLLM how it is must not keep this loop from reading.
            while not await asyncio.to_thread(is_time, received):
                if request.done():
                    await request
                    return False
                await asyncio.sleep(0.005)
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
            return True

    received = 0

    async def receive(client: httpx.AsyncClient) -> None:
        nonlocal received
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
            assert answer.status_code == 200, await answer.aread()
            async for piece in answer.aiter_raw():
                received += len(piece)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("stream", "bytes_first"),
    [(True, 3000), (True, 0), (False, 0)],
    ids=["decode", "begin", "plain"],
)
def test_who_leaves_stops_the_work(
    service: RunningServer, vllm_alone: VllmServer, stream: bool, bytes_first: int
) -> None:
    vllm_alone.seconds_until(lambda server: server.running() == 0)
    body = {**long_chat(ROUTE, stream=stream), "n": 4}

    def is_time(received: int) -> bool:
        # Of a model that writes fast, vLLM tells late how it is; what has arrived tells at once.
        return received >= bytes_first if bytes_first else vllm_alone.running() > 0

    # Where vLLM tells too late that it writes, the answer may be over before its caller leaves.
    until(lambda: leave_when(service.url, body, is_time))
    seconds = vllm_alone.seconds_until(lambda server: server.running() == 0)
    assert seconds < FAR_BEFORE_ITS_END_SECONDS


def test_who_leaves_the_queue_never_reaches_the_model(
    service: RunningServer, vllm_alone: VllmServer
) -> None:
    # On a busy machine the first may be over before the second has left.
    until(lambda: _second_leaves_while_the_first_is_answered(service, vllm_alone))


def _second_leaves_while_the_first_is_answered(service: RunningServer, vllm: VllmServer) -> bool:
    vllm.seconds_until(lambda server: server.running() == 0)
    before = vllm.gauge("vllm:prompt_tokens_total")
    has_first_begun, has_second_left = threading.Event(), threading.Event()
    were_under_way: list[bool] = []

    def is_time(received: int) -> bool:
        if received:
            has_first_begun.set()
        return has_second_left.is_set()

    def ask_first() -> None:
        body = {**long_chat("narrow", stream=True), "n": 16}
        were_under_way.append(leave_when(service.url, body, is_time))

    first = threading.Thread(target=ask_first)
    first.start()
    assert has_first_begun.wait(120)
    started = time.monotonic()
    many_words = [{"role": "user", "content": "word " * 600}]
    were_under_way.append(
        leave_when(
            service.url,
            {**long_chat("narrow", stream=False), "messages": many_words, "max_tokens": 100},
            lambda _received: time.monotonic() > started + 0.3,
        )
    )
    has_second_left.set()
    first.join()
    vllm.seconds_until(lambda server: server.running() == 0)
    if not all(were_under_way):
        return False
    assert vllm.gauge("vllm:prompt_tokens_total") - before < 600
    return True


def test_metrics_tell_of_the_calls(service: RunningServer, client: openai.OpenAI) -> None:
    client.chat.completions.create(model=ROUTE, messages=HELLO, max_tokens=3)
    text = httpx.get(f"{service.url}/metrics").text
    assert f'ragstone_model_calls_total{{model="{ROUTE}",status="200",tag="live"' in text
    assert 'ragstone_replica_breaker_state{replica="' in text
