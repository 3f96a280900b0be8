"""Train a wide residual network (depth 28, width 2) on CIFAR10 photographs with random flips and shifts.

    python examples/cifar10_resnet.py --data cifar10.npz --seconds 3600

The learning rate is constant. On a CPU, a step takes seconds: use `--quick`.
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


EXAMPLE = Example("cifar10_resnet", __doc__, load, build, ImportanceTraining)

if __name__ == "__main__":
    EXAMPLE.main()
