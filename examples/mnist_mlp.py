"""A perceptron on handwritten digits, trained by importance sampling or, with `--uniform`, by Keras alone.

    python examples/mnist_mlp.py [--uniform] [--data FILE] [--epochs N] [--seed N]

The two ways differ in one line, marked below.
"""

from __future__ import annotations

import argparse
import socket
import sys
from pathlib import Path

import keras
import numpy as np
from keras.layers import Dense, Dropout

from importance_sampling import ImportanceTraining

Digits = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def main() -> None:
    """Train, and say what the trainer did."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--uniform", action="store_true", help="train with model.fit")
    parser.add_argument("--data", type=Path, metavar="FILE", help="an npz file in the layout of Keras's mnist.npz")
    parser.add_argument("--epochs", type=int, default=3, metavar="N")
    parser.add_argument("--seed", type=int, metavar="N", help="makes a run repeatable")
    options = parser.parse_args()

    if options.seed is not None:
        keras.utils.set_random_seed(options.seed)
    x_train, y_train, x_test, y_test = load(options.data)
    model = build(x_train.shape[1])

    trainer = model if options.uniform else ImportanceTraining(model)  # the one line
    trainer.fit(x_train, y_train, batch_size=128, epochs=options.epochs, verbose=1, validation_data=(x_test, y_test))
    if not options.uniform:
        print(trainer.summary())


def build(input_size: int) -> keras.Model:
    """The compiled model, for images of `input_size` pixels in a row."""
    model = keras.Sequential(
        [
            keras.Input((input_size,)),
            Dense(512, activation="relu"),
            Dropout(0.2),
            Dense(512, activation="relu"),
            Dropout(0.2),
            Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "categorical_crossentropy", metrics=["accuracy"])
    return model


def load(data: Path | None = None) -> Digits:
    """Digits to train and to test on: pixels in [0, 1], one image a row, and one-hot labels.

    Args:
        data: an npz file with `x_train`, `y_train`, `x_test`, `y_test`; None downloads MNIST through Keras, or takes
            the 8x8 digits that come with scikit-learn where that fails.

    Returns:
        `(x_train, y_train, x_test, y_test)`, float32.
    """
    if data is None:
        x_train, y_train, x_test, y_test = _download()
    else:
        with np.load(data, allow_pickle=False) as file:
            x_train, y_train, x_test, y_test = (file[name] for name in ("x_train", "y_train", "x_test", "y_test"))
    brightest = np.float32(x_train.max())

    def pixels(images: np.ndarray) -> np.ndarray:
        return images.reshape(len(images), -1).astype("float32") / brightest

    def one_hot(labels: np.ndarray) -> np.ndarray:
        return keras.utils.to_categorical(labels, 10).astype("float32")

    return pixels(x_train), one_hot(y_train), pixels(x_test), one_hot(y_test)


def _download() -> Digits:
    """MNIST, or what there is without a network."""
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(15)
    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    except Exception as error:  # Keras raises a plain Exception where it can't download
        print(f"MNIST could not be downloaded ({error}).", file=sys.stderr)
        print("Training on scikit-learn's 8x8 digits; --data FILE reads a local mnist.npz.", file=sys.stderr)
        return _small_digits()
    finally:
        socket.setdefaulttimeout(timeout)
    return x_train, y_train, x_test, y_test


def _small_digits() -> Digits:
    """The 1797 digits that come with scikit-learn, a fifth of them to test on."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, random_state=0, stratify=y)
    return x_train, y_train, x_test, y_test


if __name__ == "__main__":
    main()
