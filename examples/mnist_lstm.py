"""Train an LSTM on MNIST digits as sequences of lines or, with `--permuted`, of permuted pixels.

    python examples/mnist_lstm.py --data mnist.npz

Permuted pixels are a task of Le, Jaitly & Hinton, 2015 (arXiv 1504.00941), which the 2018 paper on importance sampling
uses too. A step takes a second or more on a CPU.
"""

import numpy as np
from common import Example
from loading import digits

from importance_sampling.comparison import Data
from importance_sampling.models import lstm_mnist
from importance_sampling.training import ImportanceTraining


def add_options(parser):
    """Add the option that selects the task."""
    parser.add_argument("--permuted", action="store_true", help="use sequences of permuted pixels")


def load(options):
    """Return the digits as sequences of lines or of permuted pixels."""
    x_train, y_train, x_test, y_test = digits(options)

    def sequences(images):
        if not options.permuted:
            return images[..., 0]
        pixels = images.reshape(len(images), -1, 1)
        return pixels[:, np.random.default_rng(0).permutation(pixels.shape[1])]

    return Data(sequences(x_train), y_train, sequences(x_test), y_test)


def build(data):
    """Build an LSTM of 128 units; Adam."""
    return lstm_mnist(data.shape, data.output_size)


EXAMPLE = Example("mnist_lstm", __doc__, load, build, ImportanceTraining, add_options=add_options)

if __name__ == "__main__":
    EXAMPLE.main()
