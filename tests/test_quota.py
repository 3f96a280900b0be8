"""A share of every batch for each group: how many samples are drawn, with which weights, for which objective."""

import keras
import numpy as np
import pytest
from keras import layers
from toys import Toy

from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers import QuotaSampler
from importance_sampling.samplers.quota import group_shares
from importance_sampling.training import QuotaTraining

ROWS, BATCH = 100, 20
GROUPS = np.repeat([0, 1, 2], [70, 10, 20])
SCORES = np.random.default_rng(1).exponential(size=ROWS) + 0.1
X = np.random.default_rng(0).normal(size=(ROWS, 4)).astype("float32")


def sampler(shares=None, known=True, **options):
    made = QuotaSampler(Toy(SCORES, GROUPS), UNBIASED, shares, **{"groups": GROUPS, "seed": 3, **options})
    if known:
        made.update(np.arange(ROWS), SCORES)
    return made


def counts(drawn):
    return np.bincount(GROUPS[drawn.indices], minlength=3)


def test_every_batch_has_the_shares_of_the_groups_rounded_up_or_down():
    one = sampler({1: 0.33, 2: 0.5})
    for _ in range(50):
        drawn = counts(one.draw(BATCH))
        assert drawn[0] in (3, 4) and drawn[1] in (6, 7) and drawn[2] == 10
    assert (counts(sampler().draw(30)) == 10).all()


def test_probabilities_within_a_group_are_by_score_and_a_uniform_share():
    one = sampler({1: 0.5}, alpha=0.2)
    drawn = one.draw(BATCH)
    shares = np.array([0.5 * 70 / 90, 0.5, 0.5 * 20 / 90])
    sums, sizes = np.bincount(GROUPS, SCORES), np.bincount(GROUPS)
    p = shares[GROUPS] * (0.8 * SCORES / sums[GROUPS] + 0.2 / sizes[GROUPS])
    assert p.sum() == pytest.approx(1)
    np.testing.assert_allclose(drawn.weights, 1 / (ROWS * p[drawn.indices]), rtol=1e-5)
    np.testing.assert_allclose(drawn.scores, SCORES[drawn.indices], rtol=1e-5)


def test_without_scores_a_group_is_drawn_uniformly():
    drawn = sampler({1: 0.5}, known=False).draw(BATCH)
    np.testing.assert_allclose(drawn.weights[GROUPS[drawn.indices] == 1], 10 / ROWS / 0.5, rtol=1e-5)


def test_the_balanced_objective_is_the_mean_of_the_groups_weighted_by_their_shares():
    values = 1.0 + GROUPS + np.random.default_rng(4).exponential(size=ROWS) / SCORES
    one = sampler({1: 0.5, 2: 0.3}, balanced=True)
    means = np.array(
        [(drawn.weights * values[drawn.indices]).mean() for drawn in (one.draw(BATCH) for _ in range(3000))]
    )
    expected = sum(q * values[g == GROUPS].mean() for g, q in enumerate((0.2, 0.5, 0.3)))
    assert abs(means.mean() - expected) < 5 * means.std() / np.sqrt(3000)
    assert abs(values.mean() - expected) > 8 * means.std() / np.sqrt(3000) and not one.unbiased
    unbiased = one.draw(BATCH)
    assert np.abs(unbiased.unbiased_weights - unbiased.weights).max() > 0.1


def test_the_groups_are_the_classes_by_default():
    for y in (GROUPS, np.eye(3)[GROUPS]):
        one = QuotaSampler(Toy(SCORES, y), UNBIASED, {1: 0.5}, seed=3)
        assert counts(one.draw(BATCH))[1] == 10


def test_groups_without_a_given_share_have_shares_in_proportion_to_their_sizes():
    names, sizes = np.array([0, 1, 2]), np.array([60, 10, 30])
    np.testing.assert_allclose(group_shares({1: 0.4}, names, sizes), [0.4, 0.4, 0.2])
    np.testing.assert_allclose(group_shares({0: 0.2, 1: 0.3, 2: 0.5}, names, sizes), [0.2, 0.3, 0.5])
    np.testing.assert_allclose(group_shares(None, names, sizes), [1 / 3] * 3)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(shares={}), "`shares` must be a dict"),
        (dict(shares={0: 1.0}), "`shares` must be a dict"),
        (dict(shares={0: 0.7, 1: 0.7}), "`shares` must be a dict"),
        (dict(shares=[0.5, 0.5]), "`shares` must be a dict"),
        (dict(shares={7: 0.5}), r"which are \[0, 1, 2\]. Received: shares=\{7: 0.5\}"),
        (dict(shares={0: 0.2, 1: 0.2, 2: 0.2}), "none if it names all"),
        (dict(shares={0: 0.5, 1: 0.5}), "leave a part of every batch"),
        (dict(groups=np.zeros(5, int)), "Received: 5 numbers for 100 rows"),
        (dict(groups=np.zeros(ROWS)), "one integer for each row"),
    ],
)
def test_shares_and_groups_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        sampler(**{"known": False, **options})


def test_a_state_of_other_groups_is_refused():
    one, other = sampler({1: 0.5}), sampler({1: 0.5}, groups=GROUPS[::-1].copy())
    with pytest.raises(ValueError, match="with the same groups"):
        other.restore(one.state())


# The trainer


def build(rate=0.1):
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "softmax")])
    model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy")
    return model


def test_every_step_trains_on_the_shares_and_learns_the_scores():
    steps = []
    trainer = QuotaTraining(build(), {1: 0.5}, seed=1)
    trainer.fit(X, GROUPS, batch_size=BATCH, epochs=3, verbose=0, on_sample=lambda _, *step: steps.append(step))
    assert trainer.importance_steps == 15 and trainer.forward_equivalents == 45
    assert all((GROUPS[indices] == 1).sum() == 10 for indices, *_ in steps)
    assert all(np.isfinite(scores).all() for *_, scores in steps) and np.ptp(steps[-1][2]) > 0.01


def biased():
    """A model that doesn't learn, with a much higher loss for group 1."""
    model = build(rate=0.0)
    model.layers[0].bias.assign([1.0, -3.0, 0.0])
    return model


@pytest.mark.slow
def test_the_loss_in_history_is_that_of_all_samples_also_for_the_balanced_objective():
    for balanced in (False, True):
        model = biased()
        trainer = QuotaTraining(model, {1: 0.4}, balanced=balanced, alpha=1.0, seed=1)
        history = trainer.fit(X, GROUPS, batch_size=50, epochs=30, verbose=0).history
        losses = -np.log(model.predict(X, verbose=0)[np.arange(ROWS), GROUPS])
        found = np.array(history["loss"])
        assert abs(found.mean() - losses.mean()) < 5 * found.std() / np.sqrt(30)
        uncorrected = 0.4 * losses[GROUPS == 1].mean() + 0.6 * losses[GROUPS != 1].mean()
        assert abs(uncorrected - losses.mean()) > 5 * found.std() / np.sqrt(30)


@pytest.mark.slow
def test_sample_weights_of_the_user_multiply_the_loss():
    weights = np.where(GROUPS == 1, 3.0, 0.5).astype("float32")
    model = biased()
    trainer = QuotaTraining(model, {1: 0.4}, alpha=1.0, seed=1)
    history = trainer.fit(X, GROUPS, batch_size=50, epochs=30, verbose=0, sample_weight=weights).history
    losses = weights * -np.log(model.predict(X, verbose=0)[np.arange(ROWS), GROUPS])
    found = np.array(history["loss"])
    assert abs(found.mean() - losses.mean()) < 5 * found.std() / np.sqrt(30)


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.slow
def test_classes_are_read_without_the_inputs(one_hot):
    class Inputs:
        shape, dtype, largest = X.shape, X.dtype, 0

        def __len__(self):
            return ROWS

        def __getitem__(self, indices):
            self.largest = max(self.largest, len(np.atleast_1d(indices)))
            return X[indices]

    inputs = Inputs()
    model = build()
    if one_hot:
        model.compile("sgd", "categorical_crossentropy")
    y = np.eye(3)[GROUPS] if one_hot else GROUPS
    QuotaTraining(model, {1: 0.5}, seed=1).fit(inputs, y, batch_size=BATCH, verbose=0)
    assert inputs.largest < ROWS


def test_invalid_arguments_of_quota_training_are_refused_by_the_constructor():
    for options in (dict(shares={0: 2.0}), dict(groups=np.zeros((4, 2), int)), dict(alpha=0.0)):
        with pytest.raises(ValueError, match="Received"):
            QuotaTraining(build(), **options)
