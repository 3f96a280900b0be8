"""The arrays of the swap: every kind that `model.fit` takes."""

import keras
import numpy as np
import pytest
from frameworks import tf
from toys import Stream

ROWS = 203  # an odd last batch


def data(seed=0, rows=ROWS):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 8)).astype("float32")
    return x, (x[:, :3] + 0.3 * rng.normal(size=(rows, 3))).argmax(1)


def plain_data(_):
    x, y = data()
    return dict(x=x, y=y)


def one_hot_data(_):
    x, y = data()
    return dict(x=x.astype("float64"), y=keras.utils.to_categorical(y))


def weighted_data(_):
    x, y = data()
    return dict(x=x, y=y, sample_weight=np.linspace(0.1, 2, ROWS))


def validation():
    return Stream(*data(1), 30)


def two_validation():
    x, y = data(1)
    return x, [y, x[:, :1]], [np.linspace(0, 1, ROWS)] * 2


def weighted_two_data(_):
    weights = np.linspace(0.1, 2, ROWS)
    return dict(two_data(_), sample_weight=[weights, weights[::-1]])


def weighted_sequence_data(_):
    arrays = sequence_data(_)
    return dict(arrays, sample_weight=np.random.default_rng(1).uniform(0.1, 2, arrays["x"].shape))


def mapped(path, array):
    file = np.memmap(path, array.dtype, "w+", shape=array.shape)
    file[:] = array
    return file


def mapped_data(folder):
    x, y = data()
    return dict(x=mapped(folder / "x", x), y=mapped(folder / "y", y))


def mapped_two_data(folder):
    """A memory map of everything, the weights too."""
    x, y = data()
    weights = mapped(folder / "weights", np.linspace(0.1, 2, ROWS))
    return dict(x=mapped(folder / "x", x), y=[mapped(folder / "y", y), x[:, :1] * 2], sample_weight=weights)


def hdf5_data(folder):
    h5py = pytest.importorskip("h5py")
    file = h5py.File(folder / "data.h5", "w")
    x, y = data()
    return dict(x=file.create_dataset("x", data=x.astype("float64")), y=file.create_dataset("y", data=y))


def pandas_data(_):
    pandas = pytest.importorskip("pandas")
    x, y = data()
    frame = pandas.DataFrame(x.astype("float64"))
    frame[3] = np.arange(ROWS) % 5
    weights = pandas.Series(np.linspace(0.1, 2, ROWS), index=np.arange(ROWS)[::-1])
    return dict(x=frame, y=pandas.Series(y, index=np.arange(ROWS)[::-1]), sample_weight=weights)


def tensor_data(_):
    (x, y), tensor = data(), keras.ops.convert_to_tensor
    return dict(x={"a": tensor(x[:, :5].astype("float64")), "b": tensor(x[:, 5:])}, y=tensor(y))


def sparse_data(_):
    scipy_sparse = pytest.importorskip("scipy.sparse")
    x, y = data()
    return dict(x=scipy_sparse.csr_matrix(x.astype("float64") * (x > 0)), y=y)


def sparse_tensor_data(_):
    x, y = data()
    return dict(x=tf.sparse.from_dense(x * (x > 0)), y=y)


def ragged_data(_):
    rng = np.random.default_rng(0)
    rows = [rng.integers(1, 9, 1 + row % 5).tolist() for row in range(ROWS)]
    return dict(x=tf.ragged.constant(rows), y=np.array([max(row) % 3 for row in rows]))


def text_data(_):
    words = np.array(["red", "green", "blue"])
    numbers = np.random.default_rng(0).integers(0, 3, (ROWS, 2))
    return dict(x=tf.constant([[" ".join(words[row])] for row in numbers]), y=numbers[:, 0])


def sequence_data(_):
    rng = np.random.default_rng(0)
    words = rng.integers(1, 9, (ROWS, 6)) * (np.arange(6) < rng.integers(1, 7, (ROWS, 1)))
    return dict(x=words, y=words % 3)


def two_data(_):
    x, y = data()
    return dict(x=x, y=[y, x[:, :1] * 2])


def dict_data(_):
    x, y = data()
    return dict(x={"a": x[:, :5], "b": x[:, 5:]}, y=y)
