"""Train a convolutional network on MNIST digits with SVRG, uniform sampling and importance sampling.

    python examples/mnist_svrg_cnn.py --data mnist.npz --seconds 20

With `--uniform`, only `model.fit` is used.
"""

from common import Example
from loading import digits
from mnist_cnn import build

from importance_sampling.training import SVRG, ImportanceTraining


def trainer(model, options):
    """Return the object whose `fit` trains the model."""
    return model if options.uniform else SVRG(model, seed=options.seed)  # the only difference


EXAMPLE = Example(
    "mnist_svrg_cnn",
    __doc__,
    digits,
    build,
    trainer,
    way="SVRG",
    others={"importance": lambda model, seed: ImportanceTraining(model, seed=seed)},
    epochs=1,
    measurements=10,
)

if __name__ == "__main__":
    EXAMPLE.main()
