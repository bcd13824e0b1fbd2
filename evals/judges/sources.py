"""Where a suite's rubrics come from: shipped, beside the suite, or among the artifacts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.judges.rubric import MAX_BYTES, Rubric, parse
from infra.errors import InvalidRequest, NotFound, TooLarge

KIND = "rubric"
_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Sources:
    """What parameters of metrics can name, and this process can open."""

    folder: Path
    """That files are relative to."""
    stored: Callable[[str], Rubric] | None = None
    """Opens a rubric of the artifact store; None where there is none."""
    baseline: str = ""
    """The digest of the evaluation that is compared with."""

    def settle(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters of a metric with the things in place of their names.

        Raises:
            NotFound: there is no such file or rubric.
            InvalidRequest: it is no rubric; says what is wrong.
        """
        found = dict(parameters)
        if isinstance(found.get("rubric"), str):
            found["rubric"] = self.rubric(found["rubric"])
        if found.get("against") == "baseline":
            found["baseline"] = self.baseline
        return found

    def rubric(self, name: str) -> Rubric | str:
        """Return the rubric of a file or of the store, and the name of a shipped one as it is."""
        if name.endswith(_ENDINGS):
            return _of_file(self.folder / name)
        if not name.startswith(f"{KIND}/"):
            return name
        if self.stored is None:
            raise InvalidRequest(f"{name!r} is in a store, and there is none here; name a file")
        return self.stored(name)


def _of_file(path: Path) -> Rubric:
    if not path.is_file():
        near = path.parent.glob("*.y*ml") if path.parent.is_dir() else ()
        raise NotFound("rubric", str(path), among=[str(each) for each in near])
    if path.stat().st_size > MAX_BYTES:
        raise TooLarge(
            f"{str(path)!r} has more than {MAX_BYTES:,} bytes; a rubric is a page of text"
        )
    try:
        return parse(path.read_text(encoding="utf-8-sig"), source=str(path))
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"{str(path)!r} is not text in UTF-8: {error.reason}") from None
