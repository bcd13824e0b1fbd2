"""Whether what comes out can be merged and stored in fewer bits, as `compress` asks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from training import compressing
from training.accelerators import GIB
from training.preflight import Check, Derived, Facts, Silent
from training.preflight.devices import FULL
from training.problems import Problem

CHECK = "compressible"


class _Compressible(Silent):
    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def problems(self, _: Derived) -> Iterable[Problem]:
        return [Problem(CHECK, where, what) for where, what in self._said()]

    def _said(self) -> Iterator[tuple[str, str]]:
        spec, base = self._facts.spec, self._facts.base
        how = spec.compress
        if how is None:
            return
        if spec.method.type == "reward":
            yield "compress", "a model of rewards is not merged; take it out"
        if compressing.is_missing(how):
            package = compressing.PACKAGES[how.scheme]
            what = f"{how.scheme} takes {package}; install it with: pip install 'ragstone[export]'"
            yield "compress.scheme", what
        if base is None:
            return
        for key, what in compressing.refused(base, how):
            yield f"compress.{key}", what
        memory = None if self._facts.machine is None else self._facts.machine.device_memory
        dtype = spec.base.dtype
        needed = compressing.device_bytes(base.shape, how, dtype=dtype)
        if memory is not None and needed > FULL * memory:
            yield (
                "compress",
                f"one device holds the whole model in {dtype} and what {how.scheme} takes at work, "
                f"{needed / GIB:.1f} GiB, and this one has {memory / GIB:.1f}",
            )


def build(facts: Facts) -> Check:
    return _Compressible(facts)
