"""Data and models of the tasks on the Brown corpus: tag every word of a sentence.

Source: Francis & Kucera, Brown Corpus Manual, 1979. The corpus has 1,161,192 words in 57,340 sentences, and 81 tags.
"""

from __future__ import annotations

import functools
from pathlib import Path

import keras
import numpy as np

from importance_sampling.comparison import Data
from tasks.files import find

LENGTH = 32  # words in a row
VOCABULARY = 10002  # the 10,000 most frequent tokens, 1 for all others, and 0 for padding
TAGS = 81
TEST_ROWS = 3000


@functools.lru_cache(1)
def sentences(path: Path | None) -> Data:
    """Return tokens and tags, int32 `(rows, LENGTH)`, in random order, the same in every call.

    Sentences are padded with zeros; longer ones are split into several rows. Every tenth sentence is a test sentence;
    at most TEST_ROWS of their rows are used.
    """
    with np.load(find(path, "brown.npz")) as arrays:
        tokens, tags, starts = arrays["tokens"], arrays["tags"], arrays["starts"]
    lengths = np.diff(starts, append=len(tokens))
    sentence = np.repeat(np.arange(len(starts)), lengths)
    position = np.arange(len(tokens)) - starts[sentence]
    column, row = position % LENGTH, np.cumsum(position % LENGTH == 0) - 1
    x, y = np.zeros((2, row[-1] + 1, LENGTH), "int32")
    x[row, column] = np.where(tokens < VOCABULARY, tokens, 1)
    y[row, column] = tags
    is_test = sentence[column == 0] % 10 == 0
    order = np.random.default_rng(0).permutation(len(x))
    test, train = order[is_test[order]][:TEST_ROWS], order[~is_test[order]]
    return Data(x[train], y[train], x[test], y[test])


def compile_tagger(model: keras.Model) -> keras.Model:
    """Compile and return a model whose outputs are the probabilities of tags `(rows, LENGTH, TAGS)`; Adam."""
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
