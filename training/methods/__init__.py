"""Methods: plug-ins that say what is learned from rows, each over a trainer of trl.

A plug-in is a file with `build(method) -> Learning`, and its name is the `method.type` of a
specification. The laws, run over each by `tests/contracts/test_methods.py`: before training the
loss of any rows is what `starts_at` says, and it is the one that the trainer computes. The smallest
is `sft`:

>>> from training.specification.method import Method
>>> from training.tokenized import Tokenized
>>> found = learning(Method(type="sft"))
>>> found.starts_at(1)
Start(low=0.0, high=0.0)
>>> found.weight(Tokenized([[5, 7, 9, 2]], [[-100, -100, 9, 2]]))
2
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from infra.plugins import load
from training.specification.method import Method

if TYPE_CHECKING:
    from training.spec import FineTuning
    from training.tokenized import Tokenized


@dataclass(frozen=True, slots=True)
class Start:
    """What the loss must be before anything is learned."""

    low: float
    high: float


class Learning(Protocol):
    """What a method learns from rows."""

    @property
    def left(self) -> float:
        """Of the first loss, what may be left once a batch was learned by heart."""
        ...

    @property
    def heart_rate(self) -> float | None:
        """The learning rate by which a batch is learned by heart; `None` for one like the run's."""
        ...

    @property
    def fewest_rows(self) -> int:
        """Rows that a device needs at once."""
        ...

    @property
    def is_mean_of_tokens(self) -> bool:
        """Whether the loss of rows is the mean over their tokens, and not over the rows."""
        ...

    def starts_at(self, vocabulary: int, /) -> Start:
        """Return bounds of the loss of a model with a new adapter."""
        ...

    def ready(self, model: Any, /) -> None:
        """Have a model with its adapter take no more memory for losses than in the trainer."""
        ...

    def loss(self, model: Any, rows: Tokenized, /) -> Any:
        """Return the mean loss of some rows, by a model made ready, as a tensor to learn from."""
        ...

    def weight(self, rows: Tokenized, /) -> int:
        """Return how many losses the mean of some rows is of."""
        ...

    def trainer(self) -> Any:
        """Return the class of the trainer."""
        ...

    def configuration(self) -> Any:
        """Return the class of what the trainer is told."""
        ...

    def arguments(self, spec: FineTuning, /) -> Mapping[str, Any]:
        """Return what this trainer is told beyond what all are."""
        ...

    def dataset(self, rows: Tokenized, /, *, seed: int) -> Any:
        """Return rows as the trainer takes them."""
        ...

    def collator(self, tokenizer: Any, /, *, max_length: int) -> Any:
        """Return what makes a batch of rows; `None` for the trainer's own."""
        ...

    def built(self, trainer: Any, /) -> None:
        """Mend a trainer after it was built."""
        ...


def learning(method: Method) -> Learning:
    """Return what a method learns."""
    return cast("Learning", load("training.methods", method.type)(method))


__all__ = ["Learning", "Start", "learning"]
