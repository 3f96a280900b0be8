"""Selective backprop and hard example mining: which samples they select, and in which steps."""

import keras
import numpy as np
import pytest
from frameworks import needs
from keras import layers, ops
from toys import Stream

from importance_sampling.samplers import HighestSampler, RankSampler
from importance_sampling.strategies.scheduled_pool import SelectionSchedule
from importance_sampling.training import HardExampleMining, SelectiveBackprop

ROWS, BATCH = 80, 8
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype("float32")
Y = X[:, :3].argmax(1)
SCORES = np.array([3.0, 1.0, 8.0, 2.0, 5.0])


def build(steps_per_execution=1):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", steps_per_execution=steps_per_execution)
    return model


def steps_of(trainer, x=X, y=Y, **options):
    """Return `(indices, weights, scores)` of every step."""
    steps = []
    options = {"batch_size": BATCH, "epochs": 4, "verbose": 0, **options}
    trainer.fit(x, y, on_sample=lambda _, *step: steps.append(step), **options)
    return steps


# The samplers


def test_the_highest_scores_of_a_pool_are_selected_with_weights_of_1():
    picked = HighestSampler(5, 3).pick(SCORES, np.zeros(0))
    np.testing.assert_array_equal(picked.positions, [2, 4, 0])
    np.testing.assert_array_equal(picked.weights, [1, 1, 1])
    np.testing.assert_array_equal(picked.scores, [8, 5, 3])


def test_ranks_are_drawn_by_the_smallest_exponential_numbers_over_their_probabilities():
    # With 2 of 5, p = ((r + 0.5) / 5)^1.5: 0.354, 0.032, 0.854, 0.164, 0.586 for the ranks 2, 0, 4, 1, 3. The uniform
    # numbers e^-0.2, e^-0.02, e^-0.9, e^-0.05, e^-0.7 give 0.566, 0.632, 1.054, 0.304, 1.195.
    uniforms = np.exp(-np.array([0.2, 0.02, 0.9, 0.05, 0.7]))
    picked = RankSampler(5, 2).pick(SCORES, uniforms)
    np.testing.assert_array_equal(picked.positions, [3, 0])
    np.testing.assert_array_equal(picked.weights, [1, 1])


def test_ranks_are_included_as_by_draws_without_replacement():
    rng, counts, n = np.random.default_rng(1), np.zeros(3), 4000
    for _ in range(n):
        counts[RankSampler(3, 2).pick(np.array([2.0, 9.0, 1.0]), rng.random(3)).positions] += 1
    p = np.sqrt([1.5, 2.5, 0.5])  # 3 / 2 - 1 is the exponent; by rank 1, 2, 0
    p /= p.sum()
    second = [sum(p[j] * p[i] / (1 - p[j]) for j in range(3) if j != i) for i in range(3)]
    included = p + second
    assert (np.abs(counts / n - included) < 5 * np.sqrt(included * (1 - included) / n)).all()


@pytest.mark.parametrize("sampler", [RankSampler(5, 3), HighestSampler(5, 3)], ids=["ranks", "highest"])
def test_samples_are_selected_in_numpy_as_on_the_device_and_unusable_scores_are_equal(sampler):
    uniforms = np.random.default_rng(2).uniform(0.1, 1, size=sampler.num_uniforms).astype("float32")
    on_host = sampler.pick(SCORES, uniforms)
    on_device = sampler.pick(ops.convert_to_tensor(SCORES.astype("float32")), ops.convert_to_tensor(uniforms))
    for mine, theirs in zip(on_host, on_device, strict=True):
        np.testing.assert_allclose(mine, ops.convert_to_numpy(theirs))
    unusable, equal = np.array([np.nan, 1, 2, 3, 4]), np.ones(5)
    np.testing.assert_array_equal(sampler.pick(unusable, uniforms).positions, sampler.pick(equal, uniforms).positions)


def test_the_schedule_is_active_between_start_and_end_except_in_interrupted_steps():
    schedule = SelectionSchedule(0.25, 0.75, 3)
    assert [schedule.is_active(progress, 0) for progress in (0.0, 0.24, 0.25, 0.74, 0.75, 0.99)] == [
        False,
        False,
        True,
        True,
        False,
        False,
    ]
    assert [schedule.is_active(0.5, step) for step in range(6)] == [True, True, False, True, True, False]
    assert [SelectionSchedule(0.0, 1.0, 0).is_active(0.5, step) for step in range(3)] == [True] * 3


# The trainers


@pytest.mark.slow
def test_selective_backprop_trains_on_a_share_of_every_other_batch_in_its_part_of_the_training():
    trainer = SelectiveBackprop(build(), 0.5, 0.25, 0.625, seed=1)
    sizes = [len(indices) for indices, *_ in steps_of(trainer)]
    # Of four epochs of ten steps: from the second epoch to the middle of the third, every other step.
    assert sizes == [8] * 10 + [4, 8] * 5 + [4, 8, 4, 8, 4] + [8] * 15
    assert trainer.importance_steps == 8
    assert trainer.forward_equivalents == pytest.approx(8 * (1 + 1.5) + 32 * 3)


@pytest.mark.slow
def test_selective_backprop_starts_in_the_epoch_that_fit_starts_in():
    trainer = SelectiveBackprop(build(), 0.25, 0.5, 1.0, interrupt=0, seed=1)
    sizes = [len(indices) for indices, *_ in steps_of(trainer, initial_epoch=1)]
    assert sizes == [8] * 10 + [2] * 20


@needs("several steps per execution")
@pytest.mark.slow
def test_selective_backprop_counts_executions_of_several_steps():
    trainer = SelectiveBackprop(build(5), 0.5, 0.0, 1.0, seed=1)
    sizes = [len(indices) for indices, *_ in steps_of(trainer, epochs=1)]
    assert sizes == [4] * 5 + [8] * 5


@pytest.mark.slow
def test_selective_backprop_prefers_high_losses_and_does_not_weigh_them():
    pools, steps = [], []
    trainer = SelectiveBackprop(build(), 0.25, 0.0, 1.0, interrupt=0, seed=1)
    trainer.fit(
        X,
        Y,
        batch_size=BATCH,
        epochs=20,
        verbose=0,
        on_sample=lambda _, *step: steps.append(step),
        on_scores=lambda _, scores: pools.append(scores),
    )
    assert all((weights == 1).all() for _, weights, _ in steps)
    ranks = np.array(
        [(pool < score).sum() for pool, (*_, scores) in zip(pools, steps, strict=True) for score in scores]
    )
    assert ranks.mean() > 3.5 + 5 * ranks.std() / np.sqrt(len(ranks))


@pytest.mark.slow
def test_selective_backprop_takes_a_stream():
    stream = Stream(X, Y, BATCH)
    trainer = SelectiveBackprop(build(), 0.5, 0.5, 1.0, seed=1)
    sizes = [len(indices) for indices, *_ in steps_of(trainer, stream, None, batch_size=None, epochs=2, shuffle=False)]
    assert sizes == [8] * 10 + [4, 8] * 5


@pytest.mark.slow
def test_hard_example_mining_trains_on_the_highest_losses_of_every_pool():
    pools, steps = [], []
    trainer = HardExampleMining(build(), presample=2.5, seed=1)
    trainer.fit(
        X,
        Y,
        batch_size=BATCH,
        verbose=0,
        on_sample=lambda _, *step: steps.append(step),
        on_scores=lambda _, scores: pools.append(scores),
    )
    for pool, (_, weights, scores) in zip(pools, steps, strict=True):
        assert len(pool) == 20 and (weights == 1).all()
        np.testing.assert_array_equal(scores, np.sort(pool)[: -BATCH - 1 : -1])
    assert trainer.forward_equivalents == pytest.approx(10 * (2.5 + 3))


@pytest.mark.parametrize("trainer", [SelectiveBackprop, HardExampleMining])
def test_the_first_line_of_the_summary_says_that_the_method_is_biased(trainer):
    assert "Biased" in trainer.__doc__.splitlines()[0]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (dict(share=0.0), r"`share` must be a number in \(0, 1\]. Received: share=0.0"),
        (dict(start=0.9, end=0.5), r"0 <= start <= end <= 1. Received: start=0.9, end=0.5"),
        (dict(interrupt=-1), r"`interrupt` must be an int of at least 0 \(never\). Received: interrupt=-1"),
        (dict(interrupt=1.5), r"`interrupt` must be an int of at least 0 \(never\). Received: interrupt=1.5"),
    ],
)
def test_options_of_selective_backprop_out_of_range_are_refused(options, error):
    with pytest.raises(ValueError, match=error):
        SelectiveBackprop(build(), **options)


def test_a_pool_smaller_than_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"`presample` must be a finite number of at least 1. Received: presample=0.5"):
        HardExampleMining(build(), presample=0.5)
