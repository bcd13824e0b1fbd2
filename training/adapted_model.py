"""A base model with an adapter on it: loaded, given new weights to train, and asked for logits."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from infra.errors import InvalidRequest
from infra.plugins import require
from training import meshes, scoring_head, splitting
from training.accelerators import has_flash_attention
from training.meshes import Mesh
from training.specification.base import FLASH, Base
from training.specification.method import Lora, Method, Osf


def load_base(
    base: Base, folder: Path, *, device: str, mesh: Mesh | None = None, scores: bool = False
) -> Any:
    """Return the model of a folder, in the precision that the specification asks for.

    Args:
        base: what is asked for.
        folder: with its weights.
        device: of this process.
        mesh: of the processes that each hold a part of it; all of them must call it.
        scores: whether it has the head of a model of rewards, which gives every text 0.

    Raises:
        InvalidRequest: its weights cannot be read.
    """
    transformers = require("transformers", extra="finetune")
    torch = require("torch", extra="finetune")
    quantization = _quantization(base, torch, transformers)
    transformers.utils.logging.disable_progress_bar()  # it would be drawn into logs
    options: dict[str, Any] = {
        "dtype": getattr(torch, base.dtype),
        "attn_implementation": attention_of(base, device=device),
        "quantization_config": quantization,
        "local_files_only": True,
        "use_safetensors": True,
    }
    try:
        if scores:
            with scoring_head.without_its_warning():
                model = transformers.AutoModelForSequenceClassification.from_pretrained(
                    folder, num_labels=1, **options
                )
            scoring_head.begin(model, folder)
        elif mesh is not None:
            return _divided(folder, mesh, options)
        else:
            model = transformers.AutoModelForCausalLM.from_pretrained(folder, **options)
    except (OSError, ValueError, RuntimeError) as error:
        first = str(error).strip().partition("\n")[0]
        raise InvalidRequest(f"The weights of {base.model!r} cannot be loaded: {first}") from error
    return model if quantization is not None else model.to(device)


def adapter_config(method: Method) -> Any:
    """Return peft's configuration of the adapter.

    Raises:
        InvalidRequest: peft does not know its type, or a key of it.
    """
    peft = require("peft", extra="finetune")
    kind = "SEQ_CLS" if method.type == "reward" else "CAUSAL_LM"
    adapter, task = method.adapter, {"task_type": kind}
    if isinstance(adapter, Lora):
        return peft.LoraConfig(
            r=adapter.r,
            lora_alpha=adapter.alpha,
            lora_dropout=adapter.dropout,
            target_modules=_targets(adapter.targets),
            use_dora=adapter.dora,
            use_rslora=adapter.rslora,
            modules_to_save=list(adapter.modules_to_save) or None,
            trainable_token_indices=list(adapter.trainable_tokens) or None,
            **task,
        )
    if isinstance(adapter, Osf):
        return peft.OSFConfig(
            effective_rank=adapter.effective_rank, target_modules=_targets(adapter.targets), **task
        )
    try:
        return peft.get_peft_config({**task, **adapter.config})
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(f"method.adapter.config is nothing that peft takes: {error}") from None


def attach(model: Any, method: Method, *, seed: int) -> Any:
    """Return the model with a new adapter, whose weights depend on `seed` alone."""
    peft = require("peft", extra="finetune")
    torch = require("torch", extra="finetune")
    torch.manual_seed(seed)
    return joined(peft.get_peft_model(model, adapter_config(method)))


def read_adapter(model: Any, folder: Path) -> Any:
    """Return the model with the adapter of a folder, which is asked and not trained."""
    peft = require("peft", extra="finetune")
    return joined(peft.PeftModel.from_pretrained(model, folder))


def joined(model: Any) -> Any:
    """Have an adapter multiply by the parts that its base is divided into."""
    mesh = mesh_of(model)
    if mesh is not None and mesh.topology.tensor > 1:
        splitting.join(model, mesh.tensor)
    return model


def mesh_of(model: Any) -> Mesh | None:
    """Return the processes that share the base of an adapted model; None where none do."""
    return cast("Mesh | None", getattr(model.get_base_model(), "mesh", None))


def logits(model: Any, rows: Sequence[Sequence[int]]) -> list[Any]:
    """Return the logits of each row, `(tokens, vocabulary)` in float32 on the CPU.

    Of a model of rewards, the reward of each row. What a tuned prompt says before it is left out.
    """
    torch = require("torch", extra="finetune")
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            return [
                model(input_ids=torch.tensor([list(row)], device=model.device))
                .logits[0][-len(row) :]
                .float()
                .cpu()
                for row in rows
            ]
    finally:
        model.train(was_training)


def reshard(model: Any) -> None:
    """Let every process of a sharded base keep its own part alone; all of them must call it.

    Before one process saves: reading the weights makes it let go of those that it still has whole,
    and it would then wait for the others, which have them, to hand them out again.
    """
    fsdp = require("torch.distributed.fsdp", extra="finetune")
    for module in model.modules():
        if isinstance(module, fsdp.FSDPModule):
            module.reshard()


def let_go() -> None:
    """Give back the memory of models that nobody holds any more, before another one is loaded."""
    torch = require("torch", extra="finetune")
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def device_of(wanted: str, *, local_rank: int = 0) -> str:
    """Return where this process trains: `cpu`, or the GPU of its rank."""
    torch = require("torch", extra="finetune")
    is_there = torch.cuda.is_available()
    if wanted == "cuda" and not is_there:
        raise InvalidRequest("runtime.device is 'cuda', and no GPU can be used here")
    return f"cuda:{local_rank}" if is_there and wanted != "cpu" else "cpu"


def attention_of(base: Base, *, device: str) -> str | None:
    """Return the attention that is loaded; None for PyTorch's own, which the model chooses."""
    if base.attention != "auto":
        return base.attention
    can = device.startswith("cuda") and base.dtype != "float32" and has_flash_attention()
    return FLASH[0] if can else None


def _divided(folder: Path, mesh: Mesh, options: dict[str, Any]) -> Any:
    """Return the part of a base that this process holds, read alone from its files.

    Matrices that are shared are split while they are read, and shards are made of the parts.
    """
    transformers = require("transformers", extra="finetune")
    distributed = require("transformers.distributed", extra="finetune")
    fsdp = require("transformers.distributed.fsdp", extra="finetune")
    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    known = transformers.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    sizes = mesh.topology
    asked = (
        distributed.DistributedConfig(fsdp_size=sizes.shard)
        if sizes.tensor == 1
        else distributed.DistributedConfig(tp_size=sizes.tensor)
    )
    model = meshes.placed(known, mesh).from_pretrained(folder, distributed_config=asked, **options)
    if sizes.tensor > 1:
        splitting.whole_again(model, model.tp_plan, mesh.tensor)
        if sizes.shard > 1:
            model = fsdp.apply_fully_sharded_data_parallelism(model, mesh)
    # Told of parts, peft would make parts of adapters, and gather the whole base in the one process
    # that saves them.
    model._tp_size = model._device_mesh = model.config.distributed_config = None
    model.mesh = mesh
    return model


def _targets(targets: str | tuple[str, ...]) -> str | list[str]:
    return targets if isinstance(targets, str) else list(targets)


def _quantization(base: Base, torch: Any, transformers: Any) -> Any:
    if base.quantization is None:
        return None
    if base.quantization.method == "int8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=base.quantization.double,
        bnb_4bit_compute_dtype=getattr(torch, base.dtype),
    )
