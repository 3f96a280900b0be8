"""Run a part of the tests on many versions of Python, Keras and the frameworks, and write a table of the results.

    python tests/versions.py --out docs/data/versions [--only NAME ...]

Every environment is a virtual environment of its own, made with `pythonX.Y` and removed afterwards. Results are written
to OUT.json as they come, and the table to OUT.md; environments that have a result are run again only with `--only`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
MODULES = ("keras_internals", "contract", "rows", "labels", "reducible_loss")
COMMON = ("numpy", "blinker", "transparent-keras", "pytest", "scipy", "pandas", "h5py")
SHOWN = ("tensorflow", "jax", "torch", "numpy")
NIGHTLY = "keras-nightly"


class Environment(NamedTuple):
    """Versions to test on: `pythonX.Y`, the backend, and what is installed."""

    python: str
    backend: str
    requirements: tuple[str, ...]


ENVIRONMENTS = {
    "lowest": Environment("3.10", "tensorflow", ("keras==3.8.0", "tensorflow==2.18.0")),
    "python 3.11": Environment("3.11", "tensorflow", ("keras", "tensorflow")),
    "python 3.12": Environment("3.12", "tensorflow", ("keras", "tensorflow")),
    "python 3.13": Environment("3.13", "tensorflow", ("keras", "tensorflow")),
    "nightly": Environment("3.13", "tensorflow", ("tensorflow", NIGHTLY)),
    "jax": Environment("3.13", "jax", ("keras", "jax")),
    "torch": Environment("3.11", "torch", ("keras", "torch")),
}


def main() -> None:
    """Run the environments that are missing, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("versions"), metavar="PATH", help="without ending")
    parser.add_argument("--only", nargs="+", choices=ENVIRONMENTS, default=None, metavar="NAME")
    parser.add_argument("--torch", default="torch", metavar="REQUIREMENT", help="such as torch==2.13.0+cpu")
    options = parser.parse_args()
    path = options.out.with_suffix(".json")
    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in options.only or [name for name in ENVIRONMENTS if name not in results]:
        results[name] = run(ENVIRONMENTS[name], options.torch)
        print(name, results[name], flush=True)
        path.write_text(json.dumps(results, indent=1), encoding="utf-8")
    options.out.with_suffix(".md").write_text(table(results), encoding="utf-8")
    if any(result["failed"] for result in results.values()):
        sys.exit("Some tests failed; see above.")


def run(environment: Environment, torch: str) -> dict:
    """Make an environment, run the tests in it, and return its versions and the counts of the results."""
    python = shutil.which(f"python{environment.python}")
    if python is None:
        sys.exit(f"python{environment.python} isn't installed.")
    requirements = [torch if name == "torch" else name for name in environment.requirements]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        inside = Path(folder) / "bin" / "python"
        install = [inside, "-m", "pip", "install", "-q"]
        subprocess.run([*install, *(name for name in requirements if name != NIGHTLY), *COMMON], check=True)
        if NIGHTLY in requirements:  # in the place of the Keras that TensorFlow brings along
            subprocess.run([*install, "--force-reinstall", "--no-deps", NIGHTLY], check=True)
        settings = dict(KERAS_BACKEND=environment.backend, PYTHONPATH=str(ROOT), TF_CPP_MIN_LOG_LEVEL="3")
        variables = os.environ | settings
        installed = json.loads(subprocess.check_output([inside, "-m", "pip", "list", "--format", "json"]))
        versions = {one["name"]: one["version"] for one in installed if one["name"] in SHOWN}
        imported = [inside, "-c", "import keras; print(keras.__version__)"]
        versions["keras"] = subprocess.check_output(imported, env=variables, text=True).strip()
        tests = [f"tests/test_{module}.py" for module in MODULES]
        command = [inside, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)
    last = done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr.strip()[-500:]
    counts = {word: sum(map(int, re.findall(rf"(\d+) {word}", last))) for word in ("passed", "skipped")}
    failed = sum(map(int, re.findall(r"(\d+) (?:failed|errors?)\b", last))) or int(done.returncode != 0)
    if failed:
        print(done.stdout[-6000:], done.stderr[-2000:], flush=True)
    today = datetime.date.today().isoformat()
    return (
        dict(python=environment.python, backend=environment.backend, versions=versions, date=today)
        | counts
        | {"failed": failed}
    )


def table(results: dict[str, dict]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| Python | Keras | backend | NumPy | passed | skipped | failed | run on |", "| --- " * 8 + "|"]
    for result in results.values():
        versions, backend = result["versions"], result["backend"]
        cells = (result["python"], versions["keras"], f"{backend} {versions[backend]}", versions["numpy"])
        cells += tuple(str(result[word]) for word in ("passed", "skipped", "failed", "date"))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
