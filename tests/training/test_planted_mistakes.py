"""Planted mistakes: each is refused by the plan with the key or the row it is at, all at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from training import spec
from training.accelerators import GIB, Machine
from training.compressing import PACKAGES
from training.planning import Places, Plan, plan
from training.problems import Refused
from tuning import MARKED, chat, pair, sums, write_base, write_rows, write_spec

ROWS = 40
GPU = Machine(1, 80 * GIB, 989.0, is_cpu=False, has_flash_attention=True)
SERVED = {"register": {"name": "sums"}}

Plant = Callable[[Path], dict[str, Any]]
"""Puts a mistake into a folder, and returns changes of the specification."""


@dataclass(frozen=True)
class Mistake:
    name: str
    plant: Plant
    where: str
    """What the problem must name."""
    words: str
    on_gpu: bool = False


def rows(*extra: dict[str, Any] | str, at: int = 7) -> Plant:
    """Plant rows from row `at` on, counted from 1."""

    def plant(folder: Path) -> dict[str, Any]:
        good = sums(ROWS)
        write_rows(folder / "train.jsonl", [*good[: at - 1], *extra, *good[at - 1 :]])
        return {}

    return plant


def keys(**changes: Any) -> Plant:
    return lambda _: {key.replace("__", "."): value for key, value in changes.items()}


def held_out(*more: dict[str, Any]) -> Plant:
    def plant(folder: Path) -> dict[str, Any]:
        write_rows(folder / "eval.jsonl", [*sums(10, start=500), *more])
        return {"data.eval": {"rows": "eval.jsonl"}}

    return plant


def template(text: str, key: str = "base.template") -> Plant:
    def plant(folder: Path) -> dict[str, Any]:
        (folder / "chat.jinja").write_text(text)
        return {key: "chat.jinja"}

    return plant


def vocabulary(folder: Path) -> dict[str, Any]:
    path = folder / "base" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "vocab_size": 100}))
    return {}


def opt(folder: Path) -> dict[str, Any]:
    sizes = {
        "model_type": "opt", "vocab_size": 384, "hidden_size": 16, "ffn_dim": 16,
        "word_embed_proj_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 1,
        "max_position_embeddings": 2048,
    }  # fmt: skip
    (folder / "base" / "config.json").write_text(json.dumps(sizes))
    return {"schedule.packing": True}


def same_question(folder: Path) -> dict[str, Any]:
    question = "What is the capital of the smallest country of all?"
    write_rows(folder / "train.jsonl", [*sums(ROWS), chat(question, "A town.")])
    return held_out(chat(question, "Nobody can say that."))(folder)


def near(folder: Path) -> dict[str, Any]:
    words = [f"word{n}" for n in range(40)]
    write_rows(folder / "train.jsonl", [*sums(ROWS), chat("Go on?", " ".join(words))])
    changes = held_out(chat("Go on?", " ".join([*words[:-1], "other"])))(folder)
    return {**changes, "data.max_length": 2048}


def mark(number: int, *, label: bool | None = None) -> dict[str, Any]:
    asked, answer = sums(1, start=number)[0]["messages"]
    good = number % 2 == 0 if label is None else label
    return {"prompt": [asked], "completion": [answer], "label": good}


def compared(
    method: str, *extra: dict[str, Any], label: bool | None = None, **changes: Any
) -> Plant:
    """Plant rows among those that a method compares."""

    def plant(folder: Path) -> dict[str, Any]:
        if method == "kto":
            good = [mark(n, label=label) for n in range(ROWS)]
        else:
            good = [pair(f"What is {n} plus {n}?", f"It is {2 * n}.", "No.") for n in range(ROWS)]
        write_rows(folder / "train.jsonl", [*good[:6], *extra, *good[6:]])
        return {"method.type": method, **changes}

    return plant


SWALLOWED = MARKED.replace("<|end|>{% endgeneration %}", "{% endgeneration %}<|end|>")
TWICE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{% if message['role'] == 'user' %}"
    "{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}{% else %}"
    "{{ message['content'] }}<|end|>{% endif %}{% endfor %}"
)
NO_MARKERS = MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "")
SPACED = MARKED.replace("<|{{ message['role'] }}|>", "<|{{ message['role'] }}|> ", 1)
WEIGHED = {
    "messages": [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Perhaps.", "weight": 0},
        *chat("Sure?", "Yes.")["messages"],
    ]
}
PICTURE = {
    "messages": [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}]},
        {"role": "assistant", "content": "A dog."},
    ]
}
CALL = {"id": "a", "type": "function", "function": {"name": "look_up", "arguments": "{}"}}
CALLED = {
    "messages": [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "assistant", "content": "One."},
    ]
}
ADALORA = {"type": "peft", "config": {"peft_type": "ADALORA", "total_step": 9}}
NF4 = {"method": "nf4"}
FLASH = {"base__attention": "flash_attention_2", "base__dtype": "bfloat16"}

MISTAKES = [
    # Rows
    Mistake("broken JSON", rows('{"messages": [}'), "data.train row 7", "not JSON"),
    Mistake("empty answer", rows(chat("One?", " ")), "data.train row 7", "message 2: an empty"),
    Mistake(
        "roles out of turn",
        rows({"messages": [*chat("a", "b")["messages"], chat("a", "b")["messages"][1]]}),
        "data.train row 7",
        "out of turn",
    ),
    Mistake(
        "a message not to be learned", rows(WEIGHED), "data.train row 7", "message 2: of weight 0"
    ),
    Mistake("a picture", rows(PICTURE), "data.train row 7", "message 1: a part of its content"),
    Mistake(
        "calls that the template leaves out",
        rows(CALLED),
        "data.train row 7",
        "what tools are called",
    ),
    Mistake("wrong columns", rows({"question": "a", "answer": "b"}), "row 7", "no 'messages'"),
    Mistake(
        "suites where nothing can ask them",
        keys(evaluate={"suites": [{"suite": "s.yaml", "metric": "m"}]}),
        "evaluate",
        "no suites can be asked",
    ),
    Mistake("canary", keys(**SERVED, serve={"canary": {}}), "serve.canary", "no traffic"),
    Mistake(
        "groups that divide no matrix",
        keys(compress={"scheme": "w4a16"}),
        "compress.group_size",
        "cannot be divided into groups of 128: it has 64 inputs",
    ),
    Mistake(
        "a model of rewards in eight bits",
        compared("reward", compress={}),
        "compress",
        "is not merged",
    ),
    Mistake(
        "sweep",
        keys(sweep={"parameters": {"seed": {"low": 1, "high": 2}}}),
        "sweep",
        "ragstone train sweep",
    ),
    Mistake(
        "a pair whose answers are one",
        compared("dpo", pair("One?", "Yes.", "Yes.")),
        "data.train row 7",
        "are the same",
    ),
    Mistake(
        "a pair whose answers differ beyond what is kept",
        compared(
            "dpo",
            pair("One?", f"{'so ' * 90}yes", f"{'so ' * 90}no"),
            **{"data.overflow": "truncate", "data.limits": {"max_truncated": 1.0}},
        ),
        "data.train row 7",
        "once cut to max_length",
    ),
    Mistake(
        "a pair preferred both ways",
        compared("reward", pair("What is 2 plus 2?", "No.", "It is 4.")),
        "data.train row 7",
        "an earlier row rejects",
    ),
    Mistake(
        "an answer marked as good and bad",
        compared("kto", {**mark(2), "label": False}),
        "data.train row 7",
        "as good",
    ),
    Mistake(
        "only good answers",
        compared("kto", label=True),
        "data.train",
        "marked as good; kto needs both",
    ),
    Mistake(
        "kto one row at once",
        compared("kto", **{"schedule.rows_per_device": 1}),
        "schedule.rows_per_device",
        "two rows at once",
    ),
    Mistake(
        "answers compared with dropout",
        compared("dpo", **{"method.adapter": {"type": "lora", "dropout": 0.1}}),
        "method.adapter.dropout",
        "set it to 0",
    ),
    Mistake(
        "an adapter that takes no second one beside it",
        compared("kto", **{"method.adapter": ADALORA}),
        "method.adapter.config",
        "kto puts a second adapter beside it",
    ),
    Mistake(
        "questions judged too",
        compared("dpo", **{"data.supervise": "all"}),
        "data.supervise",
        "judges answers",
    ),
    Mistake(
        "a head that a model of rewards has not",
        compared("reward", **{"method.adapter": {"type": "lora", "targets": ["lm_head"]}}),
        "method.adapter.targets",
        "has no 'lm_head'",
    ),
    Mistake(
        "a model of rewards to be served",
        compared("reward", **SERVED, serve={}),
        "serve",
        "answers nobody",
    ),
    Mistake(
        "pairs packed",
        compared("dpo", **{"schedule.packing": True}),
        "schedule.packing",
        "only sft packs",
    ),
    Mistake("rows of another method", keys(method__type="dpo"), "data.train rows 1", "dpo needs"),
    Mistake("empty split", lambda folder: _emptied(folder), "data.train", "no rows"),
    Mistake(
        "row too long", rows(chat("Why?", "so " * 200)), "data.train", "longer than max_length"
    ),
    Mistake(
        "rows cut until nothing is learned",
        lambda folder: {
            **rows(*[chat("why " * 60, "So.")] * 3)(folder),
            "data.overflow": "truncate",
            "data.limits": {"max_truncated": 1.0, "max_duplicates": 1.0},
        },
        "data.train",
        "nothing in them is learned",
    ),
    Mistake("control token in a text", rows(chat("Say <|end|> now", "No.")), "row 7", "<|end|>"),
    Mistake(
        "repeated rows", rows(*[sums(1)[0]] * 9), "data.train rows", "the same as earlier rows"
    ),
    Mistake("held-out row trained on", held_out(sums(1)[0]), "train row 1", "as data.eval row 11"),
    Mistake(
        "held-out row nearly trained on", near, f"train row {ROWS + 1}", "says nearly the same"
    ),
    Mistake("held-out question trained on", same_question, f"row {ROWS + 1}", "asks the same"),
    # Template and tokenizer
    Mistake("no generation markers", template(NO_MARKERS), "base.template", "{% generation %}"),
    Mistake("end token not trained", template(SWALLOWED), "data.train rows 1", "learn to stop"),
    Mistake("the user's words trained", template(TWICE), "data.train rows 1", "carries a loss"),
    Mistake(
        "server renders otherwise",
        template(SPACED, "data.serving_template"),
        "data.train rows 1",
        "at token 2, ",
    ),
    Mistake("tokenizer of another model", vocabulary, "base.model", "embeddings for 100"),
    Mistake(
        "module that is not there",
        keys(method__adapter={"type": "lora", "targets": ["q_prj"]}),
        "method.adapter.targets",
        "'q_prj'; it has",
    ),
    Mistake("longer than positions", keys(data__max_length=4096), "data.max_length", "2048"),
    # Configuration
    Mistake("packing what drops a mask", opt, "schedule.packing", "each other in a opt"),
    Mistake(
        "several packs that a mask makes one",
        keys(schedule__packing=True, schedule__rows_per_device=2),
        "schedule.rows_per_device",
        "2 packs at once",
    ),
    Mistake(
        "packing a base that is shared by a mask",
        keys(
            schedule__packing=True,
            base__attention="sdpa",
            parallelism={"devices_per_node": 2, "strategy": "fsdp2"},
        ),
        "schedule.packing",
        "strategy ddp alone",
        on_gpu=True,
    ),
    Mistake(
        "FlashAttention in float32",
        keys(**{**FLASH, "base__dtype": "float32"}),
        "base.dtype",
        "no float32",
        on_gpu=True,
    ),
    Mistake("quantised on a processor", keys(base__quantization=NF4), "base.quantization", "GPUs"),
    Mistake(
        "int8 weights in shards that nobody asked for",
        keys(
            base__quantization={"method": "int8"}, parallelism={"devices_per_node": 2, "shard": 2}
        ),
        "parallelism.strategy",
        "fsdp2 shards no int8 weights",
        on_gpu=True,
    ),
    Mistake(
        "DoRA on a sharded base",
        keys(
            method__adapter={"type": "lora", "dora": True},
            parallelism={"devices_per_node": 2, "strategy": "fsdp2"},
        ),
        "method.adapter.dora",
        "this one is sharded",
        on_gpu=True,
    ),
    Mistake(
        "preferences on a sharded base",
        compared("dpo", parallelism={"devices_per_node": 2, "strategy": "fsdp2"}),
        "method.type",
        "not tried on a sharded base",
        on_gpu=True,
    ),
    Mistake(
        "copies that are divided",
        keys(parallelism={"devices_per_node": 2, "strategy": "ddp", "shard": 2}),
        "parallelism.shard",
        "does not divide it by 2",
    ),
    Mistake(
        "fewer copies than devices",
        keys(parallelism={"devices_per_node": 2, "strategy": "ddp", "replicate": 1}),
        "parallelism.replicate",
        "for each of 2 devices",
    ),
    Mistake(
        "ZeRO-3",
        keys(parallelism={"devices_per_node": 2, "strategy": "zero3"}),
        "parallelism.strategy",
        "'zero3' is not trained: use fsdp2",
        on_gpu=True,
    ),
    Mistake(
        "shared matrices that are compiled",
        keys(parallelism={"devices_per_node": 2, "tensor": 2}, schedule__compile=True),
        "schedule.compile",
        "are not compiled",
        on_gpu=True,
    ),
    Mistake(
        "adapter that peft does not know",
        keys(method__adapter={"type": "peft", "config": {"peft_type": "NOPE"}}),
        "method.adapter",
        "nothing that peft takes",
    ),
    Mistake(
        "adapter that peft does not put on this base",
        keys(
            method__adapter={
                "type": "peft",
                "config": {"peft_type": "VERA", "target_modules": ["q_prj"]},
            }
        ),
        "method.adapter",
        "does not put it on this base",
    ),
    Mistake(
        "mesh that does not multiply out",
        keys(parallelism={"devices_per_node": 8, "replicate": 3, "shard": 2}),
        "parallelism:",
        "is 6, and 1 x 8 devices are 8",
        on_gpu=True,
    ),
    Mistake(
        "context with packing",
        keys(schedule__packing=True, parallelism={"devices_per_node": 2, "context": 2}),
        "parallelism.context",
        "cannot be packed",
        on_gpu=True,
    ),
    Mistake(
        "tensor parallel over more than heads",
        keys(parallelism={"devices_per_node": 2, "tensor": 2}),
        "parallelism.tensor",
        "2 devices cannot share 1 heads of keys",
        on_gpu=True,
    ),
    Mistake("pipeline", keys(parallelism={"pipeline": 2}), "parallelism.pipeline", "Megatron"),
    Mistake(
        "more GPUs than present",
        keys(parallelism={"devices_per_node": 8}),
        "parallelism.devices_per_node",
        "8 GPUs are asked for, 1 are here",
        on_gpu=True,
    ),
    Mistake(
        "nodes that are not there",
        keys(parallelism={"nodes": 2}),
        "parallelism.nodes",
        "one machine",
    ),
    Mistake(
        "step that is not shared by the ranks",
        keys(schedule={"rows_per_step": 3, "epochs": 1}, parallelism={"devices_per_node": 2}),
        "schedule.rows_per_step",
        "3 rows cannot be shared by 2",
        on_gpu=True,
    ),
    Mistake(
        "too large for the device",
        keys(runtime={"device": "cpu", "memory_gib": 0.001}),
        "schedule.rows_per_device",
        "GiB",
    ),
    # Serving, money
    Mistake(
        "rank over the server's",
        keys(**SERVED, serve={"max_rank": 2}),
        "method.adapter.r",
        "over the 2 that the server takes",
    ),
    Mistake(
        "DoRA to be served in this process",
        keys(
            **SERVED,
            serve={"engine": "transformers_local"},
            method__adapter={"type": "lora", "dora": True},
        ),
        "method.adapter.dora",
        "cannot host",
    ),
    Mistake(
        "DoRA to be served",
        keys(**SERVED, serve={}, method__adapter={"type": "lora", "dora": True}),
        "method.adapter.dora",
        "cannot host",
    ),
    Mistake(
        "another base served",
        keys(**SERVED, serve={"base_digest": f"sha256:{'0' * 64}"}),
        "serve.base_digest",
        "the server serves sha256:000",
    ),
    Mistake(
        "over the budget",
        keys(runtime={"budget": {"max_cost": 1e-9, "price_per_device_hour": 3.0}}),
        "runtime.budget.max_cost",
        "estimated to cost",
        on_gpu=True,
    ),
    # Names
    Mistake("missing base", keys(base__model="basis"), "base.model", "'basis'"),
    Mistake("model nobody fetched", keys(base__model="o/m@main"), "base.model", "cache of the hub"),
    Mistake("missing rows", keys(data__train={"rows": "t.jsonl"}), "data.train", "'t.jsonl'"),
    Mistake(
        "wrong base",
        keys(base__digest=f"sha256:{'0' * 64}"),
        "base.model",
        "not sha256:000",
    ),
    Mistake("missing template", keys(base__template="x.jinja"), "base.template", "x.jinja"),
    Mistake(
        "unknown accelerator",
        keys(runtime={"accelerator": "h1000"}),
        "runtime.accelerator",
        "'h1000'",
    ),
]


def _emptied(folder: Path) -> dict[str, Any]:
    write_rows(folder / "train.jsonl", [])
    return {}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    return write_base(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture
def folder(base: Path, tmp_path: Path) -> Path:
    shutil.copytree(base, tmp_path / "base")
    write_rows(tmp_path / "train.jsonl", sums(ROWS))
    return tmp_path


def planned(folder: Path, changes: dict[str, Any], machine: Machine | None = None) -> Plan:
    read = spec.read(write_spec(folder / "spec.yaml", changes))
    return plan(read, Places(folder, None, None, Path), machine=machine)


def on_gpu(changes: dict[str, Any]) -> dict[str, Any]:
    runtime = {"device": "cuda", **changes.get("runtime", {})}
    return {"base.dtype": "bfloat16", **changes, "runtime": runtime}


def test_a_sound_specification_has_no_problem(folder: Path) -> None:
    changes = held_out(chat("Something else entirely?", "Yes."))(folder)
    assert planned(folder, changes).problems == ()
    assert planned(folder, on_gpu(changes), GPU).problems == ()


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_planted_mistake_is_refused_where_it_is(mistake: Mistake, folder: Path) -> None:
    changes = mistake.plant(folder)
    machine = GPU if mistake.on_gpu else None
    found = planned(folder, on_gpu(changes) if mistake.on_gpu else changes, machine)
    lines = [str(problem) for problem in found.problems]
    assert any(mistake.where in line and mistake.words in line for line in lines), lines
    assert not any("\n" in line for line in lines)
    with pytest.raises(Refused):
        found.require_sound()


def test_suites_of_a_base_in_shards_need_a_device_that_surely_holds_it(folder: Path) -> None:
    suites = [{"suite": "suite.yaml", "metric": "exact_match"}]
    shards = {"devices_per_node": 2, "strategy": "fsdp2"}
    changes = on_gpu({"evaluate.suites": suites, "parallelism": shards})
    for memory, refused in ((None, True), (100_000, True), (GPU.device_memory, False)):
        found = planned(folder, changes, replace(GPU, devices=2, device_memory=memory))
        said = " ".join(problem.what for problem in found.problems)
        assert ("does not surely hold this base whole in bfloat16" in said) == refused, said


@pytest.mark.parametrize("method", ["dpo", "kto", "reward"])
def test_sound_preferences_have_no_problem(method: str, folder: Path) -> None:
    assert planned(folder, compared(method)(folder)).problems == ()
    assert planned(folder, on_gpu(compared(method)(folder)), GPU).problems == ()


def test_at_least_twenty_mistakes_were_planted() -> None:
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES) >= 20


def test_mistakes_of_every_kind_are_told_at_once(folder: Path) -> None:
    rows('{"messages": [}', chat("One?", ""), chat("Say <|end|> now", "No."))(folder)
    changes = {
        **held_out(sums(1)[0])(folder),
        **template(SWALLOWED)(folder),
        "schedule.packing": True,
        "schedule.rows_per_device": 2,
        "register": {"name": "sums"},
        "serve": {"max_rank": 2},
        "parallelism": {"nodes": 2},
    }
    found = planned(folder, changes)
    kinds = {problem.check for problem in found.problems}
    assert kinds >= {
        "rows", "control_tokens", "leakage", "supervision", "matrix", "servability", "devices",
    }  # fmt: skip
    with pytest.raises(Refused) as caught:
        found.require_sound()
    assert len(caught.value.message.splitlines()) == 1 + len(found.problems)


def test_a_base_that_is_missing_hides_no_mistake_in_the_rows(folder: Path) -> None:
    rows(chat("One?", ""))(folder)
    found = planned(folder, {"base.model": "basis", **held_out(sums(1)[0])(folder)})
    wheres = [problem.where for problem in found.problems]
    assert wheres == ["base.model", "data.train row 1", "data.train row 7"]


def test_what_no_mesh_trains_is_refused_once_also_where_no_mesh_could_be_derived(
    folder: Path,
) -> None:
    mesh = {"devices_per_node": 4, "strategy": "zero3", "context": 2, "sequence": 2}
    changes = on_gpu({"base.quantization": NF4, "parallelism": mesh})
    for base in ("base", "basis"):
        found = planned(folder, {**changes, "base.model": base}, replace(GPU, devices=4))
        said = {(each.where, each.what) for each in found.problems if each.where != "base.model"}
        assert {where for where, _ in said} == {"parallelism.strategy", "parallelism.sequence"}
        assert len(said) == 2, said


@pytest.mark.parametrize("scheme", ["int8", "w8a8", "w4a16"])
def test_what_is_to_be_compressed_is_planned_with_its_bytes_and_its_package(
    scheme: str, folder: Path
) -> None:
    group = {"group_size": 64} if scheme == "w4a16" else {}
    found = planned(folder, {"compress": {"scheme": scheme, **group}})
    package = PACKAGES[scheme]
    missing = [each.what for each in found.problems if each.where == "compress.scheme"]
    if find_spec(package) is None:
        assert missing == [
            f"{scheme} takes {package}; install it with: pip install 'ragstone[export]'"
        ]
    else:
        assert found.problems == ()
    sizes = found.lock.compressed
    assert sizes is not None
    assert 0.4 < sizes["after"] / sizes["before"] < 0.6
    assert (sizes["at_work"] > sizes["before"]) == (scheme == "w4a16")
    assert planned(folder, {}).lock.compressed is None


def test_what_no_device_holds_whole_is_not_compressed(folder: Path) -> None:
    small = replace(GPU, device_memory=100_000)
    wheres = [each.where for each in planned(folder, on_gpu({"compress": {}}), small).problems]
    assert "compress" in wheres
    wheres = [each.where for each in planned(folder, on_gpu({"compress": {}}), GPU).problems]
    assert "compress" not in wheres


def test_a_rank_over_that_of_vllm_is_served_in_this_process(folder: Path) -> None:
    changes = {**SERVED, "method.adapter": {"type": "lora", "r": 64}}
    assert planned(folder, {**changes, "serve": {}}).problems
    assert planned(folder, {**changes, "serve": {"engine": "transformers_local"}}).problems == ()


def test_what_is_known_and_no_mistake_is_noted(folder: Path) -> None:
    osf = {"type": "osf", "effective_rank": 8}
    changes = {"method.adapter": osf, **SERVED, "serve": {"quantization": "fp8"}}
    notes = " ".join(planned(folder, changes).notes)
    assert "trained on plain weights and served on fp8 ones" in notes
    assert "'osf' keeps of each token was taken to be that of LoRA" in notes
