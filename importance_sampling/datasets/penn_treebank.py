"""The Penn Treebank for language models: a window of words and the next word.

Source: Mikolov et al., Recurrent neural network based language model, Interspeech 2010, for the preprocessing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from importance_sampling.datasets.base import BaseDataset
from importance_sampling.utils.validation import is_int

FILES = ("ptb.train.txt", "ptb.test.txt")
END, UNKNOWN = "<eos>", "<unk>"


class PennTreeBank(BaseDataset):
    """The Penn Treebank: x of sample i is the words i to i + context - 1 of the text, and y is the next word.

    The vocabulary contains the words of the training file, `<eos>` for the end of a line, and `<unk>` for words of the
    test file that aren't in the training file. Word ids are ordered by decreasing frequency, then alphabetically. y is
    a word id and not one-hot: use a sparse loss, as `models.get("lstm_lm")` does.

    Args:
        context: int >= 1; the number of words in x.
        path: folder with ptb.train.txt and ptb.test.txt; required, because the dataset isn't downloaded.

    Raises:
        ValueError: `context` is out of range or not shorter than a file, or a file is missing.

    Attributes:
        vocabulary: list of str, the words in the order of their ids.

    Example:
        >>> dset = PennTreeBank(context=20, path="ptb")
        >>> x, y = dset.train_data[0]
        >>> x.shape, x.dtype
        ((20,), dtype('int32'))
        >>> words = [dset.vocabulary[i] for i in x]
    """

    def __init__(self, context: int, *, path: str | Path | None = None):
        if not is_int(context) or context < 1:
            raise ValueError(f"`context` must be an int of at least 1. Received: context={context!r}")
        files = [Path(path or "") / name for name in FILES]
        if path is None or not all(file.is_file() for file in files):
            raise ValueError(f"`path` must be a folder with {' and '.join(FILES)}. Received: path={path!r}")
        train, test = (_words(file) for file in files)
        words, counts = np.unique([*train, UNKNOWN], return_counts=True)
        self.vocabulary: list[str] = words[np.argsort(-counts, kind="stable")].tolist()
        ids = {word: i for i, word in enumerate(self.vocabulary)}
        self._context = int(context)
        self._train, self._test = (
            np.array([ids.get(word, ids[UNKNOWN]) for word in text], "int32") for text in (train, test)
        )
        shortest = min(len(self._train), len(self._test))
        if shortest <= context:
            raise ValueError(
                f"`context` must be below {shortest}, the number of words of the shorter file. "
                f"Received: context={context!r}"
            )

    def _windows(self, text: np.ndarray, idxs: np.ndarray | slice) -> tuple:
        windows = np.lib.stride_tricks.sliding_window_view(text, self._context + 1)[idxs]
        return windows[:, :-1].copy(), windows[:, -1].copy()

    def _train_data(self, idxs: np.ndarray | slice) -> tuple:
        return self._windows(self._train, idxs)

    def _train_size(self) -> int:
        return len(self._train) - self._context

    def _test_data(self, idxs: np.ndarray | slice) -> tuple:
        return self._windows(self._test, idxs)

    def _test_size(self) -> int:
        return len(self._test) - self._context

    @property
    def shape(self) -> tuple[int, ...]:
        return (self._context,)

    @property
    def output_size(self) -> int:
        """The number of words in the vocabulary."""
        return len(self.vocabulary)


def _words(file: Path) -> list[str]:
    return [word for line in file.read_text(encoding="utf-8").splitlines() for word in [*line.split(), END]]
