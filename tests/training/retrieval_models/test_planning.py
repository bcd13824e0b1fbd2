"""What is planned of a tuning of search: pairs, split, negatives, and every mistake by its row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import planted_words
from infra.contracts import Interaction, Readers
from infra.errors import InvalidRequest
from infra.settings import load_settings
from monitoring.feedback import Statement
from planted_words import NAME, write_spec
from retrieval.sources.folder import walk
from service import retrieval_tuning
from service.retrieval_tuning.corpus import open_corpus
from service.wiring import Components
from surroundings import no_settings_from_outside
from tiny_model import write_model
from training.problems import Refused
from training.retrieval_models import batching, dividing
from training.retrieval_models.mining import mine
from training.retrieval_models.pairs import Reading
from training.retrieval_models.planning import Plan, plan
from training.retrieval_models.specification import Limits, Negatives, Tuning, parse, read, schema
from training.spec import InvalidSpecification
from tuning import write_rows


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planning")
    write_model(folder / "base")
    return folder


@pytest.fixture(scope="module")
def parts(place: Path) -> Iterator[Components]:
    with pytest.MonkeyPatch.context() as patch:
        no_settings_from_outside(patch, place)
        opened = Components(
            load_settings(
                data_folder=place / "data",
                retrieval={"embedder": "hashing", "chunk_tokens": 16, "chunk_overlap_tokens": 0},
            )
        )
        planted_words.fill(opened, planted_words.write_documents(place / "documents"))
    yield opened
    opened.close()


@pytest.fixture
def planned(parts: Components, place: Path) -> Callable[..., Plan]:
    def make(rows: list[Any] | None = None, /, **changes: Any) -> Plan:
        write_rows(place / "rows.jsonl", planted_words.rows() if rows is None else rows)
        given = {"base.model": "base", **{k.replace("__", "."): v for k, v in changes.items()}}
        spec = read(write_spec(place / "spec.yaml", given), "embedder")
        return plan(spec, retrieval_tuning.surroundings(parts, place))

    return make


def told(found: Plan) -> list[str]:
    return [str(problem) for problem in found.problems]


def test_a_plan_says_what_is_learned_from_and_what_is_held_out(planned: Any) -> None:
    found = planned()
    found.require_sound()
    counts = found.lock["counts"]
    assert counts["learned from"] + counts["held out"] == 120
    assert counts["held out"] == 30
    assert set(found.lock["digests"]) == {"base.model", "data.collection", "data.train"}
    assert found.lock == planned().lock
    steps = batching.steps(found.mined.examples, 30, epochs=14, seed=found.spec.seed)
    assert found.lock["batches"] == {"rows_per_step": 30, "steps": steps}
    assert steps > 14 * 90 / 30, "some have a passage among their negatives that answers another"
    assert "6 batches of 15.0 questions on average, not 30" in found.notes[-1]


def test_no_question_and_no_document_is_on_both_sides(planned: Any) -> None:
    rows = planted_words.rows()
    # Two further questions on each document.
    rows += [{**row, "question": f"{row['question']} {n}"} for row in rows for n in (1, 2)]
    divided = planned(rows).divided
    sides = [
        {document for pair in side for document in pair.documents}
        for side in (divided.train, divided.held_out)
    ]
    assert not sides[0] & sides[1]
    assert len(divided.held_out) == 3 * len(sides[1]) == 90
    assert len(set(divided.groups.values())) == len(sides[1])


def test_wrong_rows_are_all_told_at_once_and_by_number(planned: Any) -> None:
    rows = planted_words.rows()
    rows[3] = {"question": "", "positive": "the part of saida"}
    rows[7] = {"question": "what?", "positive": "there is no such passage"}
    rows[8] = {"question": "what else?"}
    rows[9] = {"question": "which?", "positive": 4}
    rows += ["{", rows[0], rows[1]]
    found = planned(
        rows, data__limits={"max_duplicates": 0.0}, data__held_out=0.1,
        evaluate={"expected_gain": 0.1}, matryoshka=[16], schedule__batch=1000,
    )  # fmt: skip
    assert told(found) == [
        "data.train row 4: there is no text in 'question'",
        "data.train row 8: the passage is not in 'parts'",
        "data.train row 9: there is no text in 'positive', and no document in 'relevant'",
        "data.train row 10: 'positive' is no text or list of texts",
        "data.train row 121: not JSON: unexpected end of data: line 2 column 1 (char 2)",
        "data.train rows 122, 123: the same as earlier rows, 1.6% of all; limits.max_duplicates is "
        "0.0%",
        "schedule.batch: 1000 questions of one step, and there are 104 to learn from",
        "matryoshka: 16 is not shorter than the model's vectors, 16",
        "evaluate.expected_gain: 12 questions without a document in common are held out, and 109 "
        "are needed to see a gain of 0.1; hold out more, add rows, or raise it",
        "evaluate.margin: 12 questions without a document in common are held out, and 80 are "
        "needed to see that recall and MRR lose no more than 0.05 where nothing changes; hold out "
        "more, add rows, or raise it",
    ]
    with pytest.raises(Refused, match=r"'planted' is refused, 10 problems"):
        found.require_sound()


def test_what_is_named_and_is_not_there_is_told_together(planned: Any) -> None:
    found = planned(data__collection="partz", base__model="nowhere/model")
    where = [problem.where for problem in found.problems]
    assert where == ["data.collection", "base.model"]
    assert "did you mean 'parts'" in told(found)[0]


def test_rows_of_held_out_questions_among_those_of_training_are_refused(
    planned: Any, place: Path
) -> None:
    rows = planted_words.rows()
    write_rows(place / "eval.jsonl", [rows[5], *rows[100:]])
    same_document = {"question": "what of row 110 ?", "positive": rows[110]["positive"]}
    found = planned([*rows[:100], same_document], data__eval={"rows": "eval.jsonl"})
    assert [line for line in told(found) if "row" in line] == [
        "data.train row 6: asks the same as data.eval row 1",
        "data.train row 101: is answered by a document of data.eval row 12",
    ]


def test_questions_on_one_document_count_as_one_for_what_a_gate_can_see(planned: Any) -> None:
    rows = [
        {**row, "question": f"{row['question']} {way}"}
        for row in planted_words.rows()
        for way in ("now", "here", "then")
    ]
    found = planned(rows, data__held_out=0.3, evaluate={"expected_gain": 0.1})
    asked = {pair.asked for pair in found.divided.held_out}
    assert len(asked) >= 100
    assert f"{len(asked) // 3} questions without a document in common" in told(found)[0]


def test_questions_that_all_have_one_document_cannot_be_held_out(planned: Any) -> None:
    rows = [{**planted_words.rows()[0], "question": f"what is {n}?"} for n in range(60)]
    found = planned(rows)
    assert [problem.where for problem in found.problems] == ["data.held_out"]
    assert "hang together by the documents" in told(found)[0]


def test_an_empty_source_is_refused(planned: Any) -> None:
    found = planned([])
    assert told(found)[0] == "data.train: there is no row"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config.json", '{"auto_map": {"AutoModel": "m.M"}}', "needs code of its own"),
        ("modules.json", '[{"type": "mine.Module", "path": ""}]', "has a module 'mine.Module'"),
        ("modeling.py", "x = 1", "brings code along"),
        ("config.json", '{"architectures": ["XForSequenceClassification"]}', "scores pairs"),
        ("model.safetensors", None, "has no weights as safetensors"),
    ],
)
def test_a_base_that_brings_code_or_no_safe_weights_is_refused(
    planned: Any, place: Path, tmp_path: Path, name: str, content: str | None, words: str
) -> None:
    folder = Path(write_model(tmp_path / "odd"))
    (folder / name).unlink(missing_ok=True)
    if content is not None:
        (folder / name).write_text(content)
    found = planned(base__model=str(folder))
    assert [problem.where for problem in found.problems] == ["base.model"]
    assert words in told(found)[0]


def test_other_files_of_a_base_may_hold_what_they_like(planned: Any, tmp_path: Path) -> None:
    folder = Path(write_model(tmp_path / "base"))
    (folder / "data_config.json").write_text('[{"name": "pairs", "lines": 7}]')
    found = planned(base__model=str(folder))
    assert not [problem for problem in found.problems if problem.where == "base.model"]


def test_a_base_that_reads_less_than_a_chunk_has_is_refused(planned: Any) -> None:
    found = planned(base__max_tokens=10)
    assert told(found) == [
        "base.max_tokens: it reads 10 tokens, and the chunks of 'parts' have up to 16: they would "
        "be cut; rebuild it with shorter ones first"
    ]


def test_test_sets_name_documents_and_only_what_was_accepted_is_taken(planned: Any) -> None:
    rows = [
        {
            "question": row["question"],
            "relevant": f"{'-'.join(map(str, topics))}.txt",
            "evidence": "",
            "review_state": "rejected" if number < 20 else "accepted",
            "answerable": number != 119,
        }
        for number, (row, topics) in enumerate(
            zip(planted_words.rows(), planted_words.DOCUMENTS, strict=True)
        )
    ]
    found = planned(rows, evaluate__expected_gain=0.3)
    found.require_sound()
    assert found.lock["counts"]["data.train left out"] == 21
    pair = found.divided.train[0]
    said = next(row["positive"] for row in planted_words.rows() if row["question"] == pair.question)
    assert [piece.text for piece in pair.positives] == [said]


def test_every_document_named_relevant_answers_also_where_the_words_stand_in_one(
    parts: Components,
) -> None:
    corpus = open_corpus(parts, _spec())
    said = [row["positive"] for row in planted_words.rows()]
    names = [f"{'-'.join(map(str, topics))}.txt" for topics in planted_words.DOCUMENTS[:2]]
    first, second = (corpus.named(name) for name in names)
    rows: list[Any] = [
        {"question": said[1], "relevant": names, "evidence": [said[0]]},
        {"question": "graded", "relevant": {names[0]: 1, names[1]: 0}, "evidence": said[0]},
        {"question": "gone", "relevant": [names[0], "gone.txt"], "evidence": said[0]},
        {"question": "high", "relevant": {names[0]: "high"}},
        {"question": "four", "relevant": 4, "evidence": said[0]},
        {"question": "placed", "positive": {"text": said[0], "document": names[1]}},
        {"question": "five", "positive": [{"text": said[0], "document": 5}]},
    ]
    reading = Reading("data.train", Limits(), corpus)
    both, one = reading.read([rows])
    assert both.documents == first | second
    assert [piece.text for piece in both.positives] == [said[0]]
    assert one.documents == first
    assert [str(problem) for problem in reading.problems()] == [
        "data.train row 3: the document 'gone.txt' is not in 'parts'",
        "data.train row 4: a grade in 'relevant' is no number",
        "data.train row 5: 'relevant' is no name, list of names, or names with grades",
        "data.train row 6: the passage is not in 'parts'",
        "data.train row 7: 'positive' is no text or list of texts",
    ]
    # Asked in the words of the other's passage, which is the nearest there is.
    found = mine([both], corpus, Negatives(per_question=3, margin=None), seed=1)
    assert said[1] not in found.examples[0].negatives
    (other,) = Reading("data.eval", Limits(), corpus).read([[planted_words.rows()[1]]])
    assert len(list(dividing.leaks(dividing.given([both], [other])))) == 1


def test_answers_that_were_voted_up_are_pairs(parts: Components, planned: Any) -> None:
    now = datetime.now(UTC)
    for number, row in enumerate(planted_words.rows()):
        content = {"question": row["question"], "citations": [{"text": row["positive"]}]}
        parts.interactions.add(
            Interaction(
                id=f"answer-{number}", kind="answer", at=now, model=f"rag/{NAME}",
                outcome="answered", status=200, collection=NAME,
                content=None if number == 5 else content,
            )
        )  # fmt: skip
        for value in ("up", "down") if number < 3 else ("up",) if number < 100 else ():
            parts.feedback.add(Statement(f"answer-{number}", "thumbs", value))
    found = planned(data__train=None, data__feedback={"days": 1}, data__held_out=0.3)
    found.require_sound()
    assert found.lock["counts"]["data.feedback rows"] == 96
    assert {pair.key for pair in found.divided.held_out} == {"data.feedback"}


def test_an_answer_voted_up_is_paired_with_the_document_it_cites(
    parts: Components, tmp_path: Path
) -> None:
    whole = parts.collections.create("twins", parts.recipe())
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "note.txt").write_text("please ask at the desk")
        assert list(parts.ingester.ingest(whole, walk([tmp_path / name])))
    spec = _spec(collection="twins", train=None, feedback={"days": 1})
    corpus = open_corpus(parts, spec)
    (cited,) = corpus.named("other/note.txt")
    assert len(corpus.holding("ask at the desk", None)) == 2
    citation = {"text": "ask at the desk", "document_id": cited}
    parts.interactions.add(
        Interaction(
            id="of-twins", kind="answer", at=datetime.now(UTC), model="rag/twins",
            outcome="answered", status=200, collection="twins",
            content={"question": "whom do I ask?", "citations": [citation]},
        )
    )  # fmt: skip
    parts.feedback.add(Statement("of-twins", "thumbs", "up"))
    rows = retrieval_tuning.voted(parts, spec)
    (pair,) = Reading("data.feedback", Limits(), corpus).read([list(rows)])
    assert pair.documents == {cited}
    assert [piece.document for piece in pair.positives] == [cited]


def test_negatives_are_near_and_never_what_answers(parts: Components) -> None:
    spec = _spec()
    corpus = open_corpus(parts, spec)
    # Asked in the passage's own words, so that its likeness is the highest there is.
    said = [row["positive"] for row in planted_words.rows()]
    rows = [{"question": text, "positive": text} for text in said[:8]]
    rows.append({"question": said[0], "positive": said[1]})
    pairs = list(Reading("data.train", Limits(), corpus).read([rows]))
    found = mine(pairs, corpus, Negatives(per_question=3, first_rank=2), seed=1)
    assert found.drawn == 0
    assert found.mined == 3 * 9
    for example in found.examples:
        assert len(set(example.negatives)) == 3
        assert example.positive not in example.negatives
    first, last = found.examples[0], found.examples[-1]
    assert said[1] not in first.negatives, "another row says that it answers the same question"
    assert said[0] not in last.negatives
    shared = [len(set(said[0].split()) & set(text.split())) for text in first.negatives]
    assert min(shared) >= 5, "two of three topics, of those that are most alike"


def test_passages_nearer_than_the_margin_allows_are_not_taken(parts: Components) -> None:
    corpus = open_corpus(parts, _spec())
    said = [row["positive"] for row in planted_words.rows()]
    asked = [{"question": said[n], "positive": said[n + 40]} for n in range(4)]
    pairs = list(Reading("data.train", Limits(), corpus).read([asked]))
    window = {"per_question": 1, "last_rank": 1}
    strict = mine(pairs, corpus, Negatives(**window), seed=1)
    assert (strict.mined, strict.drawn) == (0, 4)
    assert {each for example in strict.examples for each in example.negatives} <= {
        text for row in asked for text in [row["positive"]]
    }
    free = mine(pairs, corpus, Negatives(**window, margin=None), seed=1)
    assert [example.negatives for example in free.examples] == [(said[n],) for n in range(4)]


def test_negatives_of_the_rows_come_first(parts: Components) -> None:
    corpus = open_corpus(parts, _spec())
    row = planted_words.rows()[0] | {"negatives": ["not this", "nor this"]}
    pairs = list(Reading("data.train", Limits(), corpus).read([[row]]))
    found = mine(pairs, corpus, Negatives(per_question=1), seed=1)
    assert found.examples[0].negatives == ("not this",)


def test_what_some_may_not_read_is_learned_from_only_where_somebody_says_so(
    parts: Components, tmp_path: Path
) -> None:
    whole = parts.collections.create("shared", parts.recipe())
    for tenant in ("acme", "globex"):
        (tmp_path / tenant).mkdir()
        (tmp_path / tenant / "note.txt").write_text(f"the part of saida of {tenant}")
        sources = walk([tmp_path / tenant], readers=Readers(tenant))
        assert list(parts.ingester.ingest(whole, sources))
    with pytest.raises(InvalidRequest, match=r"data\.readers"):
        open_corpus(parts, _spec(collection="shared"))
    corpus = open_corpus(parts, _spec(collection="shared", readers={"tenant": "acme"}))
    assert [piece.text for piece in corpus.near("saida", 10)] == ["the part of saida of acme"]
    assert not corpus.holding("of globex", None)
    assert corpus.best_of("globex/note.txt", "saida") is None
    assert [row.text for page in corpus.pages() for row in page] == ["the part of saida of acme"]
    everybody = open_corpus(parts, _spec(collection="shared", all_tenants=True))
    assert len(everybody.near("saida", 10)) == 2
    assert everybody.digest != corpus.digest


def test_a_group_much_larger_than_what_is_held_out_stays_with_training(planned: Any) -> None:
    rows = planted_words.rows()
    large = [{**rows[0], "question": f"what is {n} of it?"} for n in range(120)]
    divided = dividing.divide(planned([*large, *rows]).divided.train, 0.25, seed=3)
    assert not any(pair.question.startswith("what is 7 of") for pair in divided.held_out)
    assert divided.held_out


def test_each_schema_knows_the_keys_of_its_kind() -> None:
    own = {kind: set(schema(kind)["properties"]) for kind in ("embedder", "reranker")}
    assert own["embedder"] - own["reranker"] == {"scale", "forward_batch", "matryoshka", "serve"}
    assert own["reranker"] - own["embedder"] == {"candidates"}
    assert {"data", "negatives", "register"} <= own["embedder"] & own["reranker"]


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        ("embedder", {"los": "x"}, "los: there is no such key"),
        ("embedder", {"version": 2}, "version: 2 is of a later release"),
        ("embedder", {"data": {"collection": "a"}}, "data: give train, with the rows, or feedback"),
        ("embedder", {"negatives": {"first_rank": 60}}, "negatives: last_rank is before"),
        ("reranker", {}, "name the cross-encoder that is tuned"),
        (
            "reranker",
            {"base": {"model": "m"}, "negatives": {"per_question": 0}},
            "a reranker learns from at least 1",
        ),
        ("embedder", {"evaluate": {"min_gain": 0.2}}, "expected_gain must be above min_gain"),
    ],
)
def test_wrong_specifications_are_refused_by_key(
    kind: str, changes: dict[str, Any], words: str
) -> None:
    values = {"name": "a", "data": {"collection": "a", "train": {"rows": "a.jsonl"}}, **changes}
    with pytest.raises(InvalidSpecification, match=words):
        parse(values, kind)


def _spec(**data: Any) -> Tuning:
    values = {"collection": NAME, "train": {"rows": "rows.jsonl"}, **data}
    return parse({"name": "a", "data": values}, "embedder")
