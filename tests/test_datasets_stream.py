"""`GeneratorDataset`: samples in order, each once, and a limited number of batches read in advance."""

import threading
import time

import numpy as np
import pytest

from importance_sampling.datasets import GeneratorDataset


class CountedBatches:
    """An iterator of batches of three consecutive numbers that counts the batches it returned; endless by default."""

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
def test_samples_are_returned_in_order_and_once_for_every_kind_of_index(cache_size):
    dset = GeneratorDataset(CountedBatches(), cache_size=cache_size)
    assert dset.shape == (2,) and dset.output_size == 1
    parts = [dset.train_data[:4], dset.train_data[[99, 0, 0]], dset.train_data[2:12:5], dset.train_data[np.arange(6)]]
    assert [len(x) for x, _ in parts] == [4, 3, 2, 6]
    np.testing.assert_array_equal(np.concatenate([x[:, 0] for x, _ in parts]), np.arange(15))
    np.testing.assert_array_equal(np.concatenate([y[:, 0] for _, y in parts]), 10 * np.arange(15))
    x, y = dset.train_data[0]
    assert x.tolist() == [15.0, -15.0] and y.tolist() == [150.0]
    assert dset.train_data[:0][0].shape == (0, 2)


def test_at_most_cache_size_batches_are_read_in_advance():
    source = CountedBatches()
    dset = GeneratorDataset(source, cache_size=4)
    for consumed in (1, 2, 3):
        deadline = time.monotonic() + 5
        while source.batches < consumed + 4 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert source.batches == consumed + 4
        # The constructor reads the first batch. The first three samples come from it, the next three need a new batch.
        dset.train_data[:3]
        if consumed == 1:
            dset.train_data[:3]


def test_with_cache_size_zero_no_batch_is_read_in_advance():
    source = CountedBatches()
    GeneratorDataset(source, cache_size=0).train_data[:4]
    assert source.batches == 2


def test_with_cache_size_zero_no_thread_is_started():
    before = set(threading.enumerate())
    GeneratorDataset(CountedBatches(), cache_size=0).train_data[:4]
    assert set(threading.enumerate()) <= before  # other threads may have ended


@pytest.mark.parametrize("cache_size", [0, 5])
def test_a_request_for_too_many_samples_raises_index_error_and_discards_no_samples(cache_size):
    dset = GeneratorDataset(CountedBatches(last=3), cache_size=cache_size)
    dset.train_data[:2]
    with pytest.raises(IndexError, match=r"enough samples.*a request for 8 samples, with 7 remaining"):
        dset.train_data[:8]
    np.testing.assert_array_equal(dset.train_data[:7][0][:, 0], np.arange(2, 9))
    assert [float(x[0]) for x, _ in GeneratorDataset(CountedBatches(last=2)).train_data] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("cache_size", [0, 2])
def test_an_error_of_the_generator_is_raised_when_its_samples_are_read(cache_size):
    def broken():
        yield np.arange(2.0)[:, None], np.zeros(2)
        raise RuntimeError("the disk is gone")

    dset = GeneratorDataset(broken(), cache_size=cache_size)
    dset.train_data[0]
    with pytest.raises(RuntimeError, match="the disk is gone"):
        dset.train_data[:2]
    assert dset.train_data[0][0].tolist() == [1.0]  # samples that were read before the error are still returned


def test_operations_that_need_the_length_of_a_stream_raise_errors():
    dset = GeneratorDataset(CountedBatches())
    with pytest.raises(TypeError, match="The length of `train_data` is unknown"):
        len(dset.train_data)
    for idxs in (slice(None), slice(-3, 2), slice(0, -1)):
        with pytest.raises(IndexError, match="a slice needs an end"):
            dset.train_data[idxs]
    with pytest.raises(IndexError, match="a one-dimensional int array"):
        dset.train_data[[[1]]]


def test_the_test_set_comes_from_arrays_or_from_the_first_samples_of_a_generator():
    arrays = (np.arange(8.0)[:, None], np.arange(8.0))
    dset = GeneratorDataset(CountedBatches(), arrays)
    assert len(dset.test_data) == 8
    np.testing.assert_array_equal(dset.test_data[[-1, 0]][1], [7, 0])
    source = CountedBatches()
    dset = GeneratorDataset(CountedBatches(), source, test_data_length=5)
    assert len(dset.test_data) == 5 and source.batches == 0
    for _ in range(2):
        np.testing.assert_array_equal(dset.test_data[::-1][0][:, 0], [4, 3, 2, 1, 0])
    assert source.batches == 2


def test_without_test_data_the_test_set_is_empty_and_reading_it_raises_value_error():
    dset = GeneratorDataset(CountedBatches())
    assert len(dset.test_data) == 0
    with pytest.raises(ValueError, match="no test set: pass `test_data`"):
        dset.test_data[:]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"cache_size": -1}, "`cache_size` must be an int of at least 0"),
        ({"test_data_length": 0}, "`test_data_length` must be an int of at least 1"),
        ({"test_data_length": 3}, "`test_data_length` is only allowed with a generator"),
        ({"test_data": CountedBatches()}, "a generator with `test_data_length`"),
        ({"test_data": (np.zeros(3), np.zeros(2))}, r"`test_data` must be a tuple \(x, y\)"),
        ({"train_data": (np.zeros(3), np.zeros(3))}, "`train_data` must be a generator of batches"),
        ({"train_data": iter([])}, "`train_data` must yield at least one batch"),
        ({"train_data": iter([np.zeros(3)])}, r"Batches must be tuples \(x, y\)"),
        ({"train_data": iter([(np.zeros(3), np.zeros(2))])}, "the same number of rows"),
    ],
)
def test_invalid_arguments_of_a_generator_dataset_raise_value_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        GeneratorDataset(**{"train_data": CountedBatches(), **arguments})
