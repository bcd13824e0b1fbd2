"""A transformer that reads pairs of a text and a claim: loaded late, long texts read to the end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import InvalidConfiguration
from infra.model_hub import located
from infra.plugins import require
from infra.stretches import offsets, stretches
from infra.words import whole
from monitoring.columns import Floats
from monitoring.grounding.detectors import Finding
from monitoring.grounding.evidence import Evidence

EXTRA = "transformers"
LONGEST = 512
"""Tokens of a pair where neither the model nor its tokenizer says how many it reads."""
MOST_PARTS = 8
"""Of a claim; a sentence has one."""
_NO_VERDICT = 0.5
_SLACK = 6
"""Tokens more that a stretch may have by itself than it had within its text."""
_SPECIAL = 4
"""Tokens around a pair, at most."""

Risks = Callable[[Any, Any], list[float]]
"""From the model's logits and the batch of pairs to a risk for each pair."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How pairs are read."""

    device: str | None = None
    """As torch names it; the processor if absent."""
    batch_size: int = 16
    max_tokens: int | None = None
    """Of a pair; as the model says if absent."""


class PairModel:
    """Torch and the weights are loaded by the first question; several threads may ask."""

    def __init__(self, folder: Path, head: str, reading: Reading) -> None:
        """Take where the model is.

        Args:
            folder: with `config.json`, weights and a fast tokenizer.
            head: the class of transformers that opens it.
            reading: how.
        """
        self._folder = folder
        self._head = head
        self._reading = reading
        self._opening = threading.Lock()
        self._in_use = threading.Lock()
        """One call fills the cores, two only thrash; and a tokenizer keeps how it cuts and pads."""
        self._loaded: tuple[Any, Any] | None = None

    def judge(self, claims: Sequence[str], evidence: Evidence, risks: Risks) -> list[Finding]:
        """Return for each claim the least risk over all stretches of all texts.

        A claim that is longer than half of what is read at once is read in parts, and is as risky
        as the riskiest of them; of one that has too many parts, nothing is said.
        """
        with self._in_use:
            return self._judge(claims, evidence, risks)

    def _judge(self, claims: Sequence[str], evidence: Evidence, risks: Risks) -> list[Finding]:
        tokenizer, _ = self.open()
        texts = [_whole(each.above, each.text) for each in evidence.sources]
        texts = [whole(text) for text in texts if text.strip()]
        most = self.most_tokens() - _SPECIAL
        found = []
        for claim in claims:
            parts = list(stretches(tokenizer, whole(claim), most // 2))
            if not parts:
                found.append(Finding(0.0))
            elif not texts:
                found.append(Finding(1.0))
            elif len(parts) > MOST_PARTS:
                found.append(Finding(_NO_VERDICT))
            else:
                judged = [self._least(tokenizer, part, texts, most, risks) for part in parts]
                found.append(max(judged, key=lambda each: each.risk))
        return found

    def most_tokens(self) -> int:
        """Return how many tokens of a pair are read."""
        tokenizer, model = self.open()
        said = getattr(model.config, "max_position_embeddings", None) or LONGEST
        known = tokenizer.model_max_length
        return int(min(self._reading.max_tokens or said, said, known if known < 10**9 else said))

    def open(self) -> tuple[Any, Any]:
        """Return tokenizer and model.

        Raises:
            InvalidConfiguration: the folder holds no such model.
            MissingDependency: the packages for it are not installed.
        """
        with self._opening:
            if self._loaded is None:
                transformers = require("transformers", extra=EXTRA)
                where = {"local_files_only": True, "trust_remote_code": False}
                try:
                    tokenizer = transformers.AutoTokenizer.from_pretrained(self._folder, **where)
                    model = getattr(transformers, self._head).from_pretrained(
                        self._folder, use_safetensors=True, **where
                    )
                except (OSError, ValueError) as error:
                    raise InvalidConfiguration(
                        f"{str(self._folder)!r} is no model for {self._head}: {error}"
                    ) from error
                model.to(self._reading.device or "cpu").eval()
                self._loaded = tokenizer, model
            return self._loaded

    def _least(
        self, tokenizer: Any, claim: str, texts: Sequence[str], most: int, risks: Risks
    ) -> Finding:
        room = most - len(offsets(tokenizer, claim)) - _SLACK
        windows = [each for text in texts for each in stretches(tokenizer, text, max(1, room))]
        least = Finding(1.0)
        size = self._reading.batch_size
        for first in range(0, len(windows), size):
            batch = windows[first : first + size]
            for window, risk in zip(batch, self._risks(batch, claim, risks), strict=True):
                if risk < least.risk or not least.window:
                    least = Finding(min(risk, least.risk), window)
        return least

    def _risks(self, windows: Sequence[str], claim: str, risks: Risks) -> list[float]:
        tokenizer, model = self.open()
        torch = require("torch", extra=EXTRA)
        pairs = tokenizer(
            list(windows),
            [claim] * len(windows),
            truncation="only_first",
            max_length=self.most_tokens(),
            padding=True,
            return_tensors="pt",
        )
        with torch.inference_mode():
            logits = model(**pairs.to(model.device)).logits
        return risks(logits.float().cpu(), pairs)


@dataclass(frozen=True, slots=True)
class PairDetector:
    """Judges by what a model says of one of its labels."""

    name: str
    model: PairModel
    grounded_below: float
    unsupported_from: float
    place: Callable[[Any], int]
    """From the model's configuration to the place of the label; see `place_of`."""
    risks: Callable[[Any, Any, int], list[float]]
    """As `Risks`, given that place."""

    def judge(self, claims: Sequence[str], evidence: Evidence) -> list[Finding]:
        """Return a finding for each claim.

        Raises:
            InvalidConfiguration: the model has no such label.
        """
        _, model = self.model.open()
        place = self.place(model.config)
        return self.model.judge(
            claims, evidence, lambda logits, pairs: self.risks(logits, pairs, place)
        )


def place_of(config: Any, label: str | None, known: Sequence[str], *, what: str) -> int:
    """Return the place of a model's label, by its name or by those that such labels often have.

    Raises:
        InvalidConfiguration: the model has none of that name; the message says what it is for.
    """
    names = {str(name).lower(): int(at) for at, name in config.id2label.items()}
    wanted = known if label is None else (label.lower(),)
    found = next((names[each] for each in wanted if each in names), None)
    if found is None:
        raise InvalidConfiguration(
            f"Which label of {config.name_or_path!r} {what}? It has {', '.join(names)}; name it as "
            "`label`"
        )
    return found


def opened(model: str, head: str, reading: Reading) -> PairModel:
    """Find a model by folder or hub id.

    Raises:
        InvalidConfiguration: there is no such model, or it brings no fast tokenizer.
    """
    folder = located(model, extra=EXTRA)
    if not (folder / "config.json").is_file() or not (folder / "tokenizer.json").is_file():
        raise InvalidConfiguration(
            f"{str(folder)!r} holds no config.json and tokenizer.json; name another model"
        )
    return PairModel(folder, head, reading)


def chances(logits: Any) -> Floats:
    """Return probabilities over the last axis."""
    torch = require("torch", extra=EXTRA)
    found: Floats = torch.softmax(logits, dim=-1).numpy().astype("float64")
    return found


def _whole(above: str, text: str) -> str:
    return f"{above}\n{text}" if above else text
