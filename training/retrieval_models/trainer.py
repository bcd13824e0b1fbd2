"""The trainers of sentence-transformers, set up from a specification."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from infra.plugins import require
from training import exhaustion
from training.retrieval_models import batching
from training.retrieval_models.mining import Example
from training.retrieval_models.specification import EmbedderTuning, Lora, RerankerTuning, Tuning

EXTRA = "torch"
CHECKPOINTS = 10
"""A run has, where the specification does not say how often."""


def load(spec: Tuning, folder: Path, *, device: str) -> Any:
    """Return a model, of whose files none can run code."""
    require("transformers", extra=EXTRA).utils.logging.disable_progress_bar()
    library = require("sentence_transformers", extra=EXTRA)
    kind = library.SentenceTransformer if isinstance(spec, EmbedderTuning) else library.CrossEncoder
    given = {"dtype": "float32", "use_safetensors": True}
    model = kind(
        str(folder),
        device=device,
        local_files_only=True,
        trust_remote_code=False,
        model_kwargs=given,
    )
    if spec.base.max_tokens is not None:
        model.max_seq_length = spec.base.max_tokens
    return model


def attach(model: Any, lora: Lora, *, seed: int) -> None:
    """Freeze a model, and put low-rank weights beside its matrices."""
    peft = require("peft", extra="finetune")
    require("torch", extra=EXTRA).manual_seed(seed)
    model.add_adapter(
        peft.LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=list(lora.targets),
        )
    )


def merge(model: Any) -> None:
    """Add low-rank weights to those beside them, so that the files are of a plain model."""
    tuners = require("peft.tuners.tuners_utils", extra="finetune")
    inner = model.transformers_model
    layers = [
        (name, each)
        for name, each in inner.named_modules()
        if isinstance(each, tuners.BaseTunerLayer)
    ]
    for name, layer in layers:
        layer.merge()
        parent, _, last = name.rpartition(".")
        setattr(inner.get_submodule(parent) if parent else inner, last, layer.get_base_layer())
    inner._hf_peft_config_loaded = False
    del inner.peft_config


def build(
    spec: Tuning,
    model: Any,
    examples: Sequence[Example],
    folder: Path,
    *,
    steps: int,
    callbacks: list[Any],
) -> Any:
    """Return a trainer that writes its checkpoints to a folder."""
    transformers = require("transformers", extra=EXTRA)
    library = require("sentence_transformers", extra=EXTRA)
    is_embedder = isinstance(spec, EmbedderTuning)
    kind = (
        library.SentenceTransformerTrainer
        if is_embedder
        else (library.cross_encoder.CrossEncoderTrainer)
    )

    class Trainer(kind):  # type: ignore[misc, valid-type]  # mypy skips the library
        def add_model_card_callback(self, *_: Any, **__: Any) -> None:
            """Collect nothing for a card that quotes rows."""

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """Write none beside each checkpoint: nobody looks for one there."""

        def _save_checkpoint(self, *given: Any, **named: Any) -> None:
            with exhaustion.storing(folder):
                super()._save_checkpoint(*given, **named)

        def get_batch_sampler(self, *given: Any, **named: Any) -> Any:
            if not is_embedder:
                return super().get_batch_sampler(*given, **named)
            return _sampler(spec, examples, steps=steps)

    settings = (
        library.SentenceTransformerTrainingArguments
        if is_embedder
        else (library.cross_encoder.CrossEncoderTrainingArguments)
    )
    given = {**arguments(spec, folder, steps=steps), **_prompts(spec, model, examples)}
    built = Trainer(
        model=model,
        args=settings(**given),
        train_dataset=dataset(spec, examples),
        loss=loss(spec, model, width=len(examples[0].negatives)),
        callbacks=callbacks,
    )
    built.remove_callback(transformers.PrinterCallback)
    return built


def _sampler(spec: Tuning, examples: Sequence[Example], *, steps: int) -> Any:
    """Return the batches of all steps, as if they were of one epoch.

    The library's own sampler tells fewer batches than it has, and its trainer begins anew after
    as many: what was kept for the later ones would never be learned.
    """
    samplers = require("torch.utils.data", extra=EXTRA)

    class Sampler(samplers.BatchSampler):  # type: ignore[misc, name-defined]  # mypy skips it
        def __iter__(self) -> Iterator[list[int]]:
            return islice(batching.batches(examples, self.batch_size, seed=spec.seed), steps)

        def __len__(self) -> int:
            return steps

    return Sampler(range(len(examples)), spec.schedule.batch, drop_last=False)


def arguments(spec: Tuning, folder: Path, *, steps: int) -> dict[str, Any]:
    """Return what the trainer is told."""
    schedule = spec.schedule
    on_gpu = spec.device != "cpu" and require("torch", extra=EXTRA).cuda.is_available()
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": _rows(spec),
        "max_steps": steps,
        "learning_rate": schedule.learning_rate,
        "lr_scheduler_type": schedule.scheduler,
        "warmup_steps": round(schedule.warmup * steps),
        "weight_decay": schedule.weight_decay,
        "max_grad_norm": schedule.max_grad_norm,
        "bf16": on_gpu,
        "seed": spec.seed,
        "data_seed": spec.seed,
        "use_cpu": not on_gpu,
        "dataloader_pin_memory": on_gpu,
        # Each step is looked at: a loss that is no number is not to be averaged away, or hidden.
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": schedule.saving.every_steps or max(1, steps // CHECKPOINTS),
        "save_total_limit": schedule.saving.keep,
        "eval_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def dataset(spec: Tuning, examples: Sequence[Example]) -> Any:
    """Return examples in the columns that the loss takes, in their order."""
    datasets = require("datasets", extra="finetune")
    columns: dict[str, list[Any]]
    if isinstance(spec, EmbedderTuning):
        columns = {
            "question": [each.question for each in examples],
            "positive": [each.positive for each in examples],
        }
        for place in range(len(examples[0].negatives)):
            columns[f"negative_{place + 1}"] = [each.negatives[place] for each in examples]
    elif _is_listwise(spec):
        columns = {
            "question": [each.question for each in examples],
            "passages": [[each.positive, *each.negatives] for each in examples],
            "labels": [[1.0, *(0.0 for _ in each.negatives)] for each in examples],
        }
    else:
        rows = [
            (each.question, text, float(place == 0))
            for each in examples
            for place, text in enumerate((each.positive, *each.negatives))
        ]
        columns = dict(
            zip(("question", "passage", "label"), map(list, zip(*rows, strict=True)), strict=True)
        )
    return datasets.Dataset.from_dict(columns)


def loss(spec: Tuning, model: Any, *, width: int) -> Any:
    """Return what is made small.

    Args:
        spec: what is asked for.
        model: that is tuned.
        width: negatives of each example.
    """
    torch = require("torch", extra=EXTRA)
    if not isinstance(spec, EmbedderTuning):
        losses = require("sentence_transformers.cross_encoder.losses", extra=EXTRA)
        if _is_listwise(spec):
            return losses.LambdaLoss(model)
        weight = torch.tensor(float(max(1, width)))
        return losses.BinaryCrossEntropyLoss(model, pos_weight=weight)
    losses = require("sentence_transformers.sentence_transformer.losses", extra=EXTRA)
    if spec.loss == "multiple_negatives":
        made = losses.MultipleNegativesRankingLoss(model, scale=spec.scale)
    else:
        made = losses.CachedMultipleNegativesRankingLoss(
            model, scale=spec.scale, mini_batch_size=spec.forward_batch
        )
    if not spec.matryoshka:
        return made
    whole = model.get_embedding_dimension()
    return losses.MatryoshkaLoss(model, made, matryoshka_dims=[whole, *spec.matryoshka])


def _is_listwise(spec: Tuning) -> bool:
    return isinstance(spec, RerankerTuning) and spec.loss == "lambda"


def _rows(spec: Tuning) -> int:
    """Return rows of one step: a question is one, or as many as it has pairs."""
    if isinstance(spec, EmbedderTuning) or _is_listwise(spec):
        return spec.schedule.batch
    return spec.schedule.batch * (1 + spec.negatives.per_question)


def _prompts(spec: Tuning, model: Any, examples: Sequence[Example]) -> Mapping[str, Any]:
    """Return what stands before texts when they are searched: so it does when they are learned."""
    if not isinstance(spec, EmbedderTuning):
        return {}
    known = {name: text for name, text in model.prompts.items() if text}
    default = known.get(model.default_prompt_name or "", "")
    names = ("document", "passage", "corpus")
    passage = next((known[name] for name in names if name in known), default)
    found = {"question": known.get("query", default), "positive": passage}
    for place in range(len(examples[0].negatives)):
        found[f"negative_{place + 1}"] = passage
    return {"prompts": found} if any(found.values()) else {}


MOST_DIFFERENT = 1e-3
"""Between what was trained and its files: one less the cosine of vectors, or scores."""


def probe(
    spec: Tuning, model: Any, examples: Sequence[Example]
) -> Sequence[tuple[tuple[str, str], Any]]:
    """Return what a model says of some questions and passages: vectors of both, or a score."""
    pairs = [(each.question, each.positive) for each in examples]
    if isinstance(spec, EmbedderTuning):
        asked = model.encode_query([each for each, _ in pairs], show_progress_bar=False)
        said = model.encode_document([each for _, each in pairs], show_progress_bar=False)
        return list(zip(pairs, zip(asked, said, strict=True), strict=True))
    sigmoid = require("torch", extra=EXTRA).nn.Sigmoid()
    scores = model.predict(pairs, activation_fn=sigmoid, show_progress_bar=False)
    return list(zip(pairs, scores, strict=True))


def difference(probes: Sequence[tuple[Any, Any]], read_back: Sequence[Any]) -> float:
    """Return by how much what was read back differs at most from what was trained."""
    return max(
        (_apart(said, again) for (_, said), again in zip(probes, read_back, strict=True)),
        default=0.0,
    )


def _apart(said: Any, again: Any) -> float:
    if not isinstance(said, tuple):
        return abs(float(said) - float(again))
    numpy = require("numpy", extra=EXTRA)
    return max(
        1 - float(a @ b) / float(numpy.linalg.norm(a) * numpy.linalg.norm(b))
        for a, b in zip(said, again, strict=True)
    )
