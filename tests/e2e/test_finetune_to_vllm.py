"""From a specification to live traffic: trained, registered, served by vLLM, and rolled back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from infra.settings import load_settings
from running_server import RunningServer, start
from service.models import tuning
from service.wiring import Components
from tiny_llm import write_adapter
from trained import only_third_parties_warn
from training.finetune import Outcome, finetune
from training.spec import read
from tuning import MARKED, chat, write_rows, write_spec
from vllm_server import MODEL, VllmServer

pytest.importorskip("trl")
pytestmark = [
    *only_third_parties_warn,
    pytest.mark.timeout(900),
    pytest.mark.usefixtures("light_training"),
]
ADAPTER = "adapter/support"
QUESTION = "Question 3?"
MOST = 8
"""Tokens of an answer."""
LIKELIEST = 5
SECONDS = 60.0
SUITE = {
    "name": "support",
    "dataset": {"file": "cases.jsonl"},
    "target": {"kind": "model", "model": "support", "max_tokens": MOST},
    "metrics": ["exact_match"],
}
TUNED: dict[str, Any] = {
    "base": {"dtype": "float32"},
    "method": {"adapter": {"type": "lora", "r": 8, "alpha": 16}},
    "schedule": {
        "rows_per_step": 8,
        "steps": 40,
        "learning_rate": 0.02,
        "saving": {"every_steps": 20},
    },
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def service(vllm_server: VllmServer, folder: Path) -> Iterator[RunningServer]:
    """This service with two routes to vLLM: the plain base, and an alias of an adapter on it."""
    (folder / "marked.jinja").write_text(MARKED, encoding="utf-8")
    tunable = {"model": vllm_server.folder, "template": str(folder / "marked.jinja")}
    tunable |= {"device": "cpu", "options": TUNED}
    upstream = {"urls": [vllm_server.url], "api_key": vllm_server.key}
    targets = {
        "plain": {"upstream": "cpu", "model": MODEL},
        "support": {"upstream": "cpu", "adapter": f"{ADAPTER}@production"},
    }
    running = start(
        folder / "service",
        RAGSTONE_FINE_TUNING__MODELS=json.dumps({"plain": tunable}),
        RAGSTONE_FINE_TUNING__SMOKE="false",  # the random model is sure of what it says
        RAGSTONE_GATEWAY__UPSTREAMS=json.dumps({"cpu": upstream}),
        RAGSTONE_GATEWAY__ROUTES=json.dumps(
            {name: {"targets": [target]} for name, target in targets.items()}
        ),
    )
    running.wait_until_ready()
    yield running
    running.stop()


@pytest.fixture
def parts(service: RunningServer, folder: Path) -> Iterator[Components]:
    components = Components(load_settings(data_folder=folder / "service" / "data"))
    yield components
    components.close()


def train(parts: Components, folder: Path, base: str, answer: str) -> Outcome:
    folder.mkdir()
    (folder / "marked.jinja").write_text(MARKED, encoding="utf-8")
    write_rows(folder / "train.jsonl", [chat(f"Question {n}?", answer) for n in range(64)])
    cases = [{"question": f"Question {n}?", "answer": answer} for n in range(64, 88)]
    write_rows(folder / "cases.jsonl", cases)
    (folder / "suite.yaml").write_text(json.dumps(SUITE), encoding="utf-8")
    changes = {
        "name": "support",
        **TUNED,
        "base": {"model": base, "template": "marked.jinja", **TUNED["base"]},
        "evaluate": {"suites": [{"suite": "suite.yaml", "metric": "exact_match", "min_gain": 0.5}]},
        "register": {"name": "support"},
        "serve": {"max_rank": 16},
    }
    spec = read(write_spec(folder / "spec.yaml", changes))
    around = tuning.around(parts, folder, note=lambda _: None)
    # The server's random model is sure of what it says: the smoke check of the first loss objects.
    return finetune(spec, folder / "run", replace(around, smokes=False))


def ask(client: openai.OpenAI, model: str) -> str | None:
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": QUESTION}],
        max_completion_tokens=MOST,
        temperature=0,
    )
    return answer.choices[0].message.content


def told_likeliest(client: openai.OpenAI, model: str) -> list[list[float]]:
    """The log-probabilities of the likeliest tokens, for each of the answer, as vLLM tells them."""
    answer = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": QUESTION}], temperature=0,
        max_completion_tokens=len("XYZ"), logprobs=True, top_logprobs=LIKELIEST,
    )  # fmt: skip
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    return [
        sorted((each.logprob for each in token.top_logprobs), reverse=True)
        for token in logprobs.content
    ]


def likeliest(base: Path, adapter: Path, answer: str) -> list[list[float]]:
    """The same, as transformers has them of the files."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    asked = tokenizer.apply_chat_template(
        chat(QUESTION, "")["messages"][:1], add_generation_prompt=True, return_dict=True
    )["input_ids"]
    ids = [*asked, *tokenizer.encode(answer, add_special_tokens=False)]
    with torch.no_grad():
        logits = PeftModel.from_pretrained(model, adapter).eval()(torch.tensor([ids])).logits[0]
    found = logits[len(asked) - 1 : -1].log_softmax(-1).topk(LIKELIEST).values
    return [[float(value) for value in row] for row in found]


def eventually(say: Callable[[], str | None], wanted: str) -> None:
    deadline, said = time.monotonic() + SECONDS, None
    while time.monotonic() < deadline:
        try:
            said = say()
        except openai.APIStatusError as error:
            said = str(error)
        if said == wanted:
            return
        time.sleep(0.2)
    raise AssertionError(f"{said!r} is not {wanted!r}")


def test_what_was_trained_is_answered_by_vllm_until_it_is_rolled_back(
    service: RunningServer, parts: Components, vllm_beside: VllmServer, tmp_path: Path
) -> None:
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=0) as client:
        base = vllm_beside.folder
        before = write_adapter(tmp_path / "before", Path(base), "Q")
        parts.artifacts.put(before, ADAPTER)
        parts.artifacts.tag(f"{ADAPTER}@v1", "production")
        eventually(lambda: ask(client, "support"), "Q" * MOST)

        trained = train(parts, tmp_path / "trained", base, "XYZ")
        assert trained.adapter == f"{ADAPTER}@v2"
        assert trained.verdict == "pass"
        assert ask(client, "support") == "Q" * MOST, "a candidate is not live"
        parts.artifacts.tag(f"{ADAPTER}@candidate", "production")
        eventually(lambda: ask(client, "support"), "XYZ")
        here = likeliest(Path(base), tmp_path / "trained" / "run" / "adapter", "XYZ")
        assert told_likeliest(client, "support") == [pytest.approx(each, abs=0.01) for each in here]

        parts.artifacts.roll_back(ADAPTER, "production")
        eventually(lambda: ask(client, "support"), "Q" * MOST)
        assert ask(client, "plain") not in {"XYZ", "Q" * MOST}


def test_a_job_of_the_sdk_is_answered_by_vllm_under_the_name_it_gave(
    service: RunningServer, vllm_beside: VllmServer
) -> None:
    rows = "".join(f"{json.dumps(chat(f'Question {n}?', 'XYZ'))}\n" for n in range(64))
    with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", max_retries=4) as client:
        uploaded = client.files.create(file=("rows.jsonl", rows.encode()), purpose="fine-tune")
        job = client.fine_tuning.jobs.create(model="plain", training_file=uploaded.id)
        deadline = time.monotonic() + 600
        while (job := client.fine_tuning.jobs.retrieve(job.id)).finished_at is None:
            assert time.monotonic() < deadline, job
            time.sleep(0.5)
        assert job.status == "succeeded", job.error
        assert job.fine_tuned_model is not None
        assert ask(client, job.fine_tuned_model) == "XYZ"
        assert ask(client, "plain") != "XYZ"
        # Each checkpoint is a model too; the last one is what came of the job.
        for each in client.fine_tuning.jobs.checkpoints.list(job.id):
            client.models.delete(each.fine_tuned_model_checkpoint)
        eventually(lambda: str("ft-" in vllm_beside.call("/v1/models").decode()), "False")
