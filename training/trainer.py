"""The trainer of trl, set up from a specification: same rows, same steps, no silent defaults."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import InvalidRequest
from infra.plugins import require
from training import (
    adapted_model,
    checkpoints,
    exhaustion,
    held_out,
    meshes,
    methods,
    packing,
    ranks,
)
from training.batching import Batches
from training.callbacks import Watch, measured
from training.lock import Lock
from training.sequences import Sharing
from training.spec import FineTuning
from training.tokenized import Tokenized

CHECKPOINTS = 10
"""A run has, where the specification does not say how often."""


@dataclass(frozen=True, slots=True)
class Material:
    """What a training is made of."""

    spec: FineTuning
    model: Any
    """With its adapter."""
    tokenizer: Any
    train: Tokenized
    held_out: Tokenized | None
    lock: Lock
    """With the numbers that were planned."""


def build(material: Material, folder: Path, *, callbacks: list[Any], device: str) -> Any:
    """Return a trainer that writes its checkpoints to a folder.

    The precision is that of the weights; adapters are float32, as peft makes them.

    Raises:
        InvalidRequest: rows are to be packed, and the model's attention would mix them.
    """
    transformers = require("transformers", extra="finetune")
    spec, asked = material.spec, material.held_out
    learning = methods.learning(spec.method)
    mesh = adapted_model.mesh_of(material.model)
    if spec.schedule.packing:
        at_once = batches_of(material.lock).rows_per_device
        packing.check(material.model, rows_at_once=at_once, is_shared=mesh is not None)
    kind = _kind(learning.trainer(), folder, material.model)
    if learning.is_mean_of_tokens:
        kind = held_out.weighing(kind)
    # It refuses checkpoints of the optimiser of any sharded model; of an adapter, which is whole in
    # every process, that of one process is all there is.
    is_sharded = getattr(material.model, "is_distributed_loading_by_transformers", False)
    given = {**arguments(material, folder, device=device), "save_only_model": is_sharded}
    built = kind(
        model=material.model,
        args=learning.configuration()(**given),
        train_dataset=learning.dataset(material.train, seed=spec.seed),
        eval_dataset=None if asked is None else learning.dataset(asked, seed=spec.seed),
        data_collator=learning.collator(material.tokenizer, max_length=spec.data.max_length),
        processing_class=material.tokenizer,
        callbacks=callbacks,
    )
    built.args.save_only_model = False
    # By it data loaders give the same rows to processes that share matrices.
    built.accelerator.state.device_mesh = None if mesh is None else mesh.grid
    learning.built(built)
    if asked is not None and learning.is_mean_of_tokens:
        ranks_of_data = batches_of(material.lock).data_ranks
        held_out.weigh(built, data_ranks=ranks_of_data, tokens=learning.weight(asked))
    built.remove_callback(transformers.PrinterCallback)
    return built


def arguments(material: Material, folder: Path, *, device: str) -> dict[str, Any]:
    """Return what trl is told."""
    spec, batches = material.spec, batches_of(material.lock)
    schedule = spec.schedule
    every = schedule.saving.every_steps or max(1, batches.steps // CHECKPOINTS)
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": batches.rows_per_device,
        "per_device_eval_batch_size": held_out.rows_at_once(
            methods.learning(spec.method),
            batches,
            material.held_out,
            context=meshes.from_lock(material.lock.topology).context,
        ),
        "gradient_accumulation_steps": batches.accumulation,
        "max_steps": batches.steps,
        "learning_rate": schedule.learning_rate,
        "lr_scheduler_type": schedule.scheduler,
        "warmup_steps": round(schedule.warmup * batches.steps),
        "weight_decay": schedule.weight_decay,
        "max_grad_norm": schedule.max_grad_norm,
        "optim": {"adamw": "adamw_torch", "adamw_8bit": "adamw_bnb_8bit"}[schedule.optimizer],
        "bf16": spec.base.dtype == "bfloat16",
        "fp16": spec.base.dtype == "float16",
        "gradient_checkpointing": material.lock.gradient_checkpointing,
        "torch_compile": schedule.compile,
        "seed": spec.seed,
        "data_seed": spec.seed,
        "use_cpu": device == "cpu",
        "dataloader_pin_memory": device != "cpu",
        # Each step is looked at: a loss that is no number is not to be averaged away, or hidden.
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": every,
        "save_total_limit": schedule.saving.keep,
        "eval_strategy": "no" if material.held_out is None else "steps",
        # Not by `evaluate` before training: the model would count as prepared, and each process
        # would then train an adapter of its own.
        "eval_on_start": material.held_out is not None,
        "eval_steps": schedule.eval_every_steps or every,
        "report_to": "none",
        "disable_tqdm": True,
        **methods.learning(spec.method).arguments(spec),
    }


def evaluated_after(trainer: Any, step: int) -> dict[str, float]:
    """Return what was measured on the rows held out after a step, also before a run broke off.

    After 0 steps the model is as it began. Nothing is returned where nothing was measured.
    """
    found = (each for each in trainer.state.log_history if each.get("step") == step)
    return next((measured(each) for each in found if "eval_loss" in each), {})


def first_loss(trainer: Any) -> float | None:
    """Return the loss that was logged first, also before a run broke off."""
    found = (each["loss"] for each in trainer.state.log_history if "loss" in each)
    return next(found, None)


def batches_of(lock: Lock) -> Batches:
    """Return the batches that were planned.

    Raises:
        InvalidRequest: the plan has none, because nothing was found to train on.
    """
    if lock.batches is None:
        raise InvalidRequest(f"The plan of {lock.name!r} has no batches; see 'ragstone train plan'")
    return Batches(**lock.batches)


def run(trainer: Any, folder: Path, *, watch: Watch, note: Callable[[str], None]) -> None:
    """Train to the end, from the newest whole checkpoint of the folder if there is one.

    Raises:
        Aborted: a rule of the specification ended it.
        InvalidRequest: this process does not see the checkpoint that the first one goes on from.
        StorageFailed: a checkpoint could not be written; those before it can be gone on from.
        OutOfMemory: the device has not enough memory.
    """
    checkpoint = ranks.told_by_first(lambda: checkpoints.latest(folder))
    if checkpoint is not None:
        if not checkpoint.is_dir():
            raise InvalidRequest(
                f"{str(checkpoint)!r} is not on this machine; all have to see the run's folder"
            )
        note(f"going on after step {checkpoints.step_of(checkpoint)}")
        trainer.args.eval_on_start = False  # the history in the checkpoint has it
    try:
        with exhaustion.told(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="torch.utils.data")
            trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    finally:
        watch.release()


def _kind(trainer: Any, folder: Path, model: Any) -> Any:
    """Return a class of trl's that saves, counts and shares as it is done here."""
    mesh = adapted_model.mesh_of(model)
    sharing = None
    if mesh is not None and mesh.topology.context > 1:
        sharing = Sharing(model.get_base_model(), mesh.context)

    class Trainer(trainer):  # type: ignore[misc]  # mypy skips trl
        def _send_telemetry(self) -> None:
            """Tell nobody outside."""

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """Write none beside each checkpoint: nobody looks for one there."""

        def _save_checkpoint(self, *given: Any, **named: Any) -> None:
            adapted_model.reshard(self.model)
            with exhaustion.storing(folder):
                super()._save_checkpoint(*given, **named)

        def compute_loss(
            self,
            model: Any,
            inputs: Any,
            return_outputs: bool = False,
            num_items_in_batch: Any = None,
        ) -> Any:
            if sharing is None or not model.training:
                return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            # All that share a row have counted it.
            each = num_items_in_batch // sharing.parts
            found = super().compute_loss(model, sharing.own(inputs), return_outputs, each)
            sharing.check()
            return found

        def _sync_replicated_trainable_parameters(self, model: Any) -> None:
            ranks.share_gradients(model, is_last=lambda: self.accelerator.sync_gradients)

    return Trainer
