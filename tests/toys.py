"""A data set whose rows carry their own scores, and a model that reads them off: samplers tested by numbers."""

import numpy as np

SIZE = 60
_rng = np.random.default_rng(11)
# Spread over e^-6 to e^6, so that tau is 2.5: every gate opens.
SCORES = _rng.permutation(np.exp(np.linspace(-6, 6, SIZE)))
# What a gradient would be: not symmetric, and lower where scores are high, so that an unweighted mean is far off.
VALUES = 4.0 - np.log(SCORES) / 2 + _rng.exponential(size=SIZE)
CLASSES = (np.median(SCORES) < SCORES).astype("int64") + (np.arange(SIZE) % 5 == 0)


class Rows:
    """Rows that count how many of them were read."""

    def __init__(self, x, y):
        self.x, self.y, self.read = x, y, 0

    def __len__(self):
        return len(self.x)

    def __getitem__(self, idxs):
        x = self.x[idxs]
        self.read += len(x)
        return x, self.y[idxs]


class Toy:
    """x is (score, index), y the class."""

    output_size = 3

    def __init__(self, scores=SCORES, y=CLASSES):
        scores = np.asarray(scores, "float64")
        self.x = np.stack([scores, np.arange(len(scores))], axis=1)
        self.train_data = Rows(self.x, np.asarray(y)[: len(scores)])

    def scores(self, indices):
        """What a training step would measure."""
        return self.x[indices, 0]


class Reader:
    """A model that scores by what x says."""

    def __init__(self):
        self.scored = 0
        self.snapshots = []

    def score(self, x, y, batch_size=128):
        self.scored += len(x)
        return x[:, 0].astype("float32")

    def update_grad(self, batches):
        self.snapshots.append([x[:, 1].astype(int) for x, _ in batches])
