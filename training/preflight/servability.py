"""Whether the server will be able to host the adapter that comes out."""

from __future__ import annotations

from collections.abc import Iterable

from training.preflight import Check, Derived, Facts, Silent
from training.problems import Problem
from training.specification.method import Lora

CHECK = "servability"


class _Servability(Silent):
    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def problems(self, _: Derived) -> Iterable[Problem]:
        spec = self._facts.spec
        if spec.serve is None:
            return
        if spec.method.type == "reward":
            yield Problem(CHECK, "serve", "a model of rewards answers nobody; drop 'serve'")
        adapter = spec.method.adapter
        if not isinstance(adapter, Lora):
            yield Problem(
                CHECK,
                "method.adapter.type",
                f"servers host LoRA, not {adapter.type!r}; drop 'serve'",
            )
            return
        yield from self._lora(adapter)
        yield from self._base()

    def _lora(self, adapter: Lora) -> Iterable[Problem]:
        serve, served = self._facts.spec.serve, self._facts.served
        assert serve is not None
        if served is not None and served.max_rank is None:
            yield Problem(
                CHECK, "serve.upstream", f"{serve.upstream!r} takes no adapters; set its 'lora'"
            )
        asked = serve.max_rank if serve.engine == "vllm" else None
        limit = served.max_rank if served and served.max_rank else asked
        if limit is not None and adapter.r > limit:
            yield Problem(
                CHECK,
                "method.adapter.r",
                f"rank {adapter.r} is over the {limit} that the server takes; lower it, or raise "
                "max_lora_rank there and serve.max_rank here",
            )
        for name in ("dora", "modules_to_save", "trainable_tokens"):
            if getattr(adapter, name):
                yield Problem(
                    CHECK,
                    f"method.adapter.{name}",
                    "servers cannot host this beside a base; drop it or 'serve'",
                )
        if isinstance(adapter.targets, tuple):
            ends = [name for name in adapter.targets if name in {"lm_head", "embed_tokens"}]
            if ends:
                yield Problem(
                    CHECK,
                    "method.adapter.targets",
                    f"servers cannot host an adapter on {', '.join(map(repr, ends))}",
                )

    def _base(self) -> Iterable[Problem]:
        serve, base = self._facts.spec.serve, self._facts.base
        assert serve is not None
        if base is None or base.digest is None:
            return
        known = {"serve.base_digest": serve.base_digest}
        if self._facts.served is not None:
            known["serve.upstream"] = self._facts.served.digest
        for key, digest in known.items():
            if digest not in {None, base.digest}:
                what = f"the server serves {digest}, and this tunes {base.digest}"
                yield Problem(CHECK, key, what)


def build(facts: Facts) -> Check:
    return _Servability(facts)
