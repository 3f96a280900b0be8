"""An LSTM on handwritten digits, read row by row; with `--permuted` pixel by pixel, in a shuffled order.

    python examples/mnist_lstm.py --data mnist.npz

The second is the task of Le, Jaitly & Hinton, 2015 (arXiv 1504.00941), that the 2018 paper on importance sampling took
up. A step of it is slow, on a CPU a second or more.
"""

import numpy as np
from common import Example
from loading import digits

from importance_sampling.comparison import Data
from importance_sampling.models import lstm_mnist
from importance_sampling.training import ImportanceTraining


def add_options(parser):
    """Which task."""
    parser.add_argument("--permuted", action="store_true", help="pixel by pixel, in a shuffled order")


def load(options):
    """Digits as sequences: rows of pixels, or pixels."""
    x_train, y_train, x_test, y_test = digits(options)

    def sequences(images):
        if not options.permuted:
            return images[..., 0]
        pixels = images.reshape(len(images), -1, 1)
        return pixels[:, np.random.default_rng(0).permutation(pixels.shape[1])]

    return Data(sequences(x_train), y_train, sequences(x_test), y_test)


def build(data):
    """An LSTM of 128; Adam."""
    return lstm_mnist(data.shape, data.output_size)


def trainer(model, options):
    """Whose `fit` trains."""
    return model if options.uniform else ImportanceTraining(model, seed=options.seed)  # the one line


EXAMPLE = Example("mnist_lstm", __doc__, load, build, trainer, add_options=add_options, measurements=10)

if __name__ == "__main__":
    EXAMPLE.main()
