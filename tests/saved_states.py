"""What a trainer remembers, read from the file that `save_state` writes, instead of private attributes."""

import json
import tempfile
from pathlib import Path

import numpy as np


def read_state(path):
    """Return the header of a saved state, a dict with the counters among others, and its arrays by name."""
    with np.load(path) as file:
        arrays = dict(file)
    return json.loads(str(arrays.pop("header"))), arrays


def saved_state(trainer):
    """Save the state of a trainer, and return its header and its arrays by name."""
    with tempfile.TemporaryDirectory() as folder:
        trainer.save_state(Path(folder) / "state.npz")
        return read_state(Path(folder) / "state.npz")


def counters_of(trainer):
    """Return what a trainer has counted, by name."""
    return saved_state(trainer)[0]["counters"]
