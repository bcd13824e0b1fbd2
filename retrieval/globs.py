"""Which names of a source are wanted: those of one list of globs, less those of another."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping


class Globs:
    """The options `include` and `exclude`, each with globs between commas; `*` crosses slashes.

    >>> Globs({"include": "*.md, *.txt", "exclude": "drafts/*"}).choose("drafts/a.md")
    False
    """

    OPTIONS = ("include", "exclude")

    def __init__(self, options: Mapping[str, str]) -> None:
        self._include, self._exclude = (_split(options.get(name, "")) for name in self.OPTIONS)

    def choose(self, name: str) -> bool:
        """Whether a name is wanted; without `include` all are that are not excluded."""
        if self._include and not any(fnmatch.fnmatchcase(name, glob) for glob in self._include):
            return False
        return not any(fnmatch.fnmatchcase(name, glob) for glob in self._exclude)


def _split(text: str) -> tuple[str, ...]:
    return tuple(glob.strip() for glob in text.split(",") if glob.strip())
