"""Which files and versions a step depends on: imports, scripts, patterns, packages."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.errors import InvalidRequest, NotFound
from infra.pipelines.definition import Step
from infra.pipelines.sources import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    files = {
        "flow/__init__.py": "",
        "flow/steps.py": (
            "from . import words\nfrom .sub.deep import x\nimport json\n\ndef run(): ...\n"
        ),
        "flow/words.py": "import flow.letters\n",
        "flow/letters.py": "from flow import steps\n",
        "flow/sub/__init__.py": "",
        "flow/sub/deep.py": "x = 1\n",
        "flow/unused.py": "",
        "scripts/train.py": "import near\nimport flow.words\n",
        "scripts/near.py": "",
        "queries/a.sql": "",
        "queries/b.sql": "",
        "queries/__pycache__/c.sql": "",
        "broken.py": "def f(:\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Project(tmp_path)


def code(project: Project, **step: object) -> list[str]:
    return list(project.sources("s", Step.model_validate(step)).code)


def test_function_takes_along_what_its_module_imports(project: Project) -> None:
    assert code(project, python="flow.steps:run") == [
        "flow/__init__.py",
        "flow/letters.py",
        "flow/steps.py",
        "flow/sub/__init__.py",
        "flow/sub/deep.py",
        "flow/words.py",
    ]


def test_script_takes_along_what_lies_beside_it(project: Project) -> None:
    found = code(project, run=["python", "scripts/train.py", "7"])
    assert found == ["scripts/near.py", "scripts/train.py"]
    found = code(project, run=["python", "-m", "flow.words"])
    assert "flow/words.py" in found


def test_patterns_folders_and_named_files_are_code(project: Project) -> None:
    assert code(project, run=["x"], code=["queries/*.sql"]) == ["queries/a.sql", "queries/b.sql"]
    assert code(project, run=["x"], code=["queries"]) == ["queries/a.sql", "queries/b.sql"]
    assert code(project, run=["x", "queries/a.sql", "/etc/hostname"]) == ["queries/a.sql"]


def test_what_is_not_there_is_answered_with_near_names(project: Project) -> None:
    with pytest.raises(NotFound, match="did you mean 'queries/a.sql'"):
        code(project, run=["x"], code=["queries/aa.sql"])
    with pytest.raises(NotFound, match="did you mean 'flow.steps:run'"):
        code(project, python="flow.steps:runn")
    with pytest.raises(InvalidRequest, match="broken.py' is not Python"):
        code(project, python="broken:f")


def test_program_bit_is_part_of_the_code(project: Project) -> None:
    step = Step.model_validate({"run": ["x"], "code": ["queries/a.sql"]})
    before = project.sources("s", step).code
    (project.root / "queries/a.sql").chmod(0o755)
    assert Project(project.root).sources("s", step).code != before


def test_package_from_elsewhere_counts_by_its_version(project: Project) -> None:
    found = project.sources("s", Step.model_validate({"python": "yaml:safe_load"})).versions
    assert set(found) >= {"yaml", "PyYAML"}
    own = project.sources("s", Step.model_validate({"run": ["ragstone", "doctor"]})).versions
    assert set(own) == {"ragstone"}
