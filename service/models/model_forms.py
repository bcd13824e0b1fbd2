"""Other forms of tuned models: merged, compressed, exported; compared, gated, each a version."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.artifacts.publishing import Made
from infra.artifacts.refs import Reference
from infra.errors import InvalidRequest, NotFound
from infra.scratch import scratch_folder
from service.gateway.adapter_files import Base, check, fetch
from service.models import tuning

if TYPE_CHECKING:
    from service.wiring import Components
    from training.base_model import BaseModel
    from training.judging import Tuned, Verdict
    from training.parity import Parity
    from training.places import Places
    from training.spec import FineTuning
    from training.specification.delivery import Compress

CARD = "card.json"
MODEL = "model"
"""The kind of all forms."""
SCRATCH = "forms"
"""A folder within the data folder, for what is not registered yet."""
ADVICE = "it holds the whole model; on processors ('runtime: {device: cpu}') it takes longer"
"""Where the device is too small."""
EXPORTS = "it holds the whole model more than once, in float32; export it on a larger machine"
"""The same, where processors alone are asked."""


@dataclass(frozen=True, slots=True)
class Work:
    """What all forms need."""

    parts: Components
    spec: FineTuning
    beside: Path
    """From which paths of the specification are taken."""
    note: Callable[[str], None] = lambda _: None

    @property
    def places(self) -> Places:
        return tuning.places(self.parts, self.beside)

    def base(self) -> BaseModel:
        from training.base_model import find_base

        places = self.places
        return find_base(
            self.spec.base, folder=places.folder, store=places.store, checkout=places.checkout
        )

    def judge(self, made: Tuned, what: str) -> Verdict | None:
        """Have the suites asked of a whole model.

        Raises:
            NotPassed: they were asked, and it did not surely pass.
        """
        from training import judging

        around = tuning.around(self.parts, self.beside, note=self.note)
        found = judging.judged(self.spec, made, around.judge)
        judging.require_pass(found, what)
        return found


@dataclass(frozen=True, slots=True)
class Formed:
    """A form in the store."""

    reference: Reference
    card: Mapping[str, Any] = field(default_factory=dict)


def merge(work: Work, *, adapter: str | None = None, name: str | None = None) -> Formed:
    """Add an adapter to the weights of its base, as a model of its own.

    Args:
        work: what it is part of.
        adapter: a reference; that of the specification's alias by default, or, once a promotion
            has taken that away, of the alias that it is held against.
        name: of the model; that of the adapter and `-merged` by default.

    Raises:
        NotFound, InvalidRequest: there is no such adapter, or it was made for another base.
        Unlike, NotPassed: the merged model says something else, or does not pass the suites.
    """
    from training import adapted_model, exhaustion, merging, resolving
    from training.judging import Tuned

    parts, spec, base = work.parts, work.spec, work.base()
    reference = adapter or _own(parts, spec)
    found = fetch(parts.artifacts, reference, parts.settings.data_folder / "adapters")
    check(found, Base(frozenset({base.name, str(base.folder.resolve())}), digest=base.digest))
    stem = found.name.rpartition("@")[0]
    parents = [("adapter", f"adapter/{stem}@{found.digest}"), *_stored(base)]
    rows, device = resolving.first_rows(spec, work.places, base), spec.runtime.device
    with scratch_folder(parts.settings.data_folder / SCRATCH) as scratch:
        into = scratch / "merged"
        work.note(f"merging {found.name} into {base.name}")
        with exhaustion.told(ADVICE):
            parity = merging.merge(
                spec.base,
                base,
                found.folder,
                rows,
                into=into,
                device=adapted_model.device_of(device),
            )
        adapted_model.let_go()
        made = Tuned(base, into, is_whole=True, made_from=found.digest)
        verdict = work.judge(made, f"{found.name}, merged,")
        card = {"form": "merged", "dtype": spec.base.dtype}
        return _register(
            work, into, name or f"{stem}-merged", _Origin(card, parity, parents, verdict)
        )


def compress(work: Work, model: str, how: Compress, *, name: str | None = None) -> Formed:
    """Store the weights of a whole model in eight or four bits.

    Args:
        work: what it is part of.
        model: a folder or an artifact, such as `model/support-merged@v1`.
        how: in how many bits what is stored.
        name: of the model; that of the whole one and the scheme by default.

    Raises:
        NotFound, InvalidRequest: there is no such model, or it has no such form.
        MissingDependency: what writes the form is not installed.
        Unlike, NotPassed: perplexity grew by too much, or it does not pass the suites.
    """
    from training import adapted_model, compressing, exhaustion, resolving
    from training.judging import Tuned

    spec, base, scheme = work.spec, work.base(), how.scheme
    whole = _whole(work, model)
    rows, device = resolving.samples(spec, work.places, whole), spec.runtime.device
    with scratch_folder(work.parts.settings.data_folder / SCRATCH) as scratch:
        into = scratch / scheme
        work.note(f"compressing {whole.name} to {scheme}")
        with exhaustion.told(ADVICE):
            parity = compressing.compress(
                spec.base,
                whole,
                how,
                rows,
                into=into,
                device=adapted_model.device_of(device),
            )
        adapted_model.let_go()
        made = Tuned(base, into, is_whole=True, made_from=_adapter_in(work.parts, whole))
        verdict = work.judge(made, f"{whole.name} in {scheme}")
        card = {"form": scheme, "dtype": spec.base.dtype, "group_size": how.inputs_a_scale}
        origin = _Origin(card, parity, _stored(whole, role="whole"), verdict)
        return _register(work, into, name or f"{_stem(whole)}-{scheme}", origin)


def export(
    work: Work, model: str, format_: str, *, cache: bool = True, name: str | None = None
) -> Formed:
    """Write a whole model in another format.

    Args:
        work: what it is part of.
        model: a folder or an artifact, such as `model/support-merged@v1`.
        format_: a file of `training/exporters`.
        cache: whether what is written keeps the keys and values of tokens, to go on from them.
        name: of the artifact; that of the whole one and the format by default.

    Raises:
        NotFound, InvalidRequest: there is no such model, or it cannot be written so.
        InvalidConfiguration: there is no such format.
        MissingDependency: what it takes is not installed.
        Unlike: what runs that format says something else of it.
    """
    from training import exhaustion, exporting, resolving

    whole = _whole(work, model)
    rows = resolving.first_rows(work.spec, work.places, whole)
    with scratch_folder(work.parts.settings.data_folder / SCRATCH) as scratch:
        into = scratch / format_
        work.note(f"writing {whole.name} as {format_}")
        with exhaustion.told(EXPORTS):
            parity = exporting.export(whole, format_, rows, into=into, cache=cache)
        card = {"form": format_, "dtype": "float32", "cache": cache}
        origin = _Origin(card, parity, _stored(whole, role="whole"))
        return _register(work, into, name or f"{_stem(whole)}-{format_}", origin)


@dataclass(frozen=True, slots=True)
class _Origin:
    card: Mapping[str, Any]
    parity: Parity
    parents: Sequence[tuple[str, str]]
    verdict: Verdict | None = None


def _register(work: Work, folder: Path, name: str, origin: _Origin) -> Formed:
    card = {**origin.card, "parity": origin.parity.as_json(), "spec": work.spec.digest}
    parents, verdict = [*origin.parents], origin.verdict
    if verdict is not None:
        card |= {"verdict": verdict.verdict, "gates": list(verdict.gates)}
        parents += verdict.evaluations
    (folder / CARD).write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", "utf-8")
    made = Made(metadata=card, parents=tuple(parents))
    reference = work.parts.artifacts.put(folder, f"{MODEL}/{name}", made)
    return Formed(reference, card)


def _own(parts: Components, spec: FineTuning) -> str:
    from training.specification.delivery import BASE

    if spec.register_as is None:
        raise InvalidRequest("The specification registers no adapter; name one with --adapter")
    stem, alias = f"adapter/{spec.register_as.name}", spec.register_as.alias
    if alias is None:
        return stem
    if spec.evaluate.against != BASE:
        try:
            parts.artifacts.find(f"{stem}@{alias}")
        except NotFound:  # a promotion takes it away
            return f"{stem}@{spec.evaluate.against}"
    return f"{stem}@{alias}"


def _adapter_in(parts: Components, model: BaseModel) -> str | None:
    """Return the digest of the adapter that was merged into a model, if the store knows."""
    for _, itself in _stored(model):
        parents = parts.artifacts.resolve(itself).parents
        return next((each.digest for each in parents if each.role == "adapter"), None)
    return None


def _whole(work: Work, model: str) -> BaseModel:
    from training.base_model import find_base
    from training.specification.base import Base as Asked

    places = work.places
    return find_base(
        Asked(model=model), folder=Path.cwd(), store=places.store, checkout=places.checkout
    )


def _stored(model: BaseModel, *, role: str = "base") -> list[tuple[str, str]]:
    """Return a model as a parent, if it is an artifact."""
    if not model.name.startswith(f"{MODEL}/"):
        return []
    return [(role, f"{model.name.partition('@')[0]}@{model.digest}")]


def _stem(model: BaseModel) -> str:
    return Path(model.name.partition("@")[0]).name
