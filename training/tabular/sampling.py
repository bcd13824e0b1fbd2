"""Draws the rows that are trained on by a plan, and evens out classes within a fold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from infra.classical import text_of
from infra.errors import InvalidRequest, NotFound
from training.tabular.specification import Sampling

if TYPE_CHECKING:
    import polars as pl

Places = NDArray[np.intp]


def draw(frame: pl.DataFrame, places: Places, plan: Sampling, *, seed: int) -> Places:
    """Return those of some rows that a plan takes, in their order.

    Raises:
        NotFound: the column `by` does not exist.
        InvalidRequest: there are fewer rows than the plan needs.
    """
    if plan.plan not in {"stratified", "quota"}:
        return places
    by = str(plan.by)
    if by not in frame.columns:
        raise NotFound("column", by, among=frame.columns)
    strata: dict[str, list[int]] = {}
    for place, value in zip(places.tolist(), frame[by].gather(places).to_list(), strict=True):
        strata.setdefault(_text(value), []).append(place)
    wanted = (
        dict(plan.quotas)
        if plan.plan == "quota"
        else _shares({name: len(mine) for name, mine in strata.items()}, int(plan.rows or 0))
    )
    random = np.random.default_rng(seed)
    taken: list[int] = []
    for name, count in wanted.items():
        mine = strata.get(name, [])
        if len(mine) < count:
            raise InvalidRequest(
                f"sampling: {count} rows with {by!r} {name!r} are wanted, and {len(mine)} are left "
                "for training"
            )
        taken += random.permutation(np.array(mine, dtype=np.intp))[:count].tolist()
    chosen = set(taken)
    return np.array([place for place in places.tolist() if place in chosen], dtype=np.intp)


def weights(frame: pl.DataFrame, plan: Sampling) -> NDArray[np.float64] | None:
    """Return what each row counts, `None` where all count the same.

    Raises:
        NotFound: the column does not exist.
        InvalidRequest: a weight is no number above 0.
    """
    if plan.weight is None:
        return None
    if plan.weight not in frame.columns:
        raise NotFound("column", plan.weight, among=frame.columns)
    try:
        found = np.asarray(frame[plan.weight].to_numpy(), dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidRequest(f"sampling.weight: {plan.weight!r} holds no numbers") from None
    wrong = ~(np.isfinite(found) & (found > 0))
    if wrong.any():
        place = int(np.argmax(wrong))
        raise InvalidRequest(
            f"sampling.weight: {plan.weight!r} is {found[place]!r} in row {place}; it must be a "
            "number above 0"
        )
    return found


def even_out(codes: NDArray[Any], method: str, *, seed: int) -> Places:
    """Return places of rows to train on, with as many of each class as of the others.

    Args:
        codes: classes of the rows of one fold that are trained on.
        method: `over` repeats rows of rare classes, `under` leaves out of the frequent ones.
        seed: of the draws.
    """
    everything = np.arange(len(codes), dtype=np.intp)
    if method == "none":
        return everything
    random = np.random.default_rng(seed)
    by_class = [everything[codes == code] for code in np.unique(codes)]
    sizes = [len(mine) for mine in by_class]
    if method == "under":
        kept = [random.permutation(mine)[: min(sizes)] for mine in by_class]
    else:
        kept = [
            np.concatenate([mine, random.choice(mine, max(sizes) - len(mine))]) for mine in by_class
        ]
    return np.sort(np.concatenate(kept))


def _text(value: Any) -> str:
    if value is None:
        return ""
    return text_of(value) if isinstance(value, str | int | float) else str(value)


def _shares(sizes: dict[str, int], rows: int) -> dict[str, int]:
    """Divide rows among strata as they are in all, by largest remainders."""
    total = sum(sizes.values())
    if rows > total:
        raise InvalidRequest(f"sampling.rows: {rows} are wanted, and {total} are left for training")
    exact = {name: size * rows / total for name, size in sizes.items()}
    found = {name: int(share) for name, share in exact.items()}
    rest = sorted(exact, key=lambda name: (found[name] - exact[name], name))
    for name in rest[: rows - sum(found.values())]:
        found[name] += 1
    return found
