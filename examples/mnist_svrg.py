"""Logistic regression on handwritten digits, a convex loss, along variance-reduced gradients.

python examples/mnist_svrg.py --data mnist.npz
"""

from common import Example
from loading import digits

from importance_sampling.models import lr
from importance_sampling.training import SVRG


def build(data):
    """One dense layer; SGD at a rate of 0.1."""
    return lr(data.shape, data.output_size)


def trainer(model, options):
    """Whose `fit` trains."""
    return model if options.uniform else SVRG(model, B=0, B_over_b=1000, seed=options.seed)  # the one line


EXAMPLE = Example("mnist_svrg", __doc__, digits, build, trainer, way="SVRG")

if __name__ == "__main__":
    EXAMPLE.main()
