"""Train a convolutional network on MNIST digits with smaller batches, in the time of a uniform step.

    python examples/mnist_cnn.py --data mnist.npz

The trainer is `ConstantTimeImportanceTraining`.
"""

from common import Example
from loading import digits

from importance_sampling.models import small_cnn
from importance_sampling.training import ConstantTimeImportanceTraining


def build(data):
    """Build two convolutions with 32 channels and a dense layer of 128 units; Adam."""
    return small_cnn(data.shape, data.output_size)


EXAMPLE = Example("mnist_cnn", __doc__, digits, build, ConstantTimeImportanceTraining)

if __name__ == "__main__":
    EXAMPLE.main()
