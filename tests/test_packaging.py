"""What is built from a checkout: a wheel that installs, an sdist whose tests run, and types that mypy finds.

The distributions are built as on the package index, in an environment of their own, for which pip downloads setuptools;
without a network the tests are skipped.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
from frameworks import BACKEND

ROOT = Path(__file__).parents[1]
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "site", "build", "dist", "*.egg-info", "shared")
BUILD = "from setuptools import build_meta; print(build_meta.build_{kind}({folder!r}))"
QUICK_TESTS = ("test_reweighting.py", "test_imports.py", "test_tiers.py", "test_vocabulary.py")
SCRIPT = """\
import keras  # type: ignore[import-untyped]
import numpy as np

from importance_sampling import ImportanceTraining, compare

x, y = np.zeros((64, 4), "float32"), np.zeros(64, "int32")
trainer = ImportanceTraining(keras.Sequential([keras.layers.Dense(2)]), presample=3.0)
history = trainer.fit(x, y, batch_size=32, epochs=2)
text: str = trainer.summary()
faster: bool = compare(lambda: keras.Sequential([keras.layers.Dense(2)]), x, y, seconds=5).is_faster
"""


def run(*command, folder, **variables):
    """Run a command outside of the checkout; return what it prints."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment(folder, packages=True):
    """Make a virtual environment, which sees the packages of this one but not the checkout; return its Python."""
    run(sys.executable, "-m", "venv", "--without-pip", str(folder), folder=folder.parent)
    python = folder / "bin" / "python"
    if packages:
        paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
        # The .pth files in their folders, by which the checkout may be installed, aren't read.
        others = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
        (Path(paths["purelib"]) / "packages.pth").write_text("\n".join(others))
    return str(python)


def install(python, *arguments, folder):
    run(sys.executable, "-m", "pip", "--python", python, "install", "-q", *arguments, folder=folder)


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """A copy of the sources, the wheel, and the unpacked sdist, which the wheel is built from."""
    folder = tmp_path_factory.mktemp("packaging")
    sources = folder / "sources"
    shutil.copytree(ROOT, sources, ignore=LEFT_OUT)
    shutil.copytree(ROOT / ".ci", sources / ".ci")
    builder = environment(folder / "builder", packages=False)
    try:
        install(builder, "setuptools>=77", folder=folder)
    except AssertionError as error:
        if not any(cause in str(error) for cause in ("No matching distribution", "ConnectionError", "Retrying")):
            raise
        pytest.skip(f"setuptools can't be downloaded: {str(error).splitlines()[-1]}")
    run(builder, "-c", BUILD.format(kind="sdist", folder=str(folder)), folder=sources)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    unpacked = folder / sdist.name.removesuffix(".tar.gz")
    run(builder, "-c", BUILD.format(kind="wheel", folder=str(folder)), folder=unpacked)
    (wheel,) = folder.glob("*.whl")
    return sources, wheel, unpacked


@pytest.mark.slow
def test_the_wheel_has_the_package_alone_with_its_types(distributions):
    _, wheel, _ = distributions
    names = zipfile.ZipFile(wheel).namelist()
    assert {"importance_sampling/py.typed", "importance_sampling/backend/__init__.pyi"} <= set(names)
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "importance_sampling").rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules
    assert {name.split("/")[0] for name in names} == {
        "importance_sampling",
        f"{wheel.name.rsplit('-', 3)[0]}.dist-info",
    }


@pytest.mark.slow
def test_tests_of_the_sdist_run_outside_of_the_checkout_on_the_installed_wheel(distributions):
    *_, wheel, unpacked = distributions
    folder = wheel.parent / "elsewhere"
    folder.mkdir()
    python = environment(folder / "installed")
    install(python, "--no-deps", str(wheel), folder=folder)
    place = "import importance_sampling; print(importance_sampling.__file__)"
    assert Path(run(python, "-c", place, folder=folder).strip()).is_relative_to(folder / "installed")
    assert "compare" in run(str(folder / "installed" / "bin" / "importance-sampling"), "--help", folder=folder)
    # Unlike `python -m pytest`, this doesn't put the folder of the sdist ahead of the installed package.
    tests = [str(unpacked / "tests" / name) for name in QUICK_TESTS]
    pytest_ = f"import sys, pytest; sys.exit(pytest.main({['-n', '0', '-m', 'not slow', *tests]!r}))"
    printed = run(python, "-c", f"{place}; {pytest_}", folder=folder, KERAS_BACKEND=BACKEND)
    assert " passed" in printed and str(folder / "installed") in printed


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy isn't installed: pip install -e '.[test]'")
def test_mypy_finds_the_types_of_an_editable_install(distributions):
    sources, wheel, _ = distributions
    folder = wheel.parent / "typed"
    folder.mkdir()
    python = environment(folder / "editable")
    install(python, "--no-deps", "-e", str(sources), folder=folder)
    (folder / "script.py").write_text(SCRIPT)
    mypy = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--python-executable",
        python,
        "--cache-dir",
        str(folder / "cache"),
    ]
    assert "Success" in run(*mypy, "script.py", folder=folder)
    wrong = SCRIPT.replace("text: str", "text: int").replace("batch_size=32", "batch_size='32'")
    (folder / "wrong.py").write_text(wrong)
    done = subprocess.run([*mypy, "wrong.py"], cwd=folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == 1 and done.stdout.count("error:") == 2, done.stdout
