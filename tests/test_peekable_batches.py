"""Batches can be looked at before they are used, and none is lost or used twice."""

import pytest

from importance_sampling.data.batches import PeekableBatches


def test_peeking_uses_no_batch():
    batches = PeekableBatches(iter("abcd"))
    assert batches.peek(2) == ["a", "b"]
    assert batches.peek(3) == ["a", "b", "c"]
    assert batches.taken == 0


def test_batches_are_taken_in_their_order_whether_they_were_peeked_at_or_not():
    batches = PeekableBatches(iter("abcde"))
    batches.peek(2)
    assert batches.take(1) == ["a"]
    assert batches.take(3) == ["b", "c", "d"]
    assert (batches.taken, batches.has_peeked) == (4, False)


def test_at_the_end_of_the_epoch_fewer_batches_are_returned():
    batches = PeekableBatches(iter("ab"))
    assert batches.peek(3) == ["a", "b"]
    assert batches.take(3) == ["a", "b"]
    assert batches.take(1) == batches.peek(1) == []
    assert batches.taken == 2


def test_a_streamed_batch_counts_as_used_when_it_is_yielded():
    batches = PeekableBatches(iter("abc"))
    stream = batches.stream(2)
    assert (next(stream), batches.taken) == ("a", 1)
    assert (next(stream), batches.taken) == ("b", 2)
    with pytest.raises(StopIteration):
        next(stream)
    assert batches.peek(1) == ["c"]


def test_iterators_that_were_peeked_at_are_read_no_further_than_asked():
    read = []
    batches = PeekableBatches(iter(lambda: read.append(len(read)) or read[-1], None))
    batches.peek(2)
    batches.take(1)
    assert read == [0, 1] and batches.has_peeked
