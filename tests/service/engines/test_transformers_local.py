"""A model in this process answers as a server does, batches what comes, and stops when told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from migrated import open_migrated

pytest.importorskip("transformers", reason="the extra 'transformers' is not installed")

from infra.artifacts.store import open_store
from infra.errors import EngineFailed, EngineTimedOut, InvalidConfiguration
from relayed import until
from service.engines import Reply, ServerContext
from service.engines.transformers_local import LocalServer, build_server
from service.gateway.adapter_hosts import InProcessHost
from service.gateway.adapters import Adapters, Pace, Place
from tiny_llm import CONTEXT, write_adapter, write_llm
from vllm_server import VllmServer, make_model

pytestmark = pytest.mark.anyio
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
UNFINISHED = "\N{REPLACEMENT CHARACTER}"
WORDS = ["When?", "Who built the tower, and of what?", "a", "Ravens " * 30, "名前は何ですか"]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("local") / "model")


@asynccontextmanager
async def opened(model: Path, **options: Any) -> AsyncIterator[LocalServer]:
    server = build_server(
        ServerContext("", options={"model": str(model), "served_name": "tiny", **options})
    )
    try:
        yield server
    finally:
        await server.close()


async def ask(server: LocalServer, path: str = COMPLETIONS, **body: Any) -> tuple[int, Any]:
    reply = await server.send(
        path, json.dumps({"model": "tiny", **body}).encode(), headers={}, timeout_seconds=60
    )
    return reply.status, await read(reply)


async def read(reply: Reply) -> Any:
    body = b"".join([piece async for piece in reply.pieces()])
    if reply.headers["content-type"].startswith("text/event-stream"):
        events = body.decode().split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    return json.loads(body)


async def told(server: LocalServer, prompt: str, **body: Any) -> str:
    status, answer = await ask(server, prompt=prompt, **body)
    assert status == 200, answer
    return str(answer["choices"][0]["text"])


async def test_side_by_side_says_what_each_says_alone(model: Path) -> None:
    limits = [40, 7, 25, 60, 13]
    async with opened(model, max_running=3) as server:

        async def tell(number: int) -> str:
            return await told(
                server, WORDS[number], max_tokens=limits[number], temperature=0, ignore_eos=True
            )

        alone = [await tell(number) for number in range(5)]
        steps = server.worker.steps
        together = await asyncio.gather(*(tell(number) for number in range(5)))
        assert together == alone
        assert server.worker.steps - steps < sum(limits)
        assert len(set(alone)) == 5


async def test_greedy_text_is_that_of_transformers(model: Path) -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    network = transformers.AutoModelForCausalLM.from_pretrained(model)
    prompt = tokenizer("Who built it?", return_tensors="pt")
    written = network.generate(**prompt, max_new_tokens=20, do_sample=False)[0]
    expected = tokenizer.decode(written[prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    async with opened(model) as server:
        text = await told(server, "Who built it?", max_tokens=20, temperature=0)
    # What a random model writes is not always UTF-8, and then depends on where it is cut.
    assert text.replace(UNFINISHED, "") == expected.replace(UNFINISHED, "")


async def test_greedy_text_and_logprobs_are_those_of_vllm(
    model: Path, vllm_beside: VllmServer
) -> None:
    body = {
        "prompt": "Who built it?", "max_tokens": 12, "temperature": 0, "ignore_eos": True,
        "logprobs": 2,
    }  # fmt: skip
    theirs = vllm_beside.post(COMPLETIONS, {"model": vllm_beside.model, **body})["choices"][0]
    async with opened(model) as server:
        _, answer = await ask(server, **body)
    ours = answer["choices"][0]
    assert ours["text"].replace(UNFINISHED, "") == theirs["text"].replace(UNFINISHED, "")
    assert ours["logprobs"]["token_logprobs"] == pytest.approx(
        theirs["logprobs"]["token_logprobs"], abs=1e-3
    )


async def test_stream_joined_is_the_whole_answer(model: Path) -> None:
    body = {"messages": [{"role": "user", "content": "Who?"}], "seed": 5, "max_tokens": 30}
    async with opened(model) as server:
        _, whole = await ask(server, CHAT, **body)
        _, events = await ask(
            server, CHAT, **body, stream=True, stream_options={"include_usage": True}
        )
    choices = [event["choices"][0] for event in events if event["choices"]]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    assert text == whole["choices"][0]["message"]["content"]
    reasons = [choice["finish_reason"] for choice in choices]
    assert reasons[-1] == whole["choices"][0]["finish_reason"]
    assert set(reasons[:-1]) == {None}
    assert events[-1]["usage"] == whole["usage"]
    assert {event["object"] for event in events} == {"chat.completion.chunk"}


async def test_seed_makes_it_say_the_same_and_another_seed_something_else(model: Path) -> None:
    async with opened(model) as server:
        body = {"max_tokens": 30, "temperature": 2, "ignore_eos": True}
        texts = [await told(server, "Who?", seed=seed, **body) for seed in (1, 1, 2)]
        noise = asyncio.gather(*(told(server, word, max_tokens=30) for word in WORDS))
        beside = await told(server, "Who?", seed=1, **body)
        await noise
    assert texts[0] == texts[1] == beside
    assert texts[0] != texts[2]


@pytest.mark.parametrize("stream", [False, True])
async def test_stop_text_ends_the_answer_and_is_not_told(model: Path, stream: bool) -> None:
    async with opened(model) as server:
        body: dict[str, Any] = {"max_tokens": 60, "temperature": 0, "ignore_eos": True}
        full = await told(server, "Who built it?", **body)
        stop = full[7:10]
        _, answer = await ask(server, prompt="Who built it?", stop=[stop], stream=stream, **body)
    choices = [event["choices"][0] for event in (answer if stream else [answer])]
    assert "".join(choice["text"] for choice in choices) == full[: full.index(stop)]
    assert choices[-1]["finish_reason"] == "stop"


async def test_usage_counts_tokens_and_max_tokens_holds(model: Path) -> None:
    async with opened(model) as server:
        _, answer = await ask(server, prompt=[70, 71, 72], max_tokens=9, ignore_eos=True)
    assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 9, "total_tokens": 12}
    assert answer["choices"][0]["finish_reason"] == "length"


async def test_logprobs_of_a_chat_name_the_alternatives(model: Path) -> None:
    async with opened(model) as server:
        _, answer = await ask(
            server, CHAT, messages=[{"role": "user", "content": "Who?"}], max_tokens=4,
            temperature=0, logprobs=True, top_logprobs=3,
        )  # fmt: skip
    for entry in answer["choices"][0]["logprobs"]["content"]:
        assert len(entry["top_logprobs"]) == 3
        assert entry["top_logprobs"][0]["logprob"] == entry["logprob"] <= 0
        assert bytes(entry["bytes"]).decode() == entry["token"]


@pytest.mark.parametrize(
    ("changes", "only"),
    [
        ({"top_k": 1}, True),
        ({"top_p": 1e-6}, True),
        ({"min_p": 1.0}, True),
        ({"temperature": 0}, True),
        ({}, False),
    ],
)
async def test_narrow_sampling_takes_the_likeliest(
    model: Path, changes: dict[str, Any], only: bool
) -> None:
    async with opened(model) as server:
        body = {"max_tokens": 20, "ignore_eos": True}
        likeliest = await told(server, "Who?", **body, temperature=0)
        text = await told(server, "Who?", **body, **{"temperature": 2, "seed": 3, **changes})
    assert (text == likeliest) == only


@pytest.mark.parametrize("temperature", [1e-40, 5e-324, 1e-9])
async def test_temperature_next_to_nothing_is_greedy(model: Path, temperature: float) -> None:
    async with opened(model) as server:
        greedy = await told(server, "Who?", max_tokens=8, temperature=0)
        assert await told(server, "Who?", max_tokens=8, temperature=temperature) == greedy


async def test_request_that_cannot_go_on_fails_alone(model: Path, tmp_path: Path) -> None:
    folder = write_adapter(tmp_path / "A", model, "A")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(_without_numbers(weights))
    async with opened(model) as server:
        await server.load("says@A", folder)
        plain = await told(server, "Who?", max_tokens=40, temperature=0, ignore_eos=True)
        asking = asyncio.create_task(
            told(server, "Who?", max_tokens=40, temperature=0, ignore_eos=True)
        )
        await until(lambda: server.worker.running == 1)
        for temperature in (0, 1):
            with pytest.raises(EngineFailed, match="no numbers"):
                await ask(server, prompt="Who?", model="says@A", temperature=temperature)
        assert await asking == plain


def _without_numbers(weights: Path) -> bytes:
    from safetensors.torch import load_file, save

    return save({name: tensor * float("nan") for name, tensor in load_file(weights).items()})


async def test_bias_and_penalties_change_what_is_said(model: Path) -> None:
    import transformers

    token = transformers.AutoTokenizer.from_pretrained(model).convert_tokens_to_ids("Z")
    async with opened(model) as server:
        body = {"max_tokens": 8, "temperature": 0, "ignore_eos": True}
        assert await told(server, "Who?", logit_bias={str(token): 100}, **body) == "Z" * 8
        longer = {**body, "max_tokens": 40, "logit_bias": {str(token): 30}}
        assert await told(server, "Who?", **longer) == "Z" * 40
        varied = await told(server, "Who?", frequency_penalty=2, **longer)
        assert varied.startswith("ZZ")
        assert varied != "Z" * 40


@pytest.mark.parametrize(
    ("path", "body", "status", "parameter"),
    [
        (COMPLETIONS, {"prompt": "a", "temperature": "hot"}, 400, "temperature"),
        (COMPLETIONS, {"prompt": "a", "temperature": 3}, 400, "temperature"),
        (COMPLETIONS, {"prompt": "a", "temperature": True}, 400, "temperature"),
        (COMPLETIONS, {"prompt": "a", "n": 2}, 400, "n"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": 0}, 400, "max_tokens"),
        (COMPLETIONS, {"prompt": "a", "max_tokens": CONTEXT}, 400, "prompt"),
        (COMPLETIONS, {"prompt": ""}, 400, "prompt"),
        (COMPLETIONS, {"prompt": ["a", "b"]}, 400, "prompt"),
        (COMPLETIONS, {"prompt": [10**6]}, 400, "prompt"),
        (COMPLETIONS, {}, 400, "prompt"),
        (COMPLETIONS, {"prompt": "a", "colour": "red"}, 400, "colour"),
        (COMPLETIONS, {"prompt": "a", "stop": [""]}, 400, "stop"),
        (COMPLETIONS, {"prompt": "a", "logit_bias": {"x": 1}}, 400, "logit_bias"),
        (COMPLETIONS, {"prompt": "a", "model": "gone"}, 404, "model"),
        (CHAT, {"messages": []}, 400, "messages"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400,
         "messages"),
        (CHAT, {"messages": [{"role": "user", "content": "a"}], "top_logprobs": 2}, 400,
         "top_logprobs"),
        (CHAT, {"messages": [{"role": "user", "content": "a"}], "tools": [{}]}, 400, "tools"),
        (CHAT, {"messages": [{"role": "user", "content": "a"}],
                "response_format": {"type": "json_object"}}, 400, "response_format"),
        ("/v1/embeddings", {"input": "a"}, 404, None),
    ],
)  # fmt: skip
async def test_what_cannot_be_honoured_is_refused(
    model: Path, path: str, body: dict[str, Any], status: int, parameter: str | None
) -> None:
    async with opened(model) as server:
        got, answer = await ask(server, path, **body)
    assert got == status
    assert answer["error"]["param"] == parameter
    assert answer["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff"])
async def test_body_that_is_no_object_is_refused(model: Path, body: bytes) -> None:
    async with opened(model) as server:
        reply = await server.send(CHAT, body, headers={}, timeout_seconds=60)
    assert reply.status == 400


async def test_what_asks_for_nothing_is_accepted(model: Path) -> None:
    async with opened(model) as server:
        status, answer = await ask(
            server, CHAT, messages=[{"role": "user", "content": [{"type": "text", "text": "a"}]}],
            n=1, tools=None, tool_choice="none", response_format={"type": "text"}, user="someone",
            max_completion_tokens=2,
        )  # fmt: skip
    assert status == 200, answer


async def test_cancelled_request_stops_the_work(model: Path) -> None:
    async with opened(model) as server:
        asking = asyncio.create_task(ask(server, prompt="Who?", max_tokens=2000, ignore_eos=True))
        await until(lambda: server.worker.running == 1)
        asking.cancel()
        await until(lambda: server.worker.running == 0)
        steps = server.worker.steps
        await asyncio.sleep(0.05)
        assert server.worker.steps == steps < 2000


@pytest.mark.parametrize("how", ["closed", "left"])
async def test_stream_that_is_given_up_stops_the_work(model: Path, how: str) -> None:
    async with opened(model) as server:
        body = {"model": "tiny", "prompt": "Who?", "max_tokens": 2000, "stream": True}
        reply = await server.send(
            COMPLETIONS, json.dumps(body | {"ignore_eos": True}).encode(), headers={},
            timeout_seconds=60,
        )  # fmt: skip
        pieces: Any = reply.pieces()
        await anext(pieces)
        await (reply.close() if how == "closed" else pieces.aclose())
        await until(lambda: server.worker.running == 0)
        assert server.worker.steps < 2000
        await pieces.aclose()


async def test_request_that_waits_can_be_cancelled(model: Path) -> None:
    async with opened(model, max_running=1) as server:
        first = asyncio.create_task(ask(server, prompt="a", max_tokens=1500, ignore_eos=True))
        await until(lambda: server.worker.running == 1)
        second = asyncio.create_task(ask(server, prompt="b", max_tokens=5))
        await until(lambda: server.worker.waiting == 1)
        second.cancel()
        first.cancel()
        assert len(await told(server, "c", max_tokens=5, ignore_eos=True)) >= 1


async def test_full_queue_is_refused_at_once(model: Path) -> None:
    async with opened(model, max_running=1, max_waiting=1) as server:
        tasks = [asyncio.create_task(ask(server, prompt="a", max_tokens=1500, ignore_eos=True))]
        await until(lambda: server.worker.running == 1)
        tasks.append(asyncio.create_task(ask(server, prompt="b", max_tokens=5)))
        await until(lambda: server.worker.waiting == 1)
        status, answer = await ask(server, prompt="c", max_tokens=5)
        assert (status, answer["error"]["code"]) == (429, "engine_overloaded")
        for task in tasks:
            task.cancel()


async def test_answer_that_does_not_begin_in_time_fails_and_is_not_worked_on(model: Path) -> None:
    async with opened(model, max_running=1) as server:
        await told(server, "a", max_tokens=1)
        with pytest.raises(EngineTimedOut, match="within 0.05 s"):
            await server.send(
                COMPLETIONS,
                b'{"model": "tiny", "prompt": "a", "max_tokens": 1900, "ignore_eos": true}',
                headers={}, timeout_seconds=0.05,
            )  # fmt: skip
        await until(lambda: server.worker.running == 0)


async def test_adapters_are_chosen_by_each_request(model: Path, tmp_path: Path) -> None:
    folders = {sign: write_adapter(tmp_path / sign, model, sign) for sign in "AB"}
    async with opened(model) as server:
        plain = await told(server, "Who?", max_tokens=6, temperature=0, ignore_eos=True)
        for sign, folder in folders.items():
            await server.load(f"says@{sign}", folder)

        async def tell(name: str) -> str:
            return await told(
                server, "Who?", model=name, max_tokens=6, temperature=0, ignore_eos=True
            )

        names = ["says@A", "tiny", "says@B", "tiny", "says@B", "says@A"]
        expected = {"tiny": plain, "says@A": "A" * 6, "says@B": "B" * 6}
        assert await asyncio.gather(*map(tell, names)) == [expected[name] for name in names]
        for name in ("says@A", "says@B"):
            await server.unload(name)
            status, _ = await ask(server, prompt="a", model=name)
            assert status == 404
            assert await tell("tiny") == plain
        await server.load("says@A", folders["A"])
        assert await tell("says@A") == "A" * 6


async def test_adapter_that_is_unloaded_finishes_what_it_has_begun(
    model: Path, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path / "A", model, "A")
    async with opened(model) as server:
        await server.load("says@A", folder)
        asking = asyncio.create_task(
            told(server, "Who?", model="says@A", max_tokens=300, temperature=0)
        )
        await until(lambda: server.worker.running == 1)
        await server.unload("says@A")
        assert await asking == "A" * 300


async def test_adapter_of_another_shape_is_refused_and_nothing_breaks(
    model: Path, tmp_path: Path
) -> None:
    folder = write_adapter(tmp_path / "A", model, "A")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"r": 2}))
    async with opened(model) as server:
        plain = await told(server, "Who?", max_tokens=6, temperature=0)
        with pytest.raises(EngineFailed, match="cannot be loaded"):
            await server.load("says@A", folder)
        assert await told(server, "Who?", max_tokens=6, temperature=0) == plain


@pytest.mark.filterwarnings("ignore:Found missing adapter keys")
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("renamed", "of its weights are missing, such as .*lora_A"),
        ("more", "1 of its weights fit nowhere, such as 'base_model.model.nowhere.lora_A.weight'"),
        ("of the base", "it replaces 'base_model.model.model.norm.weight', which its base shares"),
    ],
)
async def test_adapter_whose_weights_are_not_the_asked_ones_is_refused_and_nothing_breaks(
    model: Path, tmp_path: Path, fault: str, said: str
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = write_adapter(tmp_path / "A", model, "A")
    weights = folder / "adapter_model.safetensors"
    whole = weights.read_bytes()
    stored = load_file(weights)
    if fault == "renamed":
        stored = {name.replace("o_proj", "p_proj"): each for name, each in stored.items()}
    elif fault == "more":
        stored["base_model.model.nowhere.lora_A.weight"] = torch.ones(1, 4)
    else:
        stored["base_model.model.model.norm.weight"] = torch.full((64,), 7.0)
    save_file(stored, weights)
    async with opened(model) as server:
        plain = await told(server, "Who?", max_tokens=6, temperature=0)
        with pytest.raises(EngineFailed, match=said):
            await server.load("says@A", folder)
        assert await told(server, "Who?", max_tokens=6, temperature=0) == plain
        weights.write_bytes(whole)
        await server.load("says@A", folder)
        assert await told(server, "Who?", model="says@A", max_tokens=4, temperature=0) == "AAAA"


@pytest.mark.parametrize("damage", ["cut short", "no header"])
async def test_damaged_adapter_is_refused_and_the_model_answers_on(
    model: Path, tmp_path: Path, damage: str
) -> None:
    folder = write_adapter(tmp_path / "A", model, "A")
    weights = folder / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100] if damage == "cut short" else b"\xff" * 64)
    async with opened(model) as server:
        plain = await told(server, "Who?", max_tokens=6, temperature=0)
        with pytest.raises(EngineFailed, match="'says@A' cannot be loaded"):
            await server.load("says@A", folder)
        assert await told(server, "Who?", max_tokens=6, temperature=0) == plain
        weights.write_bytes(whole)
        await server.load("says@A", folder)
        assert await told(server, "Who?", model="says@A", max_tokens=4, temperature=0) == "AAAA"


async def test_adapter_that_fails_unexpectedly_leaves_the_model_alive(model: Path) -> None:
    def fail() -> None:
        raise LookupError("a fault of ours")

    async with opened(model) as server:
        await told(server, "Who?", max_tokens=1)
        with pytest.raises(EngineFailed, match="a fault of ours"):
            await asyncio.wrap_future(server.worker.load_adapter("says@A", fail))
        assert len(await told(server, "Who?", max_tokens=3, temperature=0, ignore_eos=True)) > 0


async def test_aliases_of_artifacts_are_followed_in_this_process_too(
    model: Path, tmp_path: Path
) -> None:
    database = open_migrated(tmp_path / "a.db")
    store = open_store(tmp_path / "store", database)
    reference = "adapter/support@production"
    async with opened(model) as server:
        places = {"tiny": Place(frozenset({reference}), [InProcessHost(server)])}
        adapters = Adapters(store, tmp_path / "out", places=lambda: places, pace=Pace(1.0, 0.0))
        for sign in "AB":
            found = store.put(write_adapter(tmp_path / sign, model, sign), "adapter/support")
            store.tag(str(found), "production")
            await adapters.refresh()
            lease = adapters.lease(reference, server.address)
            assert lease is not None, adapters.problem(reference, "tiny")
            text = await told(server, "Who?", model=lease.name, max_tokens=4, temperature=0)
            lease.release()
            assert text == sign * 4
        await adapters.refresh()
        assert len(await server.adapters()) == 1
    database.close()


async def test_model_that_is_not_there_fails_every_request_with_the_reason(tmp_path: Path) -> None:
    server = build_server(ServerContext("", options={"model": str(tmp_path / "gone")}))
    with pytest.raises(EngineFailed, match="cannot be loaded"):
        await server.send(COMPLETIONS, b'{"prompt": "a"}', headers={}, timeout_seconds=60)
    assert not await server.probe()
    await server.close()


@pytest.mark.parametrize("options", [{}, {"model": "m", "colour": 1}])
def test_options_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfiguration):
        build_server(ServerContext("", options=options))


def test_text_is_whole_characters_whatever_the_tokens(model: Path) -> None:
    import transformers

    from service.engines._local_text import Unfolding

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    for text in ["塔始建于 1078 年。", "🙂👩‍👩‍👧 naïve", "  two  spaces \n"]:
        tokens: Sequence[int] = tokenizer.encode(text)
        unfolding = Unfolding(tokenizer, ())
        pieces = [unfolding.push(token) for token in tokens]
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
        assert "".join(pieces) + unfolding.finish() == text


def test_weights_depend_on_the_seed_alone(tmp_path: Path) -> None:
    first, second = (write_llm(tmp_path / name) / "model.safetensors" for name in "ab")
    assert first.read_bytes() == second.read_bytes()
