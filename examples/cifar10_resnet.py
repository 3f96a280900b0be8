"""Train a wide residual network (depth 28, width 2) on CIFAR10 photographs with random flips and shifts.

    python examples/cifar10_resnet.py --data cifar10.npz --seconds 3600

The learning rate is divided by 5 after half of the budget, and again after three quarters. On a CPU, a step takes
seconds: use `--quick`.
"""

from common import Example
from loading import photographs

from importance_sampling.comparison import Data
from importance_sampling.datasets import OntheflyAugmentedImages
from importance_sampling.models import wide_resnet
from importance_sampling.training import ImportanceTraining

AUGMENTATION = {"horizontal_flip": True, "width_shift_range": 0.125, "height_shift_range": 0.125}


def load(options):
    """Return CIFAR10 with ten augmented copies of every training image."""
    return Data.of(OntheflyAugmentedImages(photographs(options), AUGMENTATION))


def build(data):
    """Build WRN-28-2; SGD with momentum and learning rate 0.1."""
    return wide_resnet(28, 2)(data.shape, data.output_size)


def decay(spent):
    """Return the factor of the learning rate after a fraction of the budget."""
    return 1.0 if spent < 0.5 else 0.2 if spent < 0.75 else 0.04


def trainer(model, options):
    """Return the object whose `fit` trains the model."""
    return model if options.uniform else ImportanceTraining(model, seed=options.seed)  # the only difference


EXAMPLE = Example("cifar10_resnet", __doc__, load, build, trainer, epochs=1, decay=decay, measurements=5)

if __name__ == "__main__":
    EXAMPLE.main()
