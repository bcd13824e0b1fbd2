"""Asks a tuned model the suites of its specification beside its base, and holds it to gates."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from evals import problems
from evals.gates import WORST_FIRST
from evals.suite import Gate, Suite, read
from evals.target_kinds import ModelTarget, UrlTarget
from infra.errors import InvalidRequest, NotFound, RagstoneError
from service.evaluation import evaluating
from service.evaluation.targets._chats import body_of, output_of
from service.gateway.adapter_files import CONFIG, Adapter, Base, check, fetch
from service.generation.chat import ServedChat

if TYPE_CHECKING:
    from evals.trial import Case, Output
    from evals.verdicts import Judgement
    from service.engines import ModelServer
    from service.evaluation.evaluating import Stored
    from service.wiring import Components
    from training.base_model import BaseModel
    from training.judging import Looked, Tuned, Verdict
    from training.spec import FineTuning

Evaluations: TypeAlias = tuple[tuple[str, str], ...]
"""With the role of each."""
TUNED, RIVAL, PLAIN = "tuned", "rival", "base"
"""What the server calls the adapter, that of an alias, and the model without any."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One suite with all gates that the specification and its file put on it."""

    key: str
    """Of the specification, where it is named first."""
    suite: Suite
    folder: Path
    kind: ModelTarget


class TunedAnswers:
    """A model of a server in this process as the target of an evaluation; others close the server.

    Args:
        kind: how it is asked.
        identity: what decides its answers beside that.
        server: None where it is not asked yet.
    """

    def __init__(
        self,
        kind: ModelTarget,
        identity: Mapping[str, Any],
        server: ModelServer | None = None,
        parents: Sequence[tuple[str, str]] = (),
    ) -> None:
        self._kind = kind
        self._server = server
        self.parents = parents
        self.identity: Mapping[str, Any] = {**kind.model_dump(mode="json"), **identity}

    async def __call__(self, case: Case, *, seed: int) -> Output:
        assert self._server is not None
        chat = ServedChat(self._server, self._kind.model)
        return await output_of(self._kind, chat.complete(body_of(self._kind, case, seed)))

    async def close(self) -> None:
        """Leave the server to the other suites."""


def look(parts: Components, spec: FineTuning, folder: Path, base: BaseModel | None) -> Looked:
    """Find what is wrong with the suites of a specification; nothing is asked.

    Args:
        parts: of the process.
        spec: whose suites are looked at.
        folder: from which their paths are taken.
        base: of the tuned model, if it is there.
    """
    from training.judging import Looked
    from training.problems import Problem

    found, notes = [], []
    for key, gates in _wanted(spec):
        try:
            asked = _asked(key, gates, folder)
            plan = evaluating.plan(
                parts, asked.suite, asked.folder, target=TunedAnswers(asked.kind, {})
            )
        except (RagstoneError, OSError) as error:
            found.append(Problem("suites", key, str(error)))
            continue
        notes += [f"whether {key} can be told: {each}" for each in evaluating.shortages(plan)]
        notes += [f"{key}: {each}" for each in evaluating.remarks(plan)]
    try:
        _rival(parts, spec, base)
    except RagstoneError as error:
        found.append(Problem("suites", "evaluate.against", error.message))
    return Looked(found, notes)


def judge(
    parts: Components,
    spec: FineTuning,
    tuned: Tuned,
    folder: Path,
    *,
    note: Callable[[str], None] = lambda _: None,
) -> Verdict:
    """Ask every suite of the tuned model and of what it is held against; keep all of it.

    A run that was stopped in the middle goes on where it had come to. Another form of the adapter
    that it would be held against must be no worse than that by `regressions`, and where there are
    none, is held against the base.

    Raises:
        EngineFailed: the model or an adapter cannot be loaded.
        StorageFailed: a store is full or out of reach.
    """
    from training.judging import Verdict

    rival = _rival(parts, spec, tuned.base)
    asked = [_asked(key, gates, folder) for key, gates in _wanted(spec)]
    if rival is not None and tuned.made_from == rival.digest:
        # Another form of the rival is at best as good.
        if spec.evaluate.regressions:
            asked = list(_without_gains(asked))
        else:
            rival = None
    found = asyncio.run(_judge_all(_Round(parts, spec, tuned, rival, folder, note), asked))
    words = [judgement.verdict for _, judgement, _ in found]
    worst = next((each for each in WORST_FIRST if each in words), None)
    reasons = [
        f"{name}: {_reason(judgement)}"
        for name, judgement, _ in found
        if judgement.verdict == worst
    ]
    return Verdict(
        str(worst or "pass"),
        "; ".join(reasons),
        [gate for name, judgement, _ in found for gate in _told(name, judgement)],
        [each for *_, evaluations in found for each in evaluations],
    )


@dataclass(frozen=True, slots=True)
class _Round:
    parts: Components
    spec: FineTuning
    tuned: Tuned
    rival: Adapter | None
    folder: Path
    note: Callable[[str], None]


async def _judge_all(
    now: _Round, asked: Sequence[Asked]
) -> list[tuple[str, Judgement, Evaluations]]:
    """Ask everything of one model before the next is loaded."""
    spec, base, tuned, rival = now.spec, now.tuned.base, now.tuned, now.rival
    adapters = {} if tuned.is_whole else {TUNED: tuned.folder}
    if rival is not None:
        adapters[RIVAL] = rival.folder
    identity = {"base": base.digest or base.name, "dtype": spec.base.dtype}
    if (template := _template(spec, base)) is not None:
        identity["template"] = _digest(now.folder / template)
    async with _serving(now, base.folder, PLAIN, adapters) as server:
        against = [await _ask_rival(now, each, server, identity) for each in asked]
        if not tuned.is_whole:
            mine = {**identity, "adapter": _files(tuned.folder)}
            return [
                await _judge(now, each, TunedAnswers(each.kind, mine, server), before)
                for each, before in zip(asked, against, strict=True)
            ]
    async with _serving(now, tuned.folder, TUNED, {}) as server:
        mine = {**identity, "model": _files(tuned.folder)}
        return [
            await _judge(now, each, TunedAnswers(each.kind, mine, server), before)
            for each, before in zip(asked, against, strict=True)
        ]


@asynccontextmanager
async def _serving(
    now: _Round, model: Path, name: str, adapters: Mapping[str, Path]
) -> AsyncIterator[ModelServer]:
    from service.engines.transformers_local import LocalServer, Options

    spec, template = now.spec, _template(now.spec, now.tuned.base)
    server = LocalServer(
        Options(
            str(model),
            served_name=name,
            device=spec.runtime.device,
            dtype=spec.base.dtype,
            chat_template="" if template is None else str(now.folder / template),
        )
    )
    try:
        for each, folder in adapters.items():
            await server.load(each, folder)
        yield server
    finally:
        await server.close()


def _template(spec: FineTuning, base: BaseModel) -> str | None:
    """Return the file of the server's template, if that is not the tokenizer's."""
    if spec.data.serving_template is not None:
        return spec.data.serving_template
    return None if getattr(base.tokenizer, "chat_template", None) else spec.base.template


async def _ask_rival(
    now: _Round, asked: Asked, server: ModelServer, identity: Mapping[str, Any]
) -> Stored:
    rival, parents = now.rival, []
    if rival is not None:
        parents = [("adapter", f"adapter/{rival.name.partition('@')[0]}@{rival.digest}")]
    target = TunedAnswers(
        asked.kind.model_copy(update={"model": PLAIN if rival is None else RIVAL}),
        {**identity, "adapter": None if rival is None else rival.digest},
        server,
        parents,
    )
    now.note(f"suite {asked.suite.name}: asking {'the base' if rival is None else rival.name}")
    plain = asked.suite.model_copy(update={"gates": (), "checks": ()})
    asking = evaluating.ask(now.parts, plain, asked.folder, target=target)
    return (await asking)[0]


async def _judge(
    now: _Round, asked: Asked, target: TunedAnswers, before: Stored
) -> tuple[str, Judgement, Evaluations]:
    now.note(f"suite {asked.suite.name}: asking the tuned model")
    after, judgement = await evaluating.ask(
        now.parts, asked.suite, asked.folder, target=target, before=before
    )
    evaluations = (("evaluation", str(after.reference)), ("against", str(before.reference)))
    return asked.suite.name, judgement, evaluations


def _wanted(spec: FineTuning) -> Iterator[tuple[str, list[tuple[str, Gate]]]]:
    """Return each suite once, by the key that names it first, with what is demanded in it."""
    found: dict[str, tuple[str, list[tuple[str, Gate]]]] = {}
    demands = [
        *((f"suites.{n}", each.suite, Gate(metric=each.metric, gain=each.min_gain))
          for n, each in enumerate(spec.evaluate.suites)),
        *((f"regressions.{n}", each.suite, Gate(metric=each.metric, margin=each.max_loss))
          for n, each in enumerate(spec.evaluate.regressions)),
    ]  # fmt: skip
    for place, suite, gate in demands:
        _, gates = found.setdefault(suite, (f"evaluate.{place}", []))
        gates.append((suite, gate))
    yield from found.values()


def _asked(key: str, gates: Sequence[tuple[str, Gate]], folder: Path) -> Asked:
    """Return a suite with the gates of its file and of the specification.

    Raises:
        NotFound: there is no such file.
        InvalidRequest: it asks no model, or does not measure what is demanded.
    """
    named = Path(gates[0][0])
    path = folder / named if (folder / named).is_file() else named
    suite = read(path)
    target = suite.target
    if not isinstance(target, ModelTarget | UrlTarget):
        raise InvalidRequest(
            f"{suite.name!r} asks a {target.kind}; a tuned model is asked by suites whose target "
            "is a 'model' or 'url'"
        )
    metrics = [use.name for use in suite.metrics]
    for _, gate in gates:
        if gate.metric not in metrics:
            raise InvalidRequest(
                f"suite {suite.name!r}: {problems.unknown('metric', gate.metric, metrics)}"
            )
    how = {
        name: getattr(target, name) for name in ("system", "max_tokens", "temperature", "refusals")
    }
    kind = ModelTarget(kind="model", model=TUNED, **how)
    whole = suite.model_copy(
        update={"gates": (*suite.gates, *(gate for _, gate in gates)), "target": kind}
    )
    return Asked(key, whole, path.parent if path.is_file() else folder, kind)


def _without_gains(asked: Sequence[Asked]) -> Iterator[Asked]:
    """Yield suites as far as they demand something else than to be better."""
    for each in asked:
        gates = tuple(gate for gate in each.suite.gates if gate.gain is None)
        if gates or each.suite.checks:
            yield replace(each, suite=each.suite.model_copy(update={"gates": gates}))


def _rival(parts: Components, spec: FineTuning, base: BaseModel | None) -> Adapter | None:
    """Return the adapter that the tuned one is held against; None where that is the base.

    Raises:
        InvalidRequest: it was made for another base.
    """
    from training.specification.delivery import BASE

    against, register = spec.evaluate.against, spec.register_as
    if against == BASE or register is None:
        return None
    reference = f"adapter/{register.name}@{against}"
    with suppress(NotFound):
        found = fetch(parts.artifacts, reference, parts.settings.data_folder / "adapters")
        if base is not None:
            names = frozenset({base.name, str(base.folder), str(base.folder.resolve())})
            check(found, Base(names, digest=base.digest))
        return found
    return None


def _told(suite: str, judgement: Judgement) -> Iterator[dict[str, Any]]:
    """Return what a card says of each gate."""
    for each in judgement.decisions:
        interval = each.interval
        yield {
            "suite": suite,
            "metric": each.gate.metric,
            "slice": each.gate.slice,
            "kind": each.gate.kind,
            "threshold": each.threshold,
            "verdict": str(each.verdict),
            "estimate": None if interval is None else interval.estimate,
            "low": None if interval is None else interval.low,
            "high": None if interval is None else interval.high,
            "cases": each.cases,
        }


def _reason(judgement: Judgement) -> str:
    blocking = [
        f"{each.gate.name} is {each.verdict} ({each.reason})"
        for each in judgement.decisions
        if each.blocks
    ]
    blocking += [str(each.name) for each in judgement.findings if each.blocks]
    return judgement.reason or ", ".join(blocking)


def _files(folder: Path) -> dict[str, str]:
    """Return the digests of what decides the answers of a model or an adapter."""
    return {
        each.name: _digest(each)
        for each in sorted(folder.iterdir())
        if each.suffix == ".safetensors" or each.name in {CONFIG, "config.json"}
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
