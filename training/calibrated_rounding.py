"""Weights rounded so that what is multiplied by them comes out nearly the same (GPTQ).

Of a matrix W with inputs x, numbers Q that make the sum of |W x - Q x|^2 small are looked for, over
the inputs that rows of data bring. Column after column is rounded, and the columns to come make
good for it as far as they go together: with H = sum x x^T and U the upper Cholesky factor of its
inverse, an error e of column j changes columns k > j by -e U_jk / U_jj. The scale of a group is the
one with the least squared error of its weights when its first column is reached. Layers are taken
in their order, each with the inputs that those before, rounded, hand on.
https://arxiv.org/abs/2210.17323
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from infra.errors import InvalidRequest
from infra.plugins import require
from training.memory import BYTES
from training.model_shape import ModelShape, block_of

ROWS = 128
ROW_TOKENS = 512
DAMPING = 0.01
"""Of the mean of H's diagonal, added to it: fewer inputs than columns say nothing of some."""
LEAST, MOST = -8, 7
SHARES = tuple(share / 100 for share in range(60, 100, 2))
"""Of the scale that clips no weight: smaller ones clip some, and are finer for the others."""


@dataclass(slots=True)
class _Call:
    """How a layer was called for one row."""

    given: tuple[Any, ...]
    options: dict[str, Any]

    def hand(self, states: Any) -> None:
        """Have it be given other states, which are its first argument or have their name."""
        if self.given:
            self.given = (states, *self.given[1:])
        else:
            self.options["hidden_states"] = states


def round_all(
    model: Any, paths: Sequence[str], rows: Sequence[Sequence[int]], group: int
) -> dict[str, Any]:
    """Replace the weights of modules in layers by such as have 16 values a group of inputs.

    Args:
        model: of transformers.
        paths: of linear modules, in their order; those in no layer are left alone.
        rows: of tokens, that it is asked.
        group: inputs that share a scale.

    Returns:
        the scales of each module, `(outputs, groups)`.

    Raises:
        InvalidRequest: its layers do not follow each other.
    """
    torch = require("torch", extra="finetune")
    drawn = rows[:: max(1, len(rows) // ROWS)][:ROWS]
    layers = [
        (model.get_submodule(block), {path: model.get_submodule(path) for path in found})
        for block, found in groupby(filter(block_of, paths), key=block_of)
    ]
    scales = {}
    model.eval()
    with torch.no_grad():
        calls = [_called(model, [layer for layer, _ in layers], row) for row in drawn]
        for number, (layer, modules) in enumerate(layers):
            with _watched(modules) as moments:
                _run(layer, [each[number] for each in calls])
            for path, module in modules.items():
                weight, scales[path] = rounded(module.weight, moments.pop(path), group)
                module.weight.copy_(weight)
            said = _run(layer, [each[number] for each in calls])
            for each, states in zip(calls, said, strict=True):
                if number + 1 < len(layers):
                    each[number + 1].hand(states)
    return scales


def rounded(weight: Any, moments: Any, group: int) -> tuple[Any, Any]:
    """Return what stands for a matrix, and the scales of its groups.

    Args:
        weight: `(outputs, inputs)`.
        moments: the sum of the products of its inputs, `(inputs, inputs)` in float32.
        group: inputs that share a scale.
    """
    torch = require("torch", extra="finetune")
    left, factor, scales = weight.detach().float().clone(), _factor(moments), []
    for first in range(0, left.shape[1], group):
        here = slice(first, first + group)
        columns, upper, errors = left[:, here], factor[here, here], []
        scales.append(_scale(columns, weight.dtype))
        for number in range(group):
            column = columns[:, number].clone()
            columns[:, number] = _nearest(column, scales[-1])
            errors.append((column - columns[:, number]) / upper[number, number])
            columns[:, number + 1 :] -= torch.outer(errors[-1], upper[number, number + 1 :])
        left[:, first + group :] -= torch.stack(errors, 1) @ factor[here, first + group :]
    return left.to(weight.dtype), torch.stack(scales, 1).to(weight.dtype)


def working_bytes(shape: ModelShape, *, dtype: str) -> int:
    """Return what rounding all layers takes at its peak, beside the weights of the model.

    What comes into and out of a layer for all rows while these are summed; or what comes in, the
    sums of modules to come and, of the one at hand, twice as much again and two copies in float32.
    """
    states = ROWS * ROW_TOKENS * shape.hidden * BYTES[dtype]
    linear = shape.targeted("all-linear")
    peak = 0
    for _, found in groupby(filter(block_of, linear), key=block_of):
        sizes = [linear[path] for path in found]
        sums = sum(4 * ins * ins for ins, _ in sizes)
        peak = max(peak, 2 * states + sums)
        for ins, outs in sizes:
            peak = max(peak, states + sums + 4 * (2 * ins * ins + 2 * ins * outs))
            sums -= 4 * ins * ins
    return peak


def _nearest(weights: Any, scale: Any) -> Any:
    return (weights / scale).round().clamp(LEAST, MOST) * scale


def _scale(weights: Any, dtype: Any) -> Any:
    """Return the scale of each output, as it will be stored."""
    torch = require("torch", extra="finetune")
    whole = weights.abs().amax(1) / ((MOST - LEAST) / 2)
    best, least = whole, torch.full_like(whole, torch.inf)
    for share in (1.0, *SHARES):
        scale = (whole * share).clamp_min(torch.finfo(dtype).tiny).to(dtype).float()
        error = (_nearest(weights, scale[:, None]) - weights).square().sum(1)
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best


def _factor(moments: Any) -> Any:
    torch = require("torch", extra="finetune")
    if not moments.isfinite().all():
        moments = torch.zeros_like(moments)  # whoever compares the models tells of it
    diagonal = moments.diagonal().clone()
    moments.diagonal().add_(DAMPING * diagonal.mean())
    moments.diagonal()[diagonal == 0] = 1  # no row brings it: rounded for itself
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(moments))
    return torch.linalg.cholesky(inverse, upper=True)


def _called(model: Any, layers: Sequence[Any], row: Sequence[int]) -> list[_Call]:
    """Ask a model, and return how each of its layers was called for that."""
    torch = require("torch", extra="finetune")
    calls = []

    def note(_: Any, given: tuple[Any, ...], options: dict[str, Any]) -> None:
        calls.append(_Call(given, dict(options)))
        if len(calls) > 1:
            calls[-1].hand(None)  # it will be given what the layer before says once it is rounded

    hooks = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        asked = torch.tensor([list(row[:ROW_TOKENS])], device=model.device)
        model(input_ids=asked, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    if len(calls) != len(layers):
        raise InvalidRequest(f"{len(layers)} layers were called {len(calls)} times, not once each")
    return calls


def _run(layer: Any, calls: Sequence[_Call]) -> list[Any]:
    found = [layer(*call.given, **call.options) for call in calls]
    return [each[0] if isinstance(each, tuple) else each for each in found]


@contextmanager
def _watched(modules: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Sum the products of what is given to modules."""
    torch = require("torch", extra="finetune")
    moments = {
        path: torch.zeros(2 * (module.in_features,), device=module.weight.device)
        for path, module in modules.items()
    }

    def see(path: str) -> Callable[[Any, Any], None]:
        def add(_: Any, given: Any) -> None:
            inputs = given[0].reshape(-1, given[0].shape[-1]).float()
            moments[path].addmm_(inputs.T, inputs)

        return add

    hooks = [module.register_forward_pre_hook(see(path)) for path, module in modules.items()]
    try:
        yield moments
    finally:
        for hook in hooks:
            hook.remove()
