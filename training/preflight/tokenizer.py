"""Whether tokenizer and model belong together: tokens have embeddings, one ends a text."""

from __future__ import annotations

from collections.abc import Iterable

from training.base_model import BaseModel
from training.preflight import Check, Derived, Facts, Silent
from training.problems import Problem
from training.specification.method import Lora

CHECK = "tokenizer"


class _Tokenizer(Silent):
    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def problems(self, _: Derived) -> Iterable[Problem]:
        base = self._facts.base
        if base is None:
            return
        rows, tokens = base.shape.vocabulary, len(base.tokenizer)
        if tokens > rows:
            yield Problem(
                CHECK,
                "base.model",
                f"the tokenizer has {tokens} tokens and the model embeddings for {rows}; resize "
                "them, or take the tokenizer of this model",
            )
        if not base.end_ids:
            yield Problem(CHECK, "base.model", "no token ends a text: name one as eos_token")
        if base.tokenizer.pad_token_id is None and base.tokenizer.eos_token_id is None:
            yield Problem(CHECK, "base.model", "no token to pad with: name one as pad_token")
        yield from self._targets(base)

    def _targets(self, base: BaseModel) -> Iterable[Problem]:
        adapter = self._facts.spec.method.adapter
        targets = getattr(adapter, "targets", "all-linear")
        if targets != "all-linear":
            missing = [name for name in targets if not base.shape.targeted((name,))]
            if missing:
                known = sorted({path.rpartition(".")[2] for path in base.shape.linear})
                yield Problem(
                    CHECK,
                    "method.adapter.targets",
                    f"the base has no linear module {', '.join(map(repr, missing))}; it has "
                    f"{', '.join(known)}",
                )
        if isinstance(adapter, Lora):
            wrong = [token for token in adapter.trainable_tokens if token >= base.shape.vocabulary]
            if wrong:
                yield Problem(
                    CHECK,
                    "method.adapter.trainable_tokens",
                    f"{wrong} are no tokens of the base, which has {base.shape.vocabulary}",
                )


def build(facts: Facts) -> Check:
    return _Tokenizer(facts)
