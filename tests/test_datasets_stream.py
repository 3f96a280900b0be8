"""Batches of a generator as a dataset: rows as they come, each once, and no more read ahead than was allowed."""

import threading
import time

import numpy as np
import pytest

from importance_sampling.datasets import GeneratorDataset


class Counted:
    """Endless batches of three rows that count on, and how many have been asked for."""

    def __init__(self, last=None):
        self.batches, self.last = 0, last

    def __iter__(self):
        return self

    def __next__(self):
        if self.last is not None and self.batches >= self.last:
            raise StopIteration
        self.batches += 1
        rows = 3.0 * (self.batches - 1) + np.arange(3)
        return np.stack([rows, -rows], axis=1), 10 * rows[:, None]


@pytest.mark.parametrize("cache_size", [0, 1, 5])
def test_rows_come_in_order_and_once_however_they_are_asked_for(cache_size):
    dset = GeneratorDataset(Counted(), cache_size=cache_size)
    assert dset.shape == (2,) and dset.output_size == 1
    parts = [dset.train_data[:4], dset.train_data[[99, 0, 0]], dset.train_data[2:12:5], dset.train_data[np.arange(6)]]
    assert [len(x) for x, _ in parts] == [4, 3, 2, 6]
    np.testing.assert_array_equal(np.concatenate([x[:, 0] for x, _ in parts]), np.arange(15))
    np.testing.assert_array_equal(np.concatenate([y[:, 0] for _, y in parts]), 10 * np.arange(15))
    x, y = dset.train_data[0]
    assert x.tolist() == [15.0, -15.0] and y.tolist() == [150.0]
    assert dset.train_data[:0][0].shape == (0, 2)


def test_no_more_batches_are_read_ahead_than_the_cache_holds():
    source = Counted()
    dset = GeneratorDataset(source, cache_size=4)
    for asked in (1, 2, 3):
        deadline = time.monotonic() + 5
        while source.batches < asked + 4 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert source.batches == asked + 4
        # The first batch was read to learn the shapes; three rows use it up, the next three need another.
        dset.train_data[:3]
        if asked == 1:
            dset.train_data[:3]


def test_without_a_cache_nothing_is_read_ahead_and_no_thread_is_started():
    before, source = set(threading.enumerate()), Counted()
    dset = GeneratorDataset(source, cache_size=0)
    dset.train_data[:4]
    assert source.batches == 2 and set(threading.enumerate()) <= before  # others may end


@pytest.mark.parametrize("cache_size", [0, 5])
def test_the_end_of_a_stream_is_an_error_that_loses_nothing(cache_size):
    dset = GeneratorDataset(Counted(last=3), cache_size=cache_size)
    dset.train_data[:2]
    with pytest.raises(IndexError, match=r"The stream has ended\. Received: a request for 8 rows, with 7 left"):
        dset.train_data[:8]
    np.testing.assert_array_equal(dset.train_data[:7][0][:, 0], np.arange(2, 9))
    assert [float(x[0]) for x, _ in GeneratorDataset(Counted(last=2)).train_data] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("cache_size", [0, 2])
def test_errors_of_the_generator_are_raised_where_its_rows_are_asked_for(cache_size):
    def broken():
        yield np.arange(2.0)[:, None], np.zeros(2)
        raise RuntimeError("the disk is gone")

    dset = GeneratorDataset(broken(), cache_size=cache_size)
    dset.train_data[0]
    with pytest.raises(RuntimeError, match="the disk is gone"):
        dset.train_data[:2]
    assert dset.train_data[0][0].tolist() == [1.0]  # what was read before the error isn't lost


def test_the_length_of_a_stream_is_unknown():
    dset = GeneratorDataset(Counted())
    with pytest.raises(TypeError, match="The length of `train_data` is unknown"):
        len(dset.train_data)
    for idxs in (slice(None), slice(-3, 2), slice(0, -1)):
        with pytest.raises(IndexError, match="a slice needs an end"):
            dset.train_data[idxs]
    with pytest.raises(IndexError, match="ints of one axis"):
        dset.train_data[[[1]]]


def test_test_rows_are_arrays_or_so_many_rows_of_a_generator():
    arrays = (np.arange(8.0)[:, None], np.arange(8.0))
    dset = GeneratorDataset(Counted(), arrays)
    assert len(dset.test_data) == 8
    np.testing.assert_array_equal(dset.test_data[[-1, 0]][1], [7, 0])
    source = Counted()
    dset = GeneratorDataset(Counted(), source, test_data_length=5)
    assert len(dset.test_data) == 5 and source.batches == 0
    for _ in range(2):
        np.testing.assert_array_equal(dset.test_data[::-1][0][:, 0], [4, 3, 2, 1, 0])
    assert source.batches == 2


def test_without_test_rows_there_are_none():
    dset = GeneratorDataset(Counted())
    assert len(dset.test_data) == 0
    with pytest.raises(ValueError, match="no test rows to read: pass `test_data`"):
        dset.test_data[:]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"cache_size": -1}, "`cache_size` must be an int of at least 0"),
        ({"test_data_length": 0}, "`test_data_length` must be an int of at least 1"),
        ({"test_data_length": 3}, "`test_data_length` is for a generator"),
        ({"test_data": Counted()}, "a generator with `test_data_length`"),
        ({"test_data": (np.zeros(3), np.zeros(2))}, r"`test_data` must be a tuple \(x, y\)"),
        ({"train_data": (np.zeros(3), np.zeros(3))}, "`train_data` must be a generator of batches"),
        ({"train_data": iter([])}, "`train_data` must yield at least one batch"),
        ({"train_data": iter([np.zeros(3)])}, r"Batches must be tuples \(x, y\)"),
        ({"train_data": iter([(np.zeros(3), np.zeros(2))])}, "as many rows as each other"),
    ],
)
def test_arguments_are_checked_when_it_is_made(arguments, message):
    with pytest.raises(ValueError, match=message):
        GeneratorDataset(**{"train_data": Counted(), **arguments})
