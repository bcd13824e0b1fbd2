"""Finds the files and package versions that a step's outcome depends on besides its inputs."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from infra.errors import InvalidRequest, NotFound, TooLarge
from infra.pipelines.definition import Step
from infra.pipelines.parameters import near

OWN_PROGRAM = "ragstone"
MAX_FILES = 10_000
"""Code and local inputs of one step; what is more belongs into an artifact."""
_NOT_CODE = {"__pycache__", ".git", ".ragstone"}
_LISTED = 500


@dataclass(frozen=True, slots=True)
class Sources:
    """What a step is made of, as it stood when it was looked at."""

    code: Mapping[str, str]
    """Digests of the files laid out in the step's folder, by path."""
    local: Mapping[str, Mapping[str, str]]
    """By input that is a file or folder beside the pipeline file: path in it -> path there."""
    digests: Mapping[str, str]
    """Of the files of `local`, by path beside the pipeline file."""
    versions: Mapping[str, str]
    """Of packages and modules from elsewhere."""


@dataclass(slots=True)
class Project:
    """The folder of a pipeline file; each file is read once."""

    root: Path
    _digests: dict[str, str] = field(default_factory=dict)

    def sources(self, name: str, step: Step) -> Sources:
        """Return what a step depends on.

        Raises:
            NotFound: a file, module or function is not there; the nearest name is suggested.
            InvalidRequest: a source file is not Python.
            TooLarge: there are too many files.
        """
        paths = set(self._patterns(name, step)) | set(self._named(step.run))
        versions: dict[str, str] = {}
        if step.run[:1] == (OWN_PROGRAM,):
            versions = _distribution_version(OWN_PROGRAM)
        if step.python:
            module, _, function = step.python.partition(":")
            found = self._module(module, base=self.root)
            if found:
                _check_function(found[-1], function, entry=step.python)
                paths |= {self._relative(each) for each in self._closure(found, base=self.root)}
            else:
                versions |= _elsewhere(module, among=self._modules())
        if clash := next((each for each in sorted(paths) if each.split("/")[0] == "inputs"), None):
            raise InvalidRequest(
                f"steps.{name}: {clash!r} lies where inputs are laid out; move it to another folder"
            )
        local = {
            local: dict(self._local(name, place)) for local, place in step.local_inputs.items()
        }
        read = {path for files in local.values() for path in files.values()}
        if len(paths) + len(read) > MAX_FILES:
            raise TooLarge(
                f"steps.{name}: more than {MAX_FILES:,} files; store them as an artifact first"
            )
        return Sources(
            {path: self._digest(path) for path in sorted(paths)},
            local,
            {path: self._digest(path) for path in sorted(read)},
            versions,
        )

    def _patterns(self, name: str, step: Step) -> Iterator[str]:
        for pattern in step.code:
            matches = [
                path for path in sorted(self.root.glob(pattern)) if not _NOT_CODE & set(path.parts)
            ]
            if not matches:
                raise NotFound(f"file (steps.{name}.code)", pattern, among=self._files())
            for path in matches:
                yield from map(self._relative, _files_below(path))

    def _named(self, words: Iterable[str]) -> Iterator[str]:
        """Files that a command line names, and what those that are Python import."""
        before = ""
        for word in words:
            found: list[Path] = []
            base = self.root
            if before == "-m":
                found = self._module(word, base=base)
            elif _is_plain(word) and (self.root / word).is_file():
                found = [self.root / word]
                base = found[0].parent
            before = word
            if found and found[-1].suffix == ".py":
                found = self._closure(found, base=base)
            yield from map(self._relative, found)

    def _local(self, name: str, place: str) -> Iterator[tuple[str, str]]:
        path = self.root / place
        if not path.exists():
            raise NotFound(f"file (steps.{name}.inputs)", f"./{place}", among=self._files("./"))
        for file in _files_below(path):
            inside = file.name if path.is_file() else file.relative_to(path).as_posix()
            yield inside, self._relative(file)

    def _closure(self, files: Iterable[Path], *, base: Path) -> list[Path]:
        """Return files and all that they import from the project."""
        pending, seen = list(files), set(files)
        while pending:
            path = pending.pop()
            for module in _imports(path, base=base):
                for found in self._module(module, base=base):
                    if found not in seen:
                        seen.add(found)
                        pending.append(found)
        return sorted(seen)

    def _module(self, name: str, *, base: Path) -> list[Path]:
        """Return the file of a module in the project, after those of the packages it is in."""
        found: list[Path] = []
        place = base
        parts = name.split(".")
        for number, part in enumerate(parts):
            place = place / part
            package = place / "__init__.py"
            if package.is_file():
                found.append(package)
            elif number == len(parts) - 1:
                file = place.with_suffix(".py")
                return [*found, file] if file.is_file() else []
            elif not place.is_dir():
                return []
        return found

    def _digest(self, path: str) -> str:
        if path not in self._digests:
            file = self.root / path
            with file.open("rb") as source:
                digest = hashlib.file_digest(source, "sha256").hexdigest()
            runs = "+x" if file.stat().st_mode & 0o100 else ""
            self._digests[path] = f"sha256:{digest}{runs}"
        return self._digests[path]

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _files(self, prefix: str = "") -> list[str]:
        found: list[str] = []
        for path in self.root.glob("*/*"):
            found += [prefix + self._relative(path)] if path.is_file() else []
        found += [prefix + each.name for each in self.root.iterdir() if each.is_file()]
        return found[:_LISTED]

    def _modules(self) -> list[str]:
        return [
            path.removesuffix(".py").replace("/", ".")
            for path in self._files()
            if path.endswith(".py")
        ]


def _is_plain(word: str) -> bool:
    return bool(word) and len(word) < 1024 and not word.startswith("/") and ".." not in word


def _files_below(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(
        each
        for each in path.rglob("*")
        if each.is_file() and not _NOT_CODE & set(each.relative_to(path).parts)
    )


def _tree(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise InvalidRequest(f"{str(path)!r} is not Python: {error}") from None


def _imports(path: Path, *, base: Path) -> Iterator[str]:
    package = path.relative_to(base).parent.parts if path.is_relative_to(base) else ()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join([*above, *([node.module] if node.module else [])])
            yield from ([name] if name else [])
            yield from (f"{name}.{alias.name}".lstrip(".") for alias in node.names)


def _check_function(path: Path, function: str, *, entry: str) -> None:
    """See that a module defines a function, without running it."""
    defined: set[str] = set()
    for node in _tree(path).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        else:
            defined |= {
                each.id
                for each in ast.walk(node)
                if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
            }
            if isinstance(node, ast.Import | ast.ImportFrom):
                defined |= {alias.asname or alias.name for alias in node.names}
    if function not in defined and "*" not in defined:
        raise NotFound("function", entry, among=[f"{entry.partition(':')[0]}:{x}" for x in defined])


def _elsewhere(module: str, *, among: list[str]) -> dict[str, str]:
    """Return versions of an installed module; nothing of it is imported."""
    spec: ModuleSpec | None = None
    search: Iterable[str] | None = None
    parts = module.split(".")
    for number in range(len(parts)):
        spec = PathFinder.find_spec(".".join(parts[: number + 1]), list(search) if search else None)
        if spec is None:
            raise InvalidRequest(
                f"No module {module!r}, neither beside the pipeline file nor installed"
                f"{near(module, among)}"
            )
        search = spec.submodule_search_locations
    versions: dict[str, str] = {}
    if spec is not None and spec.origin and Path(spec.origin).is_file():
        versions[module] = f"sha256:{hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest()}"
    for name in importlib.metadata.packages_distributions().get(parts[0], ()):
        versions |= _distribution_version(name)
    return versions


def _distribution_version(name: str) -> dict[str, str]:
    try:
        return {name: importlib.metadata.version(name)}
    except importlib.metadata.PackageNotFoundError:
        return {name: "unknown"}
