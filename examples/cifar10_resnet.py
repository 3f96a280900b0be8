"""A wide residual network, 28 layers deep and 2 wide, on small photographs that are flipped and shifted.

    python examples/cifar10_resnet.py --data cifar10.npz --seconds 3600

The learning rate falls to a fifth after half of the seconds, or epochs, and again after three quarters. On a CPU a step
takes seconds; `--quick` is for those.
"""

from common import Example
from loading import photographs

from importance_sampling.comparison import Data
from importance_sampling.datasets import OntheflyAugmentedImages
from importance_sampling.models import wide_resnet
from importance_sampling.training import ImportanceTraining

CHANGES = {"horizontal_flip": True, "width_shift_range": 0.125, "height_shift_range": 0.125}


def load(options):
    """Ten copies of every training image, each changed in its own way."""
    return Data.of(OntheflyAugmentedImages(photographs(options), CHANGES))


def build(data):
    """WRN-28-2; SGD with momentum at 0.1."""
    return wide_resnet(28, 2)(data.shape, data.output_size)


def decay(spent):
    """What the learning rate is multiplied by after a share of the budget."""
    return 1.0 if spent < 0.5 else 0.2 if spent < 0.75 else 0.04


def trainer(model, options):
    """Whose `fit` trains."""
    return model if options.uniform else ImportanceTraining(model, seed=options.seed)  # the one line


EXAMPLE = Example("cifar10_resnet", __doc__, load, build, trainer, epochs=1, decay=decay, measurements=5)

if __name__ == "__main__":
    EXAMPLE.main()
