"""The specifications of a tuned embedder and a tuned reranker: YAML in, one frozen value out."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from training import spec as specifications
from training.specification.data import Source
from training.specification.delivery import Register
from training.specification.part import Part
from training.specification.schedule import Abort, Saving

KINDS = ("embedder", "reranker")


class Base(Part):
    """The model that is tuned."""

    model: str | None = None
    """A folder, an artifact such as `model/minilm@v1`, or a model of the hub's cache,
    `OWNER/NAME@REVISION`; of an embedder by default the one that the collection is built with."""
    digest: str | None = Field(default=None, pattern=r"^sha256:[0-9a-f]{64}$")
    """What the model must be; a plan is refused if it is another."""
    max_tokens: int | None = Field(default=None, ge=8)
    """Of a text, for a reranker of question and passage together; by default what the model
    reads."""


class Pairs(Source):
    """Questions with the passages that answer them.

    A row has `question`, and `positive`, the words of a passage or several, each a text or
    `{text, document}`; or `relevant`, the documents that answer, as test sets have them, with
    `evidence`, words of them; `negatives` are optional.
    """


class Feedback(Part):
    """Answers of this collection that somebody voted up: question and cited passages."""

    days: int = Field(default=90, ge=1)
    """How far back they are looked for."""


class Limits(Part):
    """How much may be wrong with the rows, as fractions of them."""

    max_unusable: float = Field(default=0.0, ge=0, le=1)
    """Rows without a question or passage, or whose passage is not in the collection; they are left
    out."""
    max_duplicates: float = Field(default=0.05, ge=0, le=1)
    """Rows that ask the same for the same passage as an earlier one; they are left out."""


class Readers(Part):
    """Whose documents may be learned from and looked among."""

    tenant: str = Field(min_length=1)
    principals: tuple[str, ...] = ()
    """As the lists of documents name them, such as `group:board`."""


class Data(Part):
    """What is learned from."""

    collection: str = Field(min_length=1)
    """Whose passages are found; by name or id."""
    train: Pairs | None = None
    """Without it, `feedback` is what there is."""
    feedback: Feedback | None = None
    eval: Pairs | None = None
    """Questions that are never trained on; by default a part of the others is held out."""
    held_out: float = Field(default=0.25, gt=0, le=0.5)
    """The share of questions that is held out, together with all others of their documents."""
    readers: Readers | None = None
    """Needed where the collection holds documents of several tenants or with lists of readers."""
    all_tenants: bool = False
    """In place of `readers`: that what one tenant wrote may shape what others find."""
    limits: Limits = Limits()

    @model_validator(mode="after")
    def _has_rows(self) -> Data:
        if self.train is None and self.feedback is None:
            raise ValueError("give train, with the rows, or feedback, for answers voted up")
        if self.readers is not None and self.all_tenants:
            raise ValueError("give readers or all_tenants, not both")
        return self


class Negatives(Part):
    """Passages that a question finds now and that do not answer it, mined from the index."""

    per_question: int = Field(default=4, ge=0, le=32)
    """Those of the rows count too; 0 learns from the other passages of a batch alone."""
    first_rank: int = Field(default=1, ge=1)
    """Ranks before it are passed over: the best may answer as well."""
    last_rank: int = Field(default=50, ge=1, le=1_000)
    margin: float | None = Field(default=0.05, ge=0, le=1)
    """By how much of the positive's similarity they must be below it: nearer ones may answer as
    well. `null` takes those above it too, which the present model gets wrong."""

    @model_validator(mode="after")
    def _is_window(self) -> Negatives:
        if self.last_rank < self.first_rank:
            raise ValueError("last_rank is before first_rank")
        return self


class Lora(Part):
    """Low-rank weights beside the frozen ones, merged into them at the end."""

    r: int = Field(default=16, ge=1, le=512)
    alpha: int = Field(default=32, ge=1)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ("query", "key", "value", "dense")
    """Names of the matrices, by their last part."""


class Schedule(Part):
    """How the optimiser goes through the rows."""

    epochs: float | None = Field(default=None, gt=0)
    steps: int | None = Field(default=None, ge=1)
    """Instead of `epochs`."""
    batch: int = Field(default=32, ge=2)
    """Questions of one step; with losses that compare within a batch, more teach more."""
    learning_rate: float = Field(default=2e-5, gt=0, le=1)
    scheduler: Literal["cosine", "linear", "constant", "constant_with_warmup"] = "linear"
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """The share of all steps in which the rate rises."""
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    log_every_steps: int = Field(default=10, ge=1)
    saving: Saving = Saving()
    abort: Abort = Abort()

    @model_validator(mode="after")
    def _is_definite(self) -> Schedule:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("give epochs or steps, not both")
        return self


class Evaluate(Part):
    """What the tuned model must show on the questions held out, beside the present one."""

    k: int = Field(default=10, ge=1, le=100)
    """Documents that are looked at."""
    min_gain: float = Field(default=0.0, ge=0, lt=1)
    """Of nDCG@k: the lower bound of the paired gain must be above it."""
    margin: float = Field(default=0.05, gt=0, lt=1)
    """The most by which recall@k and MRR@k may be worse; a smaller one needs more questions."""
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    """The risk of passing what does not hold."""
    power: float = Field(default=0.8, gt=0, le=0.999)
    """The chance of passing what gains `expected_gain`, for which there must be questions."""
    expected_gain: float = Field(default=0.1, gt=0, le=1)
    """Of nDCG@k, that is hoped for."""
    spread: float = Field(default=0.35, gt=0, le=1)
    """The standard deviation of a question's gain, to reckon with."""

    @model_validator(mode="after")
    def _can_be_met(self) -> Evaluate:
        if self.expected_gain <= self.min_gain:
            raise ValueError("expected_gain must be above min_gain")
        return self


class Tuning(Part):
    """What both kinds of specification have."""

    version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    seed: int = Field(default=17, ge=0, lt=2**32)
    base: Base = Base()
    data: Data
    negatives: Negatives = Negatives()
    lora: Lora | None = None
    """Without it, all weights are trained."""
    schedule: Schedule = Schedule()
    device: Literal["auto", "cpu", "cuda"] = "auto"
    evaluate: Evaluate = Evaluate()
    register_as: Register | None = Field(default=None, alias="register")
    """It becomes the next version of `model/NAME`; without it, it stays in the run's folder."""

    @property
    def digest(self) -> str:
        """Equal for specifications that say the same, whatever the order of their keys."""
        return specifications.digest_of(specifications.as_json(self))


class EmbedderTuning(Tuning):
    """All that decides what comes out of the tuning of an embedder."""

    loss: Literal["multiple_negatives", "cached_multiple_negatives"] = "multiple_negatives"
    """Both compare within the batch; `cached` takes large batches in little memory."""
    scale: float = Field(default=20.0, gt=0)
    """Of similarities in the loss: the inverse of its temperature."""
    forward_batch: int = Field(default=32, ge=1)
    """Texts at once, with the loss that is cached."""
    matryoshka: tuple[int, ...] = ()
    """Lengths of vectors that shall do as well, such as `[256, 128]`, besides the whole one."""
    serve: Literal["onnx", "sentence_transformers"] | None = None
    """The plug-in that is to compute it, with which it is judged; by default the one that the
    collection is built with."""


class RerankerTuning(Tuning):
    """All that decides what comes out of the tuning of a reranker."""

    loss: Literal["binary_cross_entropy", "lambda"] = "binary_cross_entropy"
    """`binary_cross_entropy` judges each pair, `lambda` the order of a question's passages."""
    candidates: int = Field(default=50, ge=2, le=1_000)
    """Passages that it is given to order when it is judged: those that search finds."""

    @model_validator(mode="after")
    def _has_base(self) -> RerankerTuning:
        if self.base.model is None:
            raise ValueError("base.model: name the cross-encoder that is tuned")
        if not self.negatives.per_question:
            raise ValueError("negatives.per_question: a reranker learns from at least 1")
        return self


def kind_of(spec: Tuning) -> str:
    """Return what is tuned, as in `KINDS`."""
    return "embedder" if isinstance(spec, EmbedderTuning) else "reranker"


def read(path: Path, kind: str) -> EmbedderTuning | RerankerTuning:
    """Return what a YAML file says; paths in it are taken from its folder.

    Raises:
        NotFound: there is no such file.
        InvalidSpecification: names every key that is unknown, missing or wrong.
    """
    return parse(specifications.load(path), kind, source=repr(str(path)))


def parse(
    values: Any, kind: str, *, source: str = "the specification"
) -> EmbedderTuning | RerankerTuning:
    """Check values that came from outside. Raises as `read` does."""
    if kind == "embedder":
        return specifications.check(EmbedderTuning, values, source=source)
    return specifications.check(RerankerTuning, values, source=source)


def schema(kind: str) -> dict[str, Any]:
    """Return the JSON Schema of a specification, for editors."""
    return specifications.schema_of(EmbedderTuning if kind == "embedder" else RerankerTuning)
