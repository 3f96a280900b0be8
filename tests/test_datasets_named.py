"""Datasets with a name, on small stand-ins of what `keras.datasets` loads, and on MNIST itself where it is."""

import doctest
import importlib
import os
import pkgutil
from pathlib import Path

import keras
import numpy as np
import pytest

import importance_sampling.datasets as datasets
from importance_sampling.datasets import (
    CIFAR10,
    CIFAR100,
    MNIST,
    CIFARSanityCheck,
    PennTreeBank,
    PixelByPixelMNIST,
)

FILE = Path(os.environ.get("KIS_MNIST") or Path(__file__).parents[2] / "shared" / "data" / "mnist.npz")
LABELS = np.arange(500) % 10


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch):
    """Image i is filled with i, to some modulus; labels go round."""
    digits = np.tile((np.arange(500) % 251).astype("uint8")[:, None, None], (1, 28, 28))
    digits[:, 0, 1] = 255
    photos = np.zeros((500, 32, 32, 3), "uint8")
    photos[..., 0], photos[..., 1] = (np.arange(500) // 250)[:, None, None], (np.arange(500) % 250)[:, None, None]
    for name, x, y in (
        ("mnist", digits, LABELS),
        ("cifar10", photos, LABELS[:, None]),
        ("cifar100", photos, (np.arange(500) % 100)[:, None]),
    ):
        loaded = ((x, y), (x[:40], y[:40]))
        monkeypatch.setattr(getattr(keras.datasets, name), "load_data", lambda loaded=loaded: loaded)


@pytest.fixture()
def treebank(tmp_path):
    folder = tmp_path / "ptb"
    folder.mkdir()
    (folder / "ptb.train.txt").write_text(" the cat saw the dog \n the dog <unk> a cat \n" * 20, encoding="utf-8")
    (folder / "ptb.test.txt").write_text(" the mouse saw a cat \n" * 5, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    "kind, shape, classes", [(MNIST, (28, 28, 1), 10), (CIFAR10, (32, 32, 3), 10), (CIFAR100, (32, 32, 3), 100)]
)
def test_what_keras_loads_becomes_floats_and_one_hot_labels(kind, shape, classes):
    dset = kind()
    assert dset.shape == shape and dset.output_size == classes
    assert len(dset.train_data) == 500 and len(dset.test_data) == 40
    x, y = dset.train_data[103]
    assert x.shape == shape and x.dtype == np.float32 and x.max() <= 1
    assert y.argmax() == 103 % classes and y.sum() == 1


@pytest.mark.skipif(not FILE.exists(), reason=f"needs MNIST; looked for {FILE}, or set KIS_MNIST")
def test_mnist_itself_from_a_file():
    dset = MNIST(path=FILE)
    assert len(dset.train_data) == 60000 and len(dset.test_data) == 10000 and dset.shape == (28, 28, 1)
    x, y = dset.train_data[:]
    # The mean pixel, 0.1307, and the number of zeros, 5923, are widely quoted.
    assert x.mean(dtype="float64") == pytest.approx(0.1307, abs=1e-4) and x.max() == 1
    assert y[:, 0].sum() == 5923


def test_a_path_is_read_in_place_of_what_keras_loads(tmp_path):
    x, y = np.zeros((4, 5, 5), "uint8"), np.array([0, 1, 2, 1])
    np.savez(tmp_path / "digits.npz", x_train=x, y_train=y, x_test=x[:1], y_test=y[:1])
    dset = MNIST(path=str(tmp_path / "digits.npz"))
    assert len(dset.train_data) == 4 and dset.shape == (5, 5, 1) and dset.output_size == 3
    np.savez(tmp_path / "half.npz", x_train=x, y_train=y)
    with pytest.raises(ValueError, match="x_test, y_test missing"):
        CIFAR10(path=tmp_path / "half.npz")
    with pytest.raises(ValueError, match=r"`path` must be an npz file.*isn't a file"):
        PixelByPixelMNIST(path=tmp_path / "none.npz")


def test_the_sanity_check_is_two_classes_with_one_row_over_and_over():
    dset = CIFARSanityCheck(classes=(5, 3), replicate=70, replicate_idx=11)
    # Of 500 rows with labels in turns, 100 are of the two classes: 3, 5, 13, 15, ...; the twelfth of them is row 55.
    assert len(dset.train_data) == 170 and len(dset.test_data) == 8 and dset.output_size == 2
    x, y = dset.train_data[:]
    kept = np.arange(500)[np.isin(LABELS, (3, 5))]
    np.testing.assert_allclose(x[:100, 0, 0, 1] * 255, kept % 250, atol=1e-4)
    np.testing.assert_array_equal(y[:100].argmax(axis=1), np.where(kept % 10 == 5, 0, 1))
    np.testing.assert_allclose(x[100:, 3, 4, 1] * 255, 55, atol=1e-4)
    np.testing.assert_array_equal(y[100:], np.tile([1, 0], (70, 1)))
    np.testing.assert_array_equal(dset.train_data[-1][0], dset.train_data[11][0])
    np.testing.assert_array_equal(dset.test_data[:][1].argmax(axis=1), [1, 0, 1, 0, 1, 0, 1, 0])
    assert len(CIFARSanityCheck().train_data) == 30100


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"classes": (3,)}, "`classes` must be two or more ints"),
        ({"classes": (3, 3)}, "`classes` must be two or more ints"),
        ({"classes": (3, 10)}, "`classes` must be two or more ints"),
        ({"replicate": -1}, "`replicate` must be an int of at least 0"),
        ({"replicate_idx": -1}, "`replicate_idx` must be an int of at least 0"),
        ({"replicate_idx": 100}, "`replicate_idx` must be below 100"),
    ],
)
def test_arguments_of_the_sanity_check_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        CIFARSanityCheck(**arguments)


def test_pixels_come_in_one_order_for_all_images():
    dset, plain = PixelByPixelMNIST(), MNIST()
    assert dset.shape == (784, 1) and len(dset.train_data) == 500 and len(dset.test_data) == 40
    x = dset.train_data[:][0]
    # Pixel (0, 1) is 255 in every image, and nothing else is.
    places = np.flatnonzero((x == 1).all(axis=0)[:, 0])
    assert len(places) == 1
    np.testing.assert_array_equal(np.sort(x[..., 0]), np.sort(plain.train_data[:][0].reshape(500, 784)))
    np.testing.assert_array_equal(dset.test_data[:][0], x[:40])
    np.testing.assert_array_equal(PixelByPixelMNIST(0).train_data[3][0], x[3])
    assert (PixelByPixelMNIST(permutation_seed=1).train_data[:][0] != x).any()
    np.testing.assert_array_equal(PixelByPixelMNIST(None).train_data[7][0], plain.train_data[7][0].reshape(784, 1))
    with pytest.raises(ValueError, match="`permutation_seed` must be an int of at least 0"):
        PixelByPixelMNIST(-1)


def test_the_next_word_follows_its_context(treebank):
    dset = PennTreeBank(4, path=treebank)
    # the: 60, then cat, dog and the line's end: 40 each, in alphabetical order, where < is first; then 20 each, and
    # <unk> has one more than it is there.
    assert dset.vocabulary == ["the", "<eos>", "cat", "dog", "<unk>", "a", "saw"]
    assert dset.output_size == 7 and dset.shape == (4,)
    # 20 times 12 words, and one row for each word that has four before it.
    assert len(dset.train_data) == 236 and len(dset.test_data) == 26
    x, y = dset.train_data[[0, 1]]
    words = np.array(dset.vocabulary)
    assert x.dtype == np.int32 and y.shape == (2,)
    assert words[x].tolist() == [["the", "cat", "saw", "the"], ["cat", "saw", "the", "dog"]]
    assert words[y].tolist() == ["dog", "<eos>"]
    assert words[dset.test_data[0][0]].tolist() == ["the", "<unk>", "saw", "a"]
    # Every row is the one before it moved on by a word.
    x, y = dset.train_data[:]
    np.testing.assert_array_equal(x[1:, :-1], x[:-1, 1:])
    np.testing.assert_array_equal(x[1:, -1], y[:-1])


def test_arguments_of_the_treebank_are_checked(treebank, tmp_path):
    with pytest.raises(ValueError, match="`context` must be an int of at least 1"):
        PennTreeBank(0, path=treebank)
    with pytest.raises(ValueError, match="`context` must be less than the words in either file, 30"):
        PennTreeBank(30, path=treebank)
    for path in (None, tmp_path):
        with pytest.raises(ValueError, match=r"`path` must be a folder with ptb\.train\.txt and ptb\.test\.txt"):
            PennTreeBank(4, path=path)


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(datasets.__path__)])
def test_examples_run_as_shown(name, treebank, monkeypatch):
    monkeypatch.chdir(treebank.parent)
    module = importlib.import_module(f"importance_sampling.datasets.{name}")
    shown = {"np": np, "keras": keras, **vars(datasets)}
    assert doctest.testmod(module, extraglobs=shown).failed == 0
