"""Train a perceptron on MNIST digits with a rare class: 1 % of the training samples of the digit eight.

    python examples/imbalanced.py --data mnist.npz

The test error is the fraction of eights that the model misses. The test set isn't reduced.
"""

import keras
import mnist_mlp
from common import Example
from loading import digits

from importance_sampling.training import ImportanceTraining

RARE = 8


def load(options):
    """Return the digits with few eights in the training set."""
    data = digits(options)
    return data.thinned({RARE: round(data.y_train[:, RARE].sum() / 100)})


def build(data):
    """Build the perceptron of `mnist_mlp`, with the recall of eights as a metric."""
    model = mnist_mlp.build(data)
    recall = keras.metrics.Recall(class_id=RARE, top_k=1, name="recall")
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy", recall])
    return model


def trainer(model, options):
    """Return the object whose `fit` trains the model."""
    return model if options.uniform else ImportanceTraining(model, seed=options.seed)  # the only difference


def missed(results):
    """Return the percentage of eights in the test set that the model misses."""
    return 100.0 * (1.0 - results["recall"])


EXAMPLE = Example("imbalanced", __doc__, load, build, trainer, error=missed, unit="% of eights missed")

if __name__ == "__main__":
    EXAMPLE.main()
