"""A perceptron on handwritten digits of which one is rare: of the eights, one training sample in a hundred stays.

    python examples/imbalanced.py --data mnist.npz

The test error is the share of eights that are missed; the test set has as many of them as of the others.
"""

import keras
import mnist_mlp
from common import Example
from loading import digits

from importance_sampling.training import ImportanceTraining

RARE = 8


def load(options):
    """Digits, few of them eights."""
    data = digits(options)
    return data.thinned({RARE: round(data.y_train[:, RARE].sum() / 100)})


def build(data):
    """The perceptron of `mnist_mlp`, asked how many of the eights it finds."""
    model = mnist_mlp.build(data)
    found = keras.metrics.Recall(class_id=RARE, top_k=1, name="found")
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy", found])
    return model


def trainer(model, options):
    """Whose `fit` trains."""
    return model if options.uniform else ImportanceTraining(model, seed=options.seed)  # the one line


def missed(figures):
    """Of the test set's eights, per cent."""
    return 100.0 * (1.0 - figures["found"])


EXAMPLE = Example("imbalanced", __doc__, load, build, trainer, error=missed, unit="% of eights missed")

if __name__ == "__main__":
    EXAMPLE.main()
