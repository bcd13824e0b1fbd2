"""Runs metrics of ragas with a judge of ours: remembered, without telemetry, and never NaN."""

from __future__ import annotations

import math
import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from types import ModuleType
from typing import Any, ClassVar

from anyio import to_thread
from pydantic import BaseModel, ValidationError

from evals.context import Context, Embed
from evals.judges.asking import JudgeRefused, Unusable, ask
from evals.metrics._answers import said
from evals.metrics._judged import Judged
from evals.refusals import declines, is_refusal, is_silent
from evals.scores import Score
from evals.trial import Case, Output
from infra.errors import EngineFailed
from infra.plugins import require

ROUNDING = 1e-6


class Ragas(Judged):
    """A metric of ragas' collection; what its judge cannot judge is an error or refused."""

    version: ClassVar[int] = 2
    libraries: ClassVar[tuple[str, ...]] = ("ragas",)

    needs: ClassVar[tuple[str, ...]] = ()
    """What is handed to it: `user_input`, `response`, `reference`, `retrieved_contexts`."""

    @abstractmethod
    def open(self, library: ModuleType, judge: Any, embedder: Any) -> Any:
        """Return ragas' metric."""

    async def score(self, case: Case, output: Output, context: Context) -> Score:
        known = self._inapplicable(case, output)
        if known is not None:
            return known
        library = await to_thread.run_sync(ragas)
        metric = self.open(library, judge(self, context), embedder(context.embed))
        given = {
            "user_input": case.question,
            "response": said(output),
            "reference": case.references[0] if case.references else "",
            "retrieved_contexts": [passage.text for passage in output.passages],
        }
        try:
            found = await metric.ascore(**{name: given[name] for name in self.needs})
        except JudgeRefused as error:
            return Score.refused(error.message)
        return self._number(float(found.value))

    def _inapplicable(self, case: Case, output: Output) -> Score | None:
        if not case.question.strip():
            return Score.unscored("the case has no question")
        if "response" in self.needs and (is_refusal(output) or is_silent(output)):
            return Score.unscored("a refusal or empty answer says nothing to judge")
        if "reference" in self.needs and not any(case.references[:1]):
            return Score.unscored("the case has no reference")
        if "retrieved_contexts" in self.needs and not output.passages:
            return Score.unscored("no passage was found")
        return None

    def _number(self, value: float) -> Score:
        if math.isnan(value):
            return Score.error("ragas returned NaN: the judge found nothing to judge")
        low, high = self.bounds
        if low is not None and low - ROUNDING <= value < low:
            value = low
        if high is not None and high < value <= high + ROUNDING:
            value = high
        return Score.of(value)


@lru_cache(maxsize=1)
def ragas() -> ModuleType:
    """Import ragas' metrics; it reports its use to a server unless told not to beforehand."""
    os.environ["RAGAS_DO_NOT_TRACK"] = "true"
    require("ragas", extra="ragas")
    # It may have been imported, and have made up its mind, before this.
    require("ragas._analytics", extra="ragas").do_not_track.cache_clear()
    return require("ragas.metrics.collections", extra="ragas")


def judge(parameters: Judged, context: Context) -> Any:
    """Return a model as ragas wants it, which asks ours."""
    base = require("ragas.llms.base", extra="ragas").InstructorBaseRagasLLM
    asked: Counter[str] = Counter()

    async def agenerate(_: Any, prompt: str, response_model: type[BaseModel]) -> BaseModel:
        # ragas asks the same more than once where it wants different answers.
        seed = context.seed + asked[prompt]
        asked[prompt] += 1
        question = parameters.question(
            [{"role": "user", "content": prompt}], response_model.model_json_schema(), seed=seed
        )
        return read(await ask(question, context), response_model)

    def generate(_: Any, prompt: str, response_model: type[BaseModel]) -> BaseModel:
        raise NotImplementedError("asked without waiting; ragas' metrics of collections never do")

    return type("Judge", (base,), {"agenerate": agenerate, "generate": generate})()


def read(text: str, model: type[BaseModel]) -> BaseModel:
    """Return a judge's answer, also where it stands in a fence of Markdown.

    Raises:
        JudgeRefused: it declines in words.
        Unusable: it is not what was asked for, and is remembered.
    """
    bare = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```")
    try:
        return model.model_validate_json(bare)
    except ValidationError as error:
        if declines(text):
            raise JudgeRefused(f"the judge said {text[:200]!r}") from error
        raise Unusable(
            f"the judge answered {text[:200]!r}, which is not the JSON that was asked for"
        ) from error


def embedder(embed: Embed | None) -> Any:
    """Return an embedder as ragas wants it, which asks ours."""
    base = require("ragas.embeddings.base", extra="ragas").BaseRagasEmbedding

    def texts(_: Any, texts: Sequence[str], **__: Any) -> list[list[float]]:
        if embed is None:
            raise EngineFailed("There is no embedder here")
        found: list[list[float]] = embed(list(texts)).tolist()
        return found

    def text(self: Any, text: str, **__: Any) -> list[float]:
        return texts(self, [text])[0]

    async def atexts(self: Any, many: Sequence[str], **__: Any) -> list[list[float]]:
        return await to_thread.run_sync(texts, self, many)

    async def atext(self: Any, one: str, **__: Any) -> list[float]:
        return (await atexts(self, [one]))[0]

    methods: dict[str, Any] = {
        "embed_text": text,
        "embed_texts": texts,
        "aembed_text": atext,
        "aembed_texts": atexts,
    }
    return type("Embedder", (base,), methods)()
