"""The named datasets, on small replacements of `keras.datasets`, and on MNIST if its file is available."""

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
def small_keras_datasets(monkeypatch):
    """Replace `keras.datasets` by small arrays: pixels of image i are i modulo a constant; labels are cyclic."""
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
def test_images_of_keras_datasets_become_floats_and_labels_become_one_hot(kind, shape, classes):
    dset = kind()
    assert dset.shape == shape and dset.output_size == classes
    assert len(dset.train_data) == 500 and len(dset.test_data) == 40
    x, y = dset.train_data[103]
    assert x.shape == shape and x.dtype == np.float32 and x.max() <= 1
    assert y.argmax() == 103 % classes and y.sum() == 1


@pytest.mark.skipif(not FILE.exists(), reason=f"needs MNIST; looked for {FILE}, or set KIS_MNIST")
def test_mnist_is_read_from_a_file():
    dset = MNIST(path=FILE)
    assert len(dset.train_data) == 60000 and len(dset.test_data) == 10000 and dset.shape == (28, 28, 1)
    x, y = dset.train_data[:]
    # The mean pixel, 0.1307, and the number of zeros, 5923, are widely quoted.
    assert x.mean(dtype="float64") == pytest.approx(0.1307, abs=1e-4) and x.max() == 1
    assert y[:, 0].sum() == 5923


def test_path_replaces_the_download_by_keras(tmp_path):
    x, y = np.zeros((4, 5, 5), "uint8"), np.array([0, 1, 2, 1])
    np.savez(tmp_path / "digits.npz", x_train=x, y_train=y, x_test=x[:1], y_test=y[:1])
    dset = MNIST(path=str(tmp_path / "digits.npz"))
    assert len(dset.train_data) == 4 and dset.shape == (5, 5, 1) and dset.output_size == 3
    np.savez(tmp_path / "half.npz", x_train=x, y_train=y)
    with pytest.raises(ValueError, match="x_test, y_test missing"):
        CIFAR10(path=tmp_path / "half.npz")
    with pytest.raises(ValueError, match=r"`path` must be an npz file.*isn't a file"):
        PixelByPixelMNIST(path=tmp_path / "none.npz")


def test_the_cifar_sanity_check_has_two_classes_and_many_copies_of_one_sample():
    dset = CIFARSanityCheck(classes=(5, 3), replicate=70, replicate_idx=11)
    # 100 of 500 samples with cyclic labels are in the two classes: 3, 5, 13, 15, ... The twelfth is sample 55.
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
        ({"classes": (3,)}, "`classes` must be two or more different ints"),
        ({"classes": (3, 3)}, "`classes` must be two or more different ints"),
        ({"classes": (3, 10)}, "`classes` must be two or more different ints"),
        ({"replicate": -1}, "`replicate` must be an int of at least 0"),
        ({"replicate_idx": -1}, "`replicate_idx` must be an int of at least 0"),
        ({"replicate_idx": 100}, "`replicate_idx` must be below 100"),
    ],
)
def test_invalid_arguments_of_the_cifar_sanity_check_raise_value_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        CIFARSanityCheck(**arguments)


def test_pixels_of_all_images_are_permuted_in_the_same_way():
    dset, original = PixelByPixelMNIST(), MNIST()
    assert dset.shape == (784, 1) and len(dset.train_data) == 500 and len(dset.test_data) == 40
    x = dset.train_data[:][0]
    # Pixel (0, 1), and no other, is 255 in every image.
    positions = np.flatnonzero((x == 1).all(axis=0)[:, 0])
    assert len(positions) == 1
    np.testing.assert_array_equal(np.sort(x[..., 0]), np.sort(original.train_data[:][0].reshape(500, 784)))
    np.testing.assert_array_equal(dset.test_data[:][0], x[:40])
    np.testing.assert_array_equal(PixelByPixelMNIST(0).train_data[3][0], x[3])
    assert (PixelByPixelMNIST(permutation_seed=1).train_data[:][0] != x).any()
    np.testing.assert_array_equal(PixelByPixelMNIST(None).train_data[7][0], original.train_data[7][0].reshape(784, 1))
    with pytest.raises(ValueError, match="`permutation_seed` must be an int of at least 0"):
        PixelByPixelMNIST(-1)


def test_y_of_the_treebank_is_the_word_after_the_context(treebank):
    dset = PennTreeBank(4, path=treebank)
    # Counts: "the" 60; "<eos>", "cat" and "dog" 40 each, in alphabetical order; "<unk>" 21, because it is added once
    # to the words of the training file; the others 20.
    assert dset.vocabulary == ["the", "<eos>", "cat", "dog", "<unk>", "a", "saw"]
    assert dset.output_size == 7 and dset.shape == (4,)
    # The training file has 20 * 12 words, and every word after the first four is the y of a sample.
    assert len(dset.train_data) == 236 and len(dset.test_data) == 26
    x, y = dset.train_data[[0, 1]]
    words = np.array(dset.vocabulary)
    assert x.dtype == np.int32 and y.shape == (2,)
    assert words[x].tolist() == [["the", "cat", "saw", "the"], ["cat", "saw", "the", "dog"]]
    assert words[y].tolist() == ["dog", "<eos>"]
    assert words[dset.test_data[0][0]].tolist() == ["the", "<unk>", "saw", "a"]
    # The window of each sample is the previous window shifted by one word.
    x, y = dset.train_data[:]
    np.testing.assert_array_equal(x[1:, :-1], x[:-1, 1:])
    np.testing.assert_array_equal(x[1:, -1], y[:-1])


def test_invalid_arguments_of_the_treebank_raise_value_error(treebank, tmp_path):
    with pytest.raises(ValueError, match="`context` must be an int of at least 1"):
        PennTreeBank(0, path=treebank)
    with pytest.raises(ValueError, match="`context` must be below 30, the number of words"):
        PennTreeBank(30, path=treebank)
    for path in (None, tmp_path):
        with pytest.raises(ValueError, match=r"`path` must be a folder with ptb\.train\.txt and ptb\.test\.txt"):
            PennTreeBank(4, path=path)


@pytest.mark.parametrize("name", [module.name for module in pkgutil.iter_modules(datasets.__path__)])
def test_docstring_examples_of_datasets_give_the_shown_output(name, treebank, monkeypatch):
    monkeypatch.chdir(treebank.parent)
    module = importlib.import_module(f"importance_sampling.datasets.{name}")
    names = {"np": np, "keras": keras, **vars(datasets)}
    assert doctest.testmod(module, extraglobs=names).failed == 0
