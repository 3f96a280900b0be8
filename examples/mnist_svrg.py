"""Train logistic regression, a convex problem, on MNIST digits with variance-reduced gradients (SVRG).

    python examples/mnist_svrg.py --data mnist.npz

The trainer is `SVRG`.
"""

from common import Example
from loading import digits

from importance_sampling.models import lr
from importance_sampling.training import SVRG


def build(data):
    """Build one dense layer; SGD with learning rate 0.1."""
    return lr(data.shape, data.output_size)


def trainer(model):
    """Return the trainer: a snapshot of all samples every 1000 steps."""
    return SVRG(model, B=0, B_over_b=1000)


EXAMPLE = Example("mnist_svrg", __doc__, digits, build, trainer, way="SVRG")

if __name__ == "__main__":
    EXAMPLE.main()
