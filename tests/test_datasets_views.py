"""Indexing of datasets, datasets of in-memory arrays, one-hot labels, and images as floats."""

import types

import numpy as np
import pytest

from importance_sampling.datasets import BaseDataset, InMemoryDataset, InMemoryImageDataset

X = np.arange(30.0).reshape(10, 3)
Y = np.array([0, 2, 1, 1, 0, 2, 2, 1, 0, 1])


class RecordedDataset(BaseDataset):
    """A dataset that records the indices of training samples that its methods receive."""

    shape, output_size = (3,), 1

    def __init__(self):
        self.indices = []

    def _train_data(self, idxs):
        self.indices.append(idxs)
        return X[idxs], Y[idxs]

    def _train_size(self):
        return len(X)

    def _test_data(self, idxs):
        return X[:4][idxs], Y[:4][idxs]

    def _test_size(self):
        return 4


@pytest.mark.parametrize(
    "idxs",
    [
        3,
        -1,
        np.int32(7),
        slice(None),
        slice(2, 5),
        slice(-3, None),
        slice(1, 9, 3),
        slice(None, None, -1),
        slice(8, 2, -2),
        slice(5, 2),
        slice(4, 400),
        [4, 4, 1],
        [-1, 0, -10],
        np.array([9, 0], "uint8"),
        [],
        Y == 2,
    ],
    ids=str,
)
class TestIndexing:
    def test_the_view_returns_the_samples_that_numpy_indexing_returns(self, idxs):
        x, y = RecordedDataset().train_data[idxs]
        wanted = np.asarray(idxs, int) if isinstance(idxs, list) else idxs
        np.testing.assert_array_equal(x, X[wanted])
        np.testing.assert_array_equal(y, Y[wanted])

    def test_the_dataset_receives_a_forward_slice_or_non_negative_ints(self, idxs):
        dset = RecordedDataset()
        dset.train_data[idxs]
        (received,) = dset.indices
        if isinstance(received, slice):
            assert 0 <= received.start <= received.stop <= 10 and received.step > 0
        else:
            assert received.dtype.kind == "i" and received.ndim == 1 and (received >= 0).all()


def test_train_data_and_test_data_are_views_of_different_sets():
    dset = RecordedDataset()
    assert len(dset.train_data) == 10 and len(dset.test_data) == 4
    np.testing.assert_array_equal(dset.test_data[-1][0], X[3])
    assert [float(x[0]) for x, _ in dset.test_data] == [0.0, 3.0, 6.0, 9.0]


@pytest.mark.parametrize("idxs", [10, -11, [0, 10], [3, -11]])
def test_an_index_out_of_range_raises_index_error(idxs):
    with pytest.raises(IndexError, match=r"Indices must be in \[-10, 10\)\. Received: idxs in \["):
        RecordedDataset().train_data[idxs]


@pytest.mark.parametrize("idxs", [1.0, "2", [[0, 1]], np.ones(9, bool)])
def test_an_index_of_the_wrong_type_raises_index_error(idxs):
    with pytest.raises(IndexError, match="an int, a slice, a one-dimensional int array, or a bool array"):
        RecordedDataset().train_data[idxs]


def test_a_dataset_without_all_methods_can_not_be_instantiated():
    class Incomplete(BaseDataset):
        def _train_data(self, idxs):
            return X[idxs], Y[idxs]

    with pytest.raises(TypeError, match="_train_size"):
        Incomplete()


def test_one_hot_labels_include_classes_that_occur_only_in_the_test_set():
    # Class 3 is only in the test set.
    dset = InMemoryDataset(X, Y, X[:2], np.array([3, 0]))
    assert dset.output_size == 4 and dset.shape == (3,)
    np.testing.assert_array_equal(dset.train_data[[0, 1]][1], [[1, 0, 0, 0], [0, 0, 1, 0]])
    np.testing.assert_array_equal(dset.test_data[:][1], [[0, 0, 0, 1], [1, 0, 0, 0]])
    assert dset.train_data[:][1].dtype == np.float32
    column = InMemoryDataset(X, Y[:, None], X[:2], np.array([[3], [0]]))
    np.testing.assert_array_equal(column.train_data[:][1], dset.train_data[:][1])


def test_with_categorical_false_y_is_unchanged():
    y = np.stack([Y, -Y], axis=1)
    dset = InMemoryDataset(X, y, X, y, categorical=False)
    assert dset.output_size == 2
    np.testing.assert_array_equal(dset.train_data[:][1], y)
    assert InMemoryDataset(X, Y, X, Y, False).output_size == 1


@pytest.mark.parametrize("y", [Y - 1, Y / 2, np.eye(10)], ids=["negative", "float", "matrix"])
def test_invalid_labels_raise_value_error(y):
    with pytest.raises(ValueError, match=r"`y_train` must be ints of at least 0.*categorical=False"):
        InMemoryDataset(X, y, X, Y)


def test_different_numbers_of_rows_raise_value_error():
    with pytest.raises(ValueError, match="`X_test` and `y_test` must have the same number of rows"):
        InMemoryDataset(X, Y, X, Y[:3])


def test_different_sample_shapes_raise_value_error():
    with pytest.raises(ValueError, match="must have the same sample shape"):
        InMemoryDataset(X, Y, X[:, :2], Y)


def test_from_loadable_accepts_every_object_with_load_data():
    loadable = types.SimpleNamespace(load_data=lambda: ((X, Y), (X[:5], Y[:5])))
    dset = InMemoryDataset.from_loadable(loadable, categorical=False)
    assert len(dset.train_data) == 10 and len(dset.test_data) == 5 and dset.output_size == 1
    with pytest.raises(ValueError, match=r"`loadable` must have `load_data\(\)`"):
        InMemoryDataset.from_loadable(X)


@pytest.mark.parametrize("dtype, scale", [("uint8", 255), ("int64", 255), ("float64", 1)])
def test_images_are_returned_as_floats_in_the_unit_interval_with_channels_last(dtype, scale):
    unit = np.linspace(0, 1, 6 * 2 * 4).reshape(6, 2, 4)
    images = (unit * scale).astype(dtype)
    loadable = types.SimpleNamespace(load_data=lambda: ((images, Y[:6]), (images[:2], Y[:2])))
    dset = InMemoryImageDataset.from_loadable(loadable)
    assert dset.shape == (2, 4, 1)
    for rows in (dset.train_data[:2][0], dset.test_data[:][0]):
        assert rows.dtype == np.float32 and rows.shape == (2, 2, 4, 1)
        np.testing.assert_allclose(rows, images[:2, ..., None] / scale, rtol=1e-6)
    assert dset.train_data[:][0].max() == 1.0


def test_an_existing_channel_axis_is_kept():
    images = np.zeros((6, 4, 4, 3), "uint8")
    assert InMemoryImageDataset(images, Y[:6], images, Y[:6]).shape == (4, 4, 3)


def test_arrays_that_are_not_images_raise_value_error():
    with pytest.raises(ValueError, match="`X_train` must be images of shape"):
        InMemoryImageDataset(X, Y, X, Y)


def test_images_out_of_range_raise_value_error():
    wrong = np.full((10, 2, 2), 200.0)
    with pytest.raises(ValueError, match=r"floats in \[0, 1\]; rescale it"):
        InMemoryImageDataset(wrong / 200, Y, wrong, Y)
