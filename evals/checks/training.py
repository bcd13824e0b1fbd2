"""Training: the code that trains can overfit one batch, and gets through one epoch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from evals.check import PACKAGE, Finding, Parameters, Subject
from evals.checks._trainees import Rows, batch, constant, numbers, quality, rows
from evals.gates import Verdict
from evals.suite import Suite
from infra.errors import InvalidRequest
from infra.plugins import load

_DOTTED = r"^(\w+(\.\w+)+)?$"


class Training(Parameters):
    """Trains on the suite's own cases, whose inputs and labels are handed over as they are.

    What cannot overfit 32 rows has a fault in its data path, loss or update, which no larger run
    would show (Karpathy 2019, "A recipe for training neural networks").
    """

    test: Literal["overfit_one_batch", "one_epoch"] = "overfit_one_batch"
    estimator: str = Field(default="", pattern=_DOTTED)
    """The dotted path of what returns an untrained estimator with `fit` and `predict`."""
    train: str = Field(default="", pattern=_DOTTED)
    """The dotted path of a function that is called with inputs, labels and the keywords `epochs`
    and `seed`, and returns the loss of each step."""
    batch: int = Field(default=32, ge=2)
    epochs: int = Field(default=200, ge=2)
    """For which `train` is to overfit a batch."""
    rows: int = Field(default=1_000, ge=4)
    """At most, of one epoch; a quarter of them is held out from an estimator."""
    at_least: float = Field(default=0.99, gt=0, le=1)
    """The accuracy, or R2, that an estimator reaches on the batch it was trained on."""
    loss_share: float = Field(default=0.1, gt=0, lt=1)
    """What may be left of the first loss after overfitting."""

    def require(self, suite: Suite) -> None:
        del suite
        if bool(self.estimator) == bool(self.train):
            raise InvalidRequest("needs either `estimator` or `train`, a dotted path")

    def check(self, subject: Subject) -> Finding:
        given, seed = rows(subject), subject.suite.seed
        if self.estimator:
            overfit = self.test == "overfit_one_batch"
            return self._overfitted(given) if overfit else self._fitted(given)
        return self._losses(given, seed)

    def _overfitted(self, given: Rows) -> Finding:
        chosen = _varied(batch(given, self.batch))
        name, reached = quality(chosen[1], _predicted(self._fit(chosen), chosen[0]))
        evidence = (
            ("rows", str(len(chosen[0]))),
            (f"{name} on the rows it was trained on", f"{reached:.4g}"),
            ("must be at least", f"{self.at_least:g}"),
        )
        if reached >= self.at_least:
            return Finding(
                Verdict.PASS, f"it learns a batch of {len(chosen[0])} by heart", evidence
            )
        return Finding(
            Verdict.FAIL, f"it cannot learn {len(chosen[0])} rows: {name} {reached:.4g}", evidence
        )

    def _fitted(self, given: Rows) -> Finding:
        inputs, labels = (each[: self.rows] for each in given)
        held = max(1, len(inputs) // 4)
        model = self._fit((inputs[held:], labels[held:]))
        name, trained = quality(labels[held:], _predicted(model, inputs[held:]))
        _, apart = quality(labels[:held], _predicted(model, inputs[:held]))
        least = constant(labels[held:])
        evidence = (
            ("rows", f"{len(inputs) - held} to train on, {held} held out"),
            (f"{name} where it was trained", f"{trained:.4g}"),
            (f"{name} held out", f"{apart:.4g}"),
            (f"{name} of a constant", f"{least:.4g}"),
        )
        if trained > least:
            return Finding(Verdict.PASS, "it trains, predicts, and beats a constant", evidence)
        return Finding(Verdict.FAIL, f"it learns no more than a constant: {name}", evidence)

    def _losses(self, given: Rows, seed: int) -> Finding:
        overfit = self.test == "overfit_one_batch"
        inputs, labels = _varied(batch(given, self.batch)) if overfit else _first(given, self.rows)
        epochs = self.epochs if overfit else 1
        function = load(PACKAGE, self.train)
        losses = numbers(list(function(inputs, labels, epochs=epochs, seed=seed)))
        if len(losses) < 2:
            raise InvalidRequest(f"{self.train} gave {len(losses)} losses; give that of each step")
        some = max(1, len(losses) // 4)
        first = losses[0] if overfit else sum(losses[:some]) / some
        last = losses[-1] if overfit else sum(losses[-some:]) / some
        wanted = first * self.loss_share if overfit else first
        evidence = (
            ("rows", str(len(inputs))),
            ("steps", f"{len(losses):,}"),
            ("loss at first", f"{first:.4g}"),
            ("loss at last", f"{last:.4g}"),
            ("must be below", f"{wanted:.4g}"),
        )
        verdict = Verdict.PASS if last < wanted else Verdict.FAIL
        return Finding(verdict, f"the loss goes from {first:.4g} to {last:.4g}", evidence)

    def _fit(self, given: Rows) -> Any:
        model = load(PACKAGE, self.estimator)()
        model.fit(*given)
        return model


def _varied(given: Rows) -> Rows:
    """Return a batch, of which a constant is no good answer.

    Raises:
        InvalidRequest: all its labels are the same.
    """
    if len({repr(label) for label in given[1]}) < 2:
        raise InvalidRequest(
            f"All {len(given[1])} rows have the label {given[1][0]!r:.40}, which a constant learns "
            "too; give cases with two different labels at least"
        )
    return given


def _predicted(model: Any, inputs: list[Any]) -> list[Any]:
    return list(model.predict(inputs))


def _first(given: Rows, count: int) -> Rows:
    return given[0][:count], given[1][:count]


build = Training.model_validate
