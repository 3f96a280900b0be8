"""Train a perceptron on MNIST digits with a rare class: 1 % of the training samples of the digit eight.

    python examples/imbalanced.py --data mnist.npz

The metric `recall` is the fraction of eights that the model finds. The validation data aren't reduced.
"""

import mnist_mlp
from common import Example
from keras.metrics import Recall
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
    recall = Recall(class_id=RARE, top_k=1, name="recall")
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy", recall])
    return model


EXAMPLE = Example("imbalanced", __doc__, load, build, ImportanceTraining)

if __name__ == "__main__":
    EXAMPLE.main()
