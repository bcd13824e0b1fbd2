"""Matrices that several processes share: each multiplies by its part, and they add up what comes.

A matrix is split by the plan that transformers has of a model. Of one split by its outputs
(`colwise`) each process gives its own, which the next one, split by its inputs (`rowwise`), takes:
between both, heads of attention and the inner values of a layer are nowhere whole. An adapter on
such a matrix is whole in every process, as it is saved, and each multiplies by the part of it that
belongs to its part of the matrix; what autograd makes of that are whole gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from infra.plugins import require

OUTPUTS, INPUTS = "colwise", "rowwise"
KEPT_WHOLE = (
    "colwise_gather_output", "colwise_rep", "embedding_rowwise", "replicated_with_grad_allreduce",
)  # fmt: skip
"""Styles of a plan whose weights every process keeps whole: embeddings, heads, norms."""


def whole_again(model: Any, plan: Mapping[str, str], mesh: Any) -> None:
    """Turn what transformers has split while it loaded into plain layers, which adapters fit on.

    Args:
        model: loaded into parts; of matrices that are split only the parts stay.
        plan: styles by the path of a module, with `*` for numbers.
        mesh: of the processes that share each matrix.
    """
    whole: dict[int, Any] = {}  # by the weight they come from: embeddings may be the head as well
    for path, module in model.named_modules():
        style = style_of(path, plan)
        if style is None:
            continue
        module.__dict__.pop("forward", None)
        for name, weight in list(module.named_parameters(recurse=False)):
            if id(weight) not in whole:
                whole[id(weight)] = _settled(weight, name, style, mesh)
            setattr(module, name, whole[id(weight)])
        if style == OUTPUTS:
            module.register_forward_pre_hook(_taking(mesh))
        elif style == INPUTS:
            module.register_forward_hook(_adding(mesh))
        if style in {OUTPUTS, INPUTS}:
            module.split = style


def join(model: Any, mesh: Any) -> None:
    """Have the adapters on matrices that are split multiply by the parts that belong to theirs."""
    for module in model.modules():
        if not hasattr(module, "lora_A"):
            continue
        style = getattr(module.get_base_layer(), "split", None)
        for name in module.lora_A if style else ():
            down, up = module.lora_A[name], module.lora_B[name]
            if style == OUTPUTS:
                up.forward = _part_of_outputs(up, mesh)
            else:
                down.forward = _part_of_inputs(down, mesh)


def style_of(path: str, plan: Mapping[str, str]) -> str | None:
    """Return how a module is split; None if every process has it whole.

    >>> style_of("model.layers.3.mlp.up_proj", {"model.layers.*.mlp.up_proj": "colwise"})
    'colwise'
    """
    return plan.get(".".join("*" if part.isdigit() else part for part in path.split(".")))


def indivisible(
    plan: Mapping[str, str], linear: Mapping[str, tuple[int, int]], parts: int
) -> Iterator[tuple[str, str]]:
    """Return each path of a plan that cannot be split into so many parts, and why."""
    for path, style in plan.items():
        if style not in {OUTPUTS, INPUTS, *KEPT_WHOLE}:
            yield path, f"is split as {style!r}, which adapters are not trained on"
    for path, (inputs, outputs) in linear.items():
        found = style_of(path, plan)
        size = inputs if found == INPUTS else outputs
        if found is not None and size % parts:
            yield path, f"has {size} to share by {parts}"


def _settled(weight: Any, name: str, style: str, mesh: Any) -> Any:
    torch = require("torch", extra="finetune")
    tensor = require("torch.distributed.tensor", extra="finetune")
    if not isinstance(weight, tensor.DTensor):
        return weight
    plain = weight.to_local() if style in {OUTPUTS, INPUTS} else weight.full_tensor()
    if style == INPUTS and name == "bias" and mesh.get_local_rank() != 0:
        plain = torch.zeros_like(plain)  # it is added once, with what the first process adds
    return torch.nn.Parameter(plain.detach(), requires_grad=weight.requires_grad)


def _taking(mesh: Any) -> Callable[..., Any]:
    def take(module: Any, given: Any) -> Any:
        del module
        return (_shared(given[0], mesh), *given[1:])

    return take


def _adding(mesh: Any) -> Callable[..., Any]:
    def add(module: Any, given: Any, output: Any) -> Any:
        del module, given
        return _sum(output, mesh)

    return add


def _part_of_outputs(linear: Any, mesh: Any) -> Callable[[Any], Any]:
    torch = require("torch", extra="finetune")

    def forward(values: Any) -> Any:
        part = _part(linear.weight, mesh, axis=0)
        return torch.nn.functional.linear(_shared(values, mesh), part)

    return forward


def _part_of_inputs(linear: Any, mesh: Any) -> Callable[[Any], Any]:
    torch = require("torch", extra="finetune")

    def forward(values: Any) -> Any:
        return _sum(torch.nn.functional.linear(values, _part(linear.weight, mesh, axis=1)), mesh)

    return forward


def _shared(values: Any, mesh: Any) -> Any:
    """Return what all have alike; on the way back the gradients of all are added."""
    dt = require("torch.distributed.tensor", extra="finetune")
    alike = dt.DTensor.from_local(values, mesh, [dt.Replicate()], run_check=False)
    return alike.to_local(grad_placements=[dt.Partial()])


def _sum(values: Any, mesh: Any) -> Any:
    """Return the sum over all; on the way back each has the gradient of the sum."""
    dt = require("torch.distributed.tensor", extra="finetune")
    parts = dt.DTensor.from_local(values, mesh, [dt.Partial()], run_check=False)
    return parts.redistribute(placements=[dt.Replicate()]).to_local()


def _part(weight: Any, mesh: Any, *, axis: int) -> Any:
    """Return this process's part of what all have alike; on the way back parts become whole."""
    dt = require("torch.distributed.tensor", extra="finetune")
    alike = dt.DTensor.from_local(weight, mesh, [dt.Replicate()], run_check=False)
    return alike.redistribute(placements=[dt.Shard(axis)]).to_local()
