"""A dataset whose rows contain their scores, and a model that returns them: for tests of samplers with known scores."""

import keras
import numpy as np
from frameworks import HAS_TENSORFLOW, tf

SIZE = 60
_rng = np.random.default_rng(11)
# From e^-6 to e^6, with a tau of 2.5, so that every gate opens.
SCORES = _rng.permutation(np.exp(np.linspace(-6, 6, SIZE)))
# In the place of gradients: asymmetric, and lower for high scores, so that an unweighted mean is strongly biased.
VALUES = 4.0 - np.log(SCORES) / 2 + _rng.exponential(size=SIZE)
CLASSES = (np.median(SCORES) < SCORES).astype("int64") + (np.arange(SIZE) % 5 == 0)


class Rows:
    """Rows `(x, y)` that count the rows read."""

    def __init__(self, x, y):
        self.x, self.y, self.read = x, y, 0

    def __len__(self):
        return len(self.x)

    def __getitem__(self, idxs):
        x = self.x[idxs]
        self.read += len(x)
        return x, self.y[idxs]


class Toy:
    """A dataset: x is (score, row index), y the class."""

    output_size = 3

    def __init__(self, scores=SCORES, y=CLASSES):
        scores = np.asarray(scores, "float64")
        self.x = np.stack([scores, np.arange(len(scores))], axis=1)
        self.train_data = Rows(self.x, np.asarray(y)[: len(scores)])

    def scores(self, indices):
        """Return the scores that a training step would measure."""
        return self.x[indices, 0]


class Reader:
    """A model that returns the scores in x."""

    def __init__(self):
        self.scored = 0
        self.snapshots = []

    def score(self, x, y, batch_size=128):
        self.scored += len(x)
        return x[:, 0].astype("float32")

    def update_grad(self, batches):
        self.snapshots.append([x[:, 1].astype(int) for x, _ in batches])


class Stream(keras.utils.PyDataset):
    """The batches of arrays in their order, without row indices, on every backend."""

    def __init__(self, x, y, batch_size):
        super().__init__()
        self.x, self.y, self.size = x, y, batch_size

    def __len__(self):
        return -(-len(self.x) // self.size)

    def __getitem__(self, index):
        rows = slice(index * self.size, (index + 1) * self.size)
        return self.x[rows], self.y[rows]


def stream(x, y, batch_size):
    """Return the batches of arrays in their order: a dataset of TensorFlow where it is installed."""
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size) if HAS_TENSORFLOW else Stream(x, y, batch_size)
