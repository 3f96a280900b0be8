"""A convolutional network on handwritten digits: larger pools and smaller batches, in the time of a plain step.

python examples/mnist_cnn.py --data mnist.npz
"""

from common import Example
from loading import digits

from importance_sampling.models import small_cnn
from importance_sampling.training import ConstantTimeImportanceTraining


def build(data):
    """Two convolutions of 32 channels, a dense layer of 128; Adam."""
    return small_cnn(data.shape, data.output_size)


def trainer(model, options):
    """Whose `fit` trains."""
    return model if options.uniform else ConstantTimeImportanceTraining(model, seed=options.seed)  # the one line


EXAMPLE = Example("mnist_cnn", __doc__, digits, build, trainer, measurements=10)

if __name__ == "__main__":
    EXAMPLE.main()
