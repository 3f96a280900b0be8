"""What `pip install` brings along: TensorFlow, and the framework of each backend by an extra of its name."""

from pathlib import Path

import pytest

from importance_sampling.backend import MODULES

tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no reader of pyproject.toml")
PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.mark.parametrize("backend", MODULES)
def test_an_extra_named_after_a_backend_installs_its_framework(backend):
    (requirement,) = PROJECT["optional-dependencies"][backend]
    assert requirement.partition(">=")[0] == backend


def test_an_install_without_extras_brings_the_tensorflow_of_the_extra_and_no_other_framework():
    (extra,) = PROJECT["optional-dependencies"]["tensorflow"]
    names = [requirement.partition(">=")[0] for requirement in PROJECT["dependencies"]]
    assert extra in PROJECT["dependencies"]
    assert set(MODULES) & set(names) == {"tensorflow"}
