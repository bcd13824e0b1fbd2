"""Every citation's text equals the document's text at its span, over the real documents."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.errors import UnreadableDocument
from infra.settings import Loading, load_settings
from retrieval.collections import Collection
from retrieval.ingest import Summary
from retrieval.reading import Reader
from retrieval.sources.folder import walk
from service.wiring import Components

KINDS = ("markdown", "docx", "html", "eml", "csv", "xlsx", "pptx", "pdf", "epub")
MAX_BYTES = 400_000


class Library:
    """Real documents in a collection, and their text as the loaders extract it once more."""

    def __init__(self, components: Components, texts: dict[str, str]) -> None:
        self.components = components
        self.collection: Collection = components.collections.get("library")
        self.texts = texts
        """By file id."""
        self.sentences = sorted(
            {
                line.strip()
                for text in texts.values()
                for line in re.split(r"[\n.;|]", text)
                if 15 < len(line.strip()) < 300
            }
        )


@pytest.fixture(scope="module")
def library(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Library:
    folder = tmp_path_factory.mktemp("library")
    for kind in KINDS:
        for path in sorted((shared_data / "documents" / kind).iterdir()):
            if path.stat().st_size <= MAX_BYTES:
                shutil.copy(path, folder / f"{kind}-{path.name}")
    components = Components(
        load_settings(
            data_folder=tmp_path_factory.mktemp("data"), retrieval={"embedder": "hashing"}
        )
    )
    collection = components.collections.create("library", components.recipe())
    summary = Summary()
    for event in components.ingester.ingest(collection, walk([folder])):
        summary.add(event)
    assert summary.added >= 60
    texts = {}
    with Reader(Loading()) as reader:
        for stored in components.documents.list(collection, limit=1000).items:
            path = folder / stored.filename
            try:
                texts[stored.file_id] = reader.read(path, filename=path.name).text
            except UnreadableDocument as error:
                pytest.fail(f"{stored.filename} was ingested, and now: {error}")
    yield Library(components, texts)
    components.close()


def check(library: Library, question: str) -> int:
    answer = anyio.run(library.components.answering.answer, question, library.collection)
    for citation in answer.citations:
        text = library.texts[citation.document_id]
        assert text[citation.start_char : citation.end_char] == citation.text
        assert citation.text.strip()
        assert 0 <= citation.support <= 1
        assert answer.text[citation.answer_start : citation.answer_end].strip()
    for passage in answer.passages:
        text = library.texts[passage.document_id]
        assert text[passage.start_char : passage.end_char] == passage.text
    assert answer.unverified == 0
    if answer.answerable:
        assert answer.citations
    return len(answer.citations)


def test_questions_made_of_the_documents_are_cited_to_the_character(library: Library) -> None:
    chance = random.Random(11)
    cited = sum(
        check(library, f"What about {sentence}?")
        for sentence in chance.sample(library.sentences, 60)
    )
    assert cited >= 30


@given(data=st.data())
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_no_question_whatever_gets_a_citation_that_does_not_hold(
    library: Library, data: st.DataObject
) -> None:
    words = st.sampled_from(library.sentences).flatmap(lambda s: st.sampled_from(s.split()))
    question = data.draw(
        st.one_of(
            st.lists(words, min_size=1, max_size=12).map(" ".join),
            st.text(alphabet=st.characters(codec="utf-8"), min_size=1, max_size=200).filter(
                lambda text: bool(text.strip())
            ),
        )
    )
    check(library, question)
