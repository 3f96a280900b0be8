"""Read the file of a trainer's state without trusting it: no pickled objects, no memory for what it doesn't contain."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path

import numpy as np


class UnreadableState(ValueError):
    """A file isn't one that `TrainerState.save` wrote, is damaged, or belongs to another moment.

    Args:
        path: of the file.
        rule: what the file must be.
        received: what it is, if that is known.
    """

    def __init__(
        self, path: str | Path, rule: str = "a file that `save_state` of version 1.0 or later wrote", received: str = ""
    ):
        super().__init__(f"`path` must be {rule}. Received: path={str(path)!r}{received and f', {received}'}")


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Return the arrays of an npz file that isn't compressed, by name.

    The size of each array is compared with the size of the file before any memory is taken.

    Raises:
        ValueError, KeyError, EOFError, zipfile.BadZipFile: the file isn't an npz file of this kind.
    """
    limit = os.path.getsize(path)
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            if math.prod(shape) * dtype.itemsize > limit or member.compress_type != zipfile.ZIP_STORED:
                raise ValueError("another size than that of the file")
    with np.load(path, allow_pickle=False) as saved:
        return {name: saved[name] for name in saved.files}
