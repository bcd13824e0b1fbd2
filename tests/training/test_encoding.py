"""Encoding: which tokens a row becomes, and which of them carry a loss."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training import row_source, spec
from training.chat_templates import ChatTemplate, for_training, of_tokenizer, read_file
from training.encoding import IGNORED, Encoded, Encoder
from training.examples import Conversation, Text, Wrong, sequences, shape_of
from training.preflight import Batch, Silent
from training.preflight._reading import read_source
from training.row_source import open_rows
from training.row_text import digest, said
from training.specification.data import Supervise
from training.tokenized import tokenize
from tuning import MARKED, chat, write_base, write_rows, write_spec

TWO_TURNS = [
    {"role": "user", "content": "One?"},
    {"role": "assistant", "content": "Two."},
    {"role": "user", "content": "Three?"},
    {"role": "assistant", "content": "Four."},
]
TEXTS = st.text("one two? Zwei größer 東京.", min_size=1, max_size=30)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    transformers = pytest.importorskip("transformers")
    folder = write_base(tmp_path_factory.mktemp("model") / "base")
    return transformers.AutoTokenizer.from_pretrained(folder)


class Seen(Silent):
    """Keeps the tokens that are checked."""

    def __init__(self) -> None:
        self.ids: list[list[int]] = []

    def take(self, batch: Batch, /) -> None:
        self.ids += [each.ids for row in batch.rows for each in row.encoded]


def encoded(tokenizer: Any, sequence: Conversation | Text, supervise: Supervise) -> Encoded:
    encoder = Encoder(tokenizer, for_training(tokenizer), supervise)
    (found,) = encoder.encode([sequence])
    assert isinstance(found, Encoded)
    return found


def learned(tokenizer: Any, found: Encoded) -> list[str]:
    return [tokenizer.decode(found.ids[start:end]) for start, end in found.spans]


@pytest.mark.parametrize(
    ("supervise", "expected"),
    [
        ("assistant", ["Two.<|end|>", "Four.<|end|>"]),
        ("last_assistant", ["Four.<|end|>"]),
        ("completion", ["Four.<|end|>"]),
        (
            "all",
            [
                "<|user|>One?<|end|><|assistant|>Two.<|end|>"
                "<|user|>Three?<|end|><|assistant|>Four.<|end|>"
            ],
        ),
    ],
)
def test_what_is_asked_for_is_learned_with_its_end_token(
    tokenizer: Any, supervise: Supervise, expected: list[str]
) -> None:
    found = encoded(tokenizer, Conversation(TWO_TURNS), supervise)
    assert learned(tokenizer, found) == expected
    assert list(found.texts) == expected
    kept = [token for token in found.labels if token != IGNORED]
    assert len(kept) == found.supervised
    assert tokenizer.decode(kept) == "".join(expected)


def test_what_a_template_writes_behind_the_last_end_is_not_learned(
    tokenizer: Any, tmp_path: Path
) -> None:
    path = tmp_path / "template.jinja"
    path.write_text(
        "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>\n"
        "{% endfor %}",
        encoding="utf-8",
    )
    encoder = Encoder(tokenizer, read_file(path, tokenizer), "all")
    (found,) = encoder.encode([Conversation(TWO_TURNS)])
    assert isinstance(found, Encoded)
    assert found.texts[0].endswith("Four.<|end|>")
    assert found.labels[found.spans[0][1] - 1] == tokenizer.convert_tokens_to_ids("<|end|>")


@pytest.mark.parametrize("supervise", ["assistant", "completion"])
def test_rows_that_say_two_things_are_trained_on_as_they_were_checked(
    tokenizer: Any, tmp_path: Path, supervise: Supervise
) -> None:
    mixed = [{**chat("One?", "Two."), "text": "plain"}, {"text": "plain alone"}]
    for number, order in enumerate((mixed, mixed[::-1])):
        name = f"rows-{number}.jsonl"
        write_rows(tmp_path / name, order)
        read = spec.read(write_spec(tmp_path / "spec.yaml", {"data.train": {"rows": name}}))
        rows = open_rows(read.data.train, folder=tmp_path, datasets=None)
        encoder = Encoder(tokenizer, for_training(tokenizer), supervise)
        seen = Seen()
        read_source("data.train", rows, read, encoder, [seen])
        assert seen.ids
        assert tokenize(rows, encoder, read.data).ids == seen.ids


class Shown(Silent):
    """Keeps what each row of a batch was shown as, and what is wrong with the others."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, list[int], bytes]] = []
        self.faults: list[tuple[int, str]] = []

    def take(self, batch: Batch, /) -> None:
        self.rows += [(row.number, row.encoded[0].ids, row.said_digest) for row in batch.rows]
        self.faults += batch.faults


@given(
    rows=st.lists(
        st.sampled_from(["not JSON", chat("", ""), {"text": "a"}]) | st.builds(chat, TEXTS, TEXTS)
    ),
    batch=st.integers(1, 4),
)
def test_batches_prepared_side_by_side_show_what_rows_one_by_one_do(
    tokenizer: Any, tmp_path_factory: pytest.TempPathFactory, rows: list[Any], batch: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    write_rows(folder / "side.jsonl", [chat("One?", "Two."), *rows])
    read = spec.read(write_spec(folder / "spec.yaml", {"data.train": {"rows": "side.jsonl"}}))
    source = open_rows(read.data.train, folder=folder, datasets=None)
    encoder = Encoder(tokenizer, for_training(tokenizer), "assistant")
    good, faulty = [], []
    for number, row in enumerate((row for many in source.batches() for row in many), start=1):
        try:
            assert isinstance(row, dict)
            (found,) = sequences(row, "messages")
            (made,) = encoder.encode([found])
            assert isinstance(made, Encoded)
            good.append((number, made.ids, digest(said([found]))))
        except (AssertionError, Wrong):
            faulty.append(number)
    shown = Shown()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(row_source, "BATCH_ROWS", batch)
        lengths = read_source("data.train", source, read, encoder, [shown])
    assert shown.rows == good
    assert [number for number, _ in shown.faults] == faulty
    assert (lengths.rows, lengths.tokens) == (len(rows) + 1, sum(len(ids) for _, ids, _ in good))


def test_labels_are_those_of_the_tokenizers_own_mask(tokenizer: Any) -> None:
    found = encoded(tokenizer, Conversation(TWO_TURNS), "assistant")
    theirs = tokenizer.apply_chat_template(
        TWO_TURNS, return_dict=True, return_assistant_tokens_mask=True
    )
    assert found.ids == theirs["input_ids"]
    assert [label != IGNORED for label in found.labels] == [
        bool(bit) for bit in theirs["assistant_masks"]
    ]


def test_a_prompt_with_a_completion_is_learned_from_its_completion_on(tokenizer: Any) -> None:
    found = encoded(tokenizer, Text("Once upon", " a time"), "completion")
    assert learned(tokenizer, found) == [" a time<|end|>"]
    whole = encoded(tokenizer, Text("Once upon", " a time"), "all")
    assert learned(tokenizer, whole) == ["Once upon a time<|end|>"]
    assert tokenizer.decode(encoded(tokenizer, Text("", "a<|end|>"), "all").ids) == "a<|end|>"


def test_characters_of_many_bytes_and_white_space_are_learned_whole(tokenizer: Any) -> None:
    answer = "  Grüße 👩‍👩‍👧 \n東京\t"
    found = encoded(tokenizer, Conversation(chat("?", answer)["messages"]), "assistant")
    assert learned(tokenizer, found) == [f"{answer}<|end|>"]


def test_a_row_that_is_cut_loses_what_is_learned_behind_the_cut(tokenizer: Any) -> None:
    found = encoded(tokenizer, Conversation(TWO_TURNS), "assistant")
    first_end = found.spans[0][1]
    cut = found.cut(first_end - 1)
    assert len(cut.ids) == len(cut.labels) == first_end - 1
    assert learned(tokenizer, cut) == ["Two."]
    assert found.cut(2).supervised == 0


def test_without_markers_nothing_is_guessed(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    plain = MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    base = write_base(tmp_path / "base", template=plain)
    unmarked = transformers.AutoTokenizer.from_pretrained(base)
    (found,) = Encoder(unmarked, for_training(unmarked), "assistant").encode(
        [Conversation(TWO_TURNS)]
    )
    assert isinstance(found, Wrong)
    assert "no {% generation %} markers" in str(found)
    last = encoded(unmarked, Conversation(TWO_TURNS), "completion")
    assert learned(unmarked, last) == ["Four.<|end|>"], "which needs none"


def test_a_template_whose_marked_form_is_known_is_trained_with_it(tokenizer: Any) -> None:
    trl = pytest.importorskip("trl.chat_template_utils")
    tokenizer.chat_template, own = trl.qwen2_5_chat_template, tokenizer.chat_template
    try:
        assert not of_tokenizer(tokenizer).has_markers  # type: ignore[union-attr]
        assert for_training(tokenizer).has_markers  # type: ignore[union-attr]
    finally:
        tokenizer.chat_template = own


def test_what_a_template_refuses_is_told_and_the_others_are_encoded(tokenizer: Any) -> None:
    template = ChatTemplate("{{ raise_exception('no system') }}")
    encoder = Encoder(tokenizer, template, "all")
    refused, read = encoder.encode([Conversation(TWO_TURNS), Text("", "a")])
    assert isinstance(refused, Wrong)
    assert "no system" in str(refused)
    assert isinstance(read, Encoded)


@pytest.mark.parametrize(
    ("method", "row", "count"),
    [
        ("sft", chat("a", "b"), 1),
        (
            "sft",
            {"messages": '[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]'},
            1,
        ),
        ("sft", {"prompt": "a", "completion": "b"}, 1),
        ("sft", {"text": "a"}, 1),
        ("dpo", {"prompt": "a", "chosen": "b", "rejected": "c"}, 2),
        ("dpo", {name: chat("a", name)["messages"] for name in ("chosen", "rejected")}, 2),
        ("kto", {"prompt": "a", "completion": "b", "label": False}, 1),
        ("reward", {"chosen": "b", "rejected": "c"}, 2),
    ],
)
def test_each_method_reads_its_rows(method: str, row: dict[str, Any], count: int) -> None:
    assert len(sequences(row, shape_of(row, method))) == count


@pytest.mark.parametrize(
    ("method", "row", "words"),
    [
        ("sft", {"question": "a"}, "sft needs messages or prompt"),
        ("sft", {"messages": [{"role": "user", "content": "a"}]}, "fewer than 2 messages"),
        ("sft", {"messages": chat("a", "")["messages"]}, "message 2: an empty message"),
        ("sft", {"messages": TWO_TURNS[:3]}, "last message is not of 'assistant'"),
        ("sft", {"messages": [{"role": "usr", "content": "a"}, TWO_TURNS[1]]}, "unknown role"),
        ("sft", {"prompt": "a", "completion": " "}, "an empty completion"),
        ("sft", {"prompt": "a", "completion": TWO_TURNS[:2]}, "not both text or both messages"),
        ("dpo", {"prompt": "a", "chosen": "b", "rejected": "b"}, "are the same"),
        ("kto", {"prompt": "a", "completion": "b", "label": "good"}, "neither true nor false"),
    ],
)
def test_rows_of_another_kind_are_refused(method: str, row: dict[str, Any], words: str) -> None:
    with pytest.raises(Wrong, match=words):
        sequences(row, shape_of(row, method))


def test_messages_are_what_a_server_gives_to_the_template() -> None:
    call = {"id": "a", "function": {"name": "look_up", "arguments": '{"of": "x"}'}}
    row = {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "Where"}, {"type": "text", "text": "?"}],
            },
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "a", "content": "There"},
            {"role": "assistant", "content": [{"type": "text", "text": "There."}], "weight": 1},
        ]
    }
    [read] = sequences(row, "messages")
    assert isinstance(read, Conversation)
    asked, called, _, said = read.messages
    assert asked["content"] == "Where?"
    assert called["tool_calls"][0]["function"] == {"name": "look_up", "arguments": {"of": "x"}}
    assert said == {"role": "assistant", "content": "There."}


def test_threads_that_render_one_template_do_not_mix_their_spans(tokenizer: Any) -> None:
    template = for_training(tokenizer)
    assert template is not None
    answers = [chat(f"Question {n}?" * (n % 7), f"Answer {n}." * (n % 5 + 1)) for n in range(200)]

    def render(row: dict[str, Any]) -> list[str]:
        template.render(row["messages"][:1], add_generation_prompt=True)
        text, spans = template.render_spans(row["messages"])
        return [text[start:end] for start, end in spans]

    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(render, answers))
    assert found == [[f"{row['messages'][1]['content']}<|end|>"] for row in answers]
