"""Judges a tuned model beside the present one: the same search over the same passages, in pairs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from retrieval.fusion import convex_combination, reciprocal_rank_fusion
from retrieval.indexes import Hits
from service.retrieval_tuning.corpus import TUNABLE, CollectionCorpus, open_corpus, vectors_of
from training.retrieval_models.specification import EmbedderTuning, Evaluate, RerankerTuning, Tuning
from training.retrieval_models.tuning import Judgement, Question

if TYPE_CHECKING:
    from infra.contracts import Embedder
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
        before, after, words = _by_embedder(parts, spec, folder, corpus, questions)
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


def _by_embedder(
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
    limit = parts.settings.retrieval.candidates
    best = {"before": _Best.of_none(len(questions)), "after": _Best.of_none(len(questions))}
    texts = [each.text for each in questions]
    asked = {"before": _asked(present, texts), "after": _asked(tuned, texts)}
    documents: dict[int, str] = {}
    for rows in corpus.pages():
        keys = np.array([row.id for row in rows], dtype=np.int64)
        documents |= {row.id: row.file_id for row in rows}
        found = {
            "before": vectors_of(rows),
            "after": tuned.embed([corpus.text(row) for row in rows], kind="document"),
        }
        for side, vectors in found.items():
            best[side].look(keys, asked[side] @ vectors.T, limit=limit)
    rankings: dict[str, list[Ranking]] = {"before": [], "after": []}
    for number, text in enumerate(texts):
        lexical = corpus.lexical(text, limit)
        for side in rankings:
            lists = {"dense": best[side].hits(number), "lexical": lexical}
            rankings[side].append(_documents(_fused(parts, lists), documents))
    words = (
        f"dense and lexical search over {len(documents):,} passages, fused as the settings say "
        f"but not smoothed, with {name!r}, beside the build that answers"
    )
    return rankings["before"], rankings["after"], words


def _by_reranker(
    parts: Components,
    spec: RerankerTuning,
    folder: Path,
    corpus: CollectionCorpus,
    questions: Sequence[Question],
) -> tuple[list[Ranking], list[Ranking], str]:
    from retrieval.rerankers import open_reranker, ranked

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
            scores = ranked(reranker, question.text, texts, fused=fused)
            order: Sequence[int] = range(len(pieces))
            if scores is not None:
                order = [int(place) for place in np.argsort(-scores, kind="stable")]
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


def _asked(embedder: Embedder, texts: Sequence[str]) -> NDArray[np.float32]:
    return embedder.embed(texts, kind="query")


def _fused(parts: Components, lists: Mapping[str, Hits]) -> list[int]:
    options = parts.settings.retrieval
    limit = options.candidates
    if options.fusion == "rrf":
        return [each.chunk_id for each in reciprocal_rank_fusion(lists, limit=limit)]
    weights = {"dense": options.dense_weight, "lexical": 1 - options.dense_weight}
    fused = convex_combination(lists, limit=limit, weights=weights, depth=limit)
    return [each.chunk_id for each in fused]


def _documents(keys: Sequence[int], documents: Mapping[int, str]) -> Ranking:
    return list(dict.fromkeys(documents[key] for key in keys if key in documents))


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
