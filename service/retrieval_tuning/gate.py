"""Judges a tuned model beside the present one: the same search over the same passages, in pairs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from evals import gates
from evals.context import Context
from evals.declared import Gate
from evals.gates import WORST_FIRST, Claim, Decision, Verdict
from evals.metric import open_metric
from evals.planning import needed_cases
from evals.score_tables import ScoreTable
from evals.trial import Case, Output
from infra.contracts import Passage
from retrieval.indexes import Hits
from retrieval.ordering import Way, ordered
from retrieval.rerankers import ranked
from retrieval.rerankers.none import NoReranker
from service.retrieval_tuning.corpus import TUNABLE, CollectionCorpus, open_corpus, vectors_of
from training.retrieval_models.specification import EmbedderTuning, Evaluate, RerankerTuning, Tuning
from training.retrieval_models.tuning import Judgement, Question

if TYPE_CHECKING:
    from retrieval.rerankers import Reranker
    from service.wiring import Components

METRICS = {"ndcg": "retrieval_ndcg", "recall": "retrieval_recall", "mrr": "retrieval_mrr"}
Ranking = list[str]
"""Documents, by public id, in the order found; one stands where its best passage does."""


@dataclass(slots=True)
class _Best:
    """The passages most like each question, of all that were shown so far."""

    keys: NDArray[np.int64]
    """Shape (questions, kept)."""
    scores: NDArray[np.float32]

    @classmethod
    def of_none(cls, questions: int) -> _Best:
        empty = np.empty((questions, 0))
        return cls(empty.astype(np.int64), empty.astype(np.float32))

    def look(self, keys: NDArray[np.int64], scores: NDArray[np.float32], *, limit: int) -> None:
        """Take scores of further passages, shape (questions, passages)."""
        known = np.concatenate([self.keys, np.broadcast_to(keys, scores.shape)], axis=1)
        found = np.concatenate([self.scores, scores], axis=1)
        order = np.lexsort((known, -found), axis=1)[:, :limit]
        self.keys = np.take_along_axis(known, order, axis=1)
        self.scores = np.take_along_axis(found, order, axis=1)

    def hits(self, question: int) -> Hits:
        return Hits(self.keys[question], self.scores[question])


@dataclass(slots=True)
class _Kept:
    """The vectors of all passages, in a file that has no name: memory may not hold them."""

    file: IO[bytes]
    keys: list[NDArray[np.int64]] = field(default_factory=list)
    """They rise."""
    width: int = 0

    def add(self, keys: NDArray[np.int64], vectors: NDArray[np.float16]) -> None:
        self.file.write(vectors.tobytes())
        self.keys.append(keys)
        self.width = vectors.shape[1]

    def of(self, keys: NDArray[np.int64]) -> NDArray[np.float16]:
        self.file.flush()
        known = np.concatenate(self.keys)
        shape = (len(known), self.width)
        rows: NDArray[np.float16] = np.memmap(self.file, dtype="<f2", mode="r", shape=shape)[
            np.searchsorted(known, keys)
        ]
        return rows


@dataclass(slots=True)
class _Side:
    """What one of two embedders makes of questions and passages."""

    asked: NDArray[np.float32]
    """Shape (questions, dimension)."""
    best: _Best
    kept: _Kept

    def look(self, keys: NDArray[np.int64], vectors: NDArray[np.float32], *, limit: int) -> None:
        """Take further passages, rounded as an index has them."""
        stored = vectors.astype("<f2")
        self.kept.add(keys, stored)
        self.best.look(keys, self.asked @ stored.astype(np.float32).T, limit=limit)


def needed(evaluate: Evaluate) -> dict[str, tuple[int, str]]:
    """Return how many questions the gates need, by the key that decides it, and to see what."""
    found = {
        name: needed_cases(gate, alpha=gate.level / len(METRICS)) or 0
        for name, gate in _gates(evaluate).items()
    }
    return {
        "expected_gain": (found["ndcg"], f"a gain of {evaluate.expected_gain:g}"),
        "margin": (
            found["recall"],
            f"that recall and MRR lose no more than {evaluate.margin:g} where nothing changes",
        ),
    }


def judge(
    parts: Components, spec: Tuning, folder: Path, questions: Sequence[Question]
) -> Judgement:
    """Return how a tuned model ranks beside the present one, on questions it has not seen."""
    corpus = open_corpus(parts, spec)
    if isinstance(spec, EmbedderTuning):
        before, after, words = by_embedder(parts, spec, folder, corpus, questions)
    else:
        assert isinstance(spec, RerankerTuning)
        before, after, words = _by_reranker(parts, spec, folder, corpus, questions)
    claims = [
        Claim(gate, _table(name, spec, questions, after), _table(name, spec, questions, before))
        for name, gate in _gates(spec.evaluate).items()
    ]
    decisions = gates.check(claims, seed=spec.seed)
    return Judgement(
        _verdict(decisions),
        words,
        [_described(claim, each) for claim, each in zip(claims, decisions, strict=True)],
    )


def read_back(spec: Tuning, folder: Path, probes: Sequence[tuple[str, str]]) -> Sequence[Any]:
    """Return what the files of a model say, as a service computes them in float32."""
    from retrieval.embedders import open_embedder
    from retrieval.rerankers import open_reranker

    if isinstance(spec, EmbedderTuning):
        embedder = open_embedder("sentence_transformers", model=str(folder))
        asked = embedder.embed([each for each, _ in probes], kind="query")
        said = embedder.embed([each for _, each in probes], kind="document")
        return list(zip(asked, said, strict=True))
    reranker = open_reranker("cross_encoder", model=str(folder))
    return [float((reranker.score(asked, [text]))[0]) for asked, text in probes]  # type: ignore[index]


def by_embedder(
    parts: Components,
    spec: EmbedderTuning,
    folder: Path,
    corpus: CollectionCorpus,
    questions: Sequence[Question],
) -> tuple[list[Ranking], list[Ranking], str]:
    whole = parts.collections.get(spec.data.collection)
    present = parts.embedders.of(whole.recipe, collection=whole.name)
    name, options = serving(parts, spec)
    tuned = parts.embedders.open(name, {**options, "model": str(folder)})
    embedders = {"before": present, "after": tuned}
    limit = parts.settings.retrieval.candidates
    texts = [each.text for each in questions]
    documents: dict[int, str] = {}
    with ExitStack() as files:
        sides = {
            side: _Side(
                embedder.embed(texts, kind="query"),
                _Best.of_none(len(texts)),
                _Kept(files.enter_context(TemporaryFile(dir=folder.parent))),
            )
            for side, embedder in embedders.items()
        }
        for rows in corpus.pages():
            keys = np.array([row.id for row in rows], dtype=np.int64)
            documents |= {row.id: row.file_id for row in rows}
            sides["before"].look(keys, vectors_of(rows), limit=limit)
            read = [corpus.text(row) for row in rows]
            sides["after"].look(keys, tuned.embed(read, kind="document"), limit=limit)
        before, after = (
            _searched(
                parts, corpus, each, wanted=spec.evaluate.k, questions=texts, documents=documents
            )
            for each in sides.values()
        )
    words = (
        f"dense and lexical search over {len(documents):,} passages, put in order as the settings "
        f"say, with {name!r}, beside the build that answers"
    )
    return before, after, words


def _searched(
    parts: Components,
    corpus: CollectionCorpus,
    side: _Side,
    *,
    wanted: int,
    questions: Sequence[str],
    documents: Mapping[int, str],
) -> list[Ranking]:
    """Fuse, smooth and rerank as a search does; it leaves nothing out and joins no neighbours."""
    options = parts.settings.retrieval
    way = Way(options.fusion, options.dense_weight, options.smoothing)
    reranker = parts.rerankers.of(corpus.name)
    limit, known = options.candidates, np.array(list(documents), dtype=np.int64)
    rankings = []
    for number, question in enumerate(questions):
        lexical = corpus.lexical(question, limit)
        here = np.isin(lexical.chunk_ids, known)  # not what was added meanwhile
        lists = {
            "dense": side.best.hits(number),
            "lexical": Hits(lexical.chunk_ids[here], lexical.scores[here]),
        }
        fused = ordered(lists, way, depth=limit, wanted=wanted, vectors=side.kept.of)
        head, tail = fused[: options.rerank_candidates], fused[options.rerank_candidates :]
        if not isinstance(reranker, NoReranker):
            texts = corpus.read([each.chunk_id for each in head])
            order = _order(reranker, question, texts, [each.score for each in head])
            head = [head[place] for place in order]
        rankings.append(list(dict.fromkeys(documents[each.chunk_id] for each in [*head, *tail])))
    return rankings


def _by_reranker(
    parts: Components,
    spec: RerankerTuning,
    folder: Path,
    corpus: CollectionCorpus,
    questions: Sequence[Question],
) -> tuple[list[Ranking], list[Ranking], str]:
    from retrieval.rerankers import open_reranker

    whole = parts.collections.get(spec.data.collection)
    present = parts.rerankers.of(whole.name)
    tuned = open_reranker("cross_encoder", model=str(folder), max_tokens=spec.base.max_tokens)
    before: list[Ranking] = []
    after: list[Ranking] = []
    for question in questions:
        pieces = corpus.candidates(question.text, spec.candidates)
        texts = [piece.text for piece in pieces]
        fused = [piece.score for piece in pieces]
        for reranker, rankings in ((present, before), (tuned, after)):
            order = _order(reranker, question.text, texts, fused)
            rankings.append(list(dict.fromkeys(pieces[place].document for place in order)))
    words = f"the order of {spec.candidates} passages that search finds, beside the present one"
    return before, after, words


def serving(parts: Components, spec: EmbedderTuning) -> tuple[str, Mapping[str, Any]]:
    """Return the plug-in that is to compute a tuned embedder, and its options but the model."""
    recipe = parts.collections.get(spec.data.collection).recipe
    options = dict(recipe.embedder_options or {})
    options.pop("model", None)
    if spec.serve is None and recipe.embedder in TUNABLE:
        return recipe.embedder, options
    name = spec.serve or "sentence_transformers"
    return name, options if name == recipe.embedder else {}


def _order(
    reranker: Reranker, question: str, texts: Sequence[str], fused: Sequence[float]
) -> Sequence[int]:
    """Return the places of passages, best first."""
    scores = ranked(reranker, question, texts, fused=fused)
    if scores is None:
        return range(len(fused))
    return [int(place) for place in np.argsort(-scores, kind="stable")]


def _gates(evaluate: Evaluate) -> dict[str, Gate]:
    """Return a gate for each metric: one must gain, the others must not be worse."""
    alpha, power, k = evaluate.alpha, evaluate.power, evaluate.k
    gain = Gate(
        f"ndcg@{k}",
        "superior",
        evaluate.min_gain,
        alpha=alpha,
        power=power,
        expected=evaluate.expected_gain,
        sd=evaluate.spread,
    )
    others = {
        name: Gate(f"{name}@{k}", "non_inferior", evaluate.margin, alpha=alpha, power=power)
        for name in METRICS
        if name != "ndcg"
    }
    return {"ndcg": gain, **others}


def _table(
    name: str, spec: Tuning, questions: Sequence[Question], rankings: Sequence[Ranking]
) -> ScoreTable:
    """Score rankings as an evaluation does."""
    metric = open_metric(METRICS[name], {"k": spec.evaluate.k})

    async def score() -> list[Any]:
        return [
            await metric.score(case, output, Context())  # type: ignore[union-attr]
            for case, output in _trials(questions, rankings)
        ]

    scores = asyncio.run(score())
    return ScoreTable(
        [str(number) for number in range(len(questions))],
        [each.value or 0.0 for each in scores],
        [each.state for each in scores],
        clusters=[each.group for each in questions],
        metric=f"{METRICS[name]} v{metric.version}",
    )


def _trials(
    questions: Sequence[Question], rankings: Sequence[Ranking]
) -> Iterator[tuple[Case, Output]]:
    for number, (question, found) in enumerate(zip(questions, rankings, strict=True)):
        case = Case(str(number), question.text, relevant=dict.fromkeys(question.documents, 1.0))
        yield case, Output(passages=tuple(_standing_for(name) for name in found))


def _standing_for(document: str) -> Passage:
    return Passage(
        chunk_id=0, document_id=document, document_version=0, collection="", source="",
        title="", start_char=0, end_char=0, text="", score=0.0,
    )  # fmt: skip


def _verdict(decisions: Sequence[Decision]) -> str:
    found = {each.verdict for each in decisions}
    return str(next((verdict for verdict in WORST_FIRST if verdict in found), Verdict.PASS))


def _described(claim: Claim, decision: Decision) -> dict[str, Any]:
    assert claim.baseline is not None
    interval = decision.interval
    return {
        "metric": decision.gate.metric,
        "kind": decision.gate.kind,
        "before": float(np.mean(np.asarray(claim.baseline.values, dtype=float))),
        "after": float(np.mean(np.asarray(claim.candidate.values, dtype=float))),
        "low": None if interval is None else interval.low,
        "high": None if interval is None else interval.high,
        "verdict": str(decision.verdict),
        "reason": decision.reason,
        "questions": decision.cases,
        "groups": decision.clusters,
        "needed": decision.needed,
    }
