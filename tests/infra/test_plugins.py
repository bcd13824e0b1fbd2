"""File name is plug-in name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from infra.errors import InvalidConfiguration, MissingDependency
from infra.plugins import available, load, require


def test_listing_imports_nothing() -> None:
    script = (
        "import sys; from infra.plugins import available;"
        "print(available('retrieval.embedders'));"
        "sys.exit('retrieval.embedders.hashing' in sys.modules or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0
    assert "hashing" in done.stdout


def test_unknown_name_answers_with_those_there_are() -> None:
    with pytest.raises(InvalidConfiguration, match="hashing, onnx, sentence_transformers"):
        load("retrieval.embedders", "nope")


@pytest.mark.parametrize("name", ["os.system.nope", "absent_package.thing", "infra.errors.__doc__"])
def test_dotted_path_that_is_no_plugin_is_refused(name: str) -> None:
    with pytest.raises(InvalidConfiguration, match="[Pp]lug-in"):
        load("retrieval.embedders", name)


def test_dotted_path_loads_a_third_party() -> None:
    assert load("retrieval.embedders", "retrieval.embedders.hashing.build")().dimension == 256


def test_private_modules_are_not_plugins() -> None:
    assert not [name for name in available("retrieval.loaders") if name.startswith("_")]


def test_missing_package_answers_with_the_install_line() -> None:
    with pytest.raises(MissingDependency, match=r"pip install 'ragstone\[milvus\]'"):
        require("absent_package", extra="milvus")
