"""The weights of reweighting policies, from predicted and from measured scores."""

import keras
import numpy as np
import pytest

from importance_sampling.reweighting import (
    UNBIASED,
    UNWEIGHTED,
    AdjustedBiasedReweightingPolicy,
    BiasedReweightingPolicy,
    CorrectingReweightingPolicy,
)

pytestmark = pytest.mark.usefixtures("host_and_device")
# Of a pool of 4: w = 1 / (4 P) = [.5, 2, 1, 2.5].
P = np.array([0.5, 0.125, 0.25, 0.1], "float32")
SCORES = np.array([4.0, 1.0, 2.0, 0.0], "float32")


def weights(k, p=P, scores=SCORES):
    return keras.ops.convert_to_numpy(BiasedReweightingPolicy(k).weights(p, 4, scores))


def test_unbiased_weights_are_the_inverse_of_pool_size_times_probability():
    assert BiasedReweightingPolicy().unbiased
    np.testing.assert_allclose(weights(1.0), [0.5, 2, 1, 2.5], rtol=1e-6)


def test_biased_weights_are_powers_with_the_same_weighted_sum_of_scores():
    # sum(w s) = 2 + 2 + 2 = 6; sum(sqrt(w) s) = 4/sqrt(2) + sqrt(2) + 2 = 6.2426.
    assert not BiasedReweightingPolicy(0.5).unbiased
    expected = np.sqrt([0.5, 2, 1, 2.5]) * 6 / (3 * np.sqrt(2) + 2)
    np.testing.assert_allclose(weights(0.5), expected, rtol=1e-6)
    assert (weights(0.5) * SCORES).sum() == pytest.approx(6, rel=1e-6)


def test_exponent_zero_gives_equal_weights_and_a_negative_exponent_higher_weights_to_high_scores():
    # sum(w s) / sum(s) = 6/7.
    np.testing.assert_allclose(weights(0), np.full(4, 6 / 7), rtol=1e-6)
    # w^-1 = [2 .5 1 .4], sum(w^-1 s) = 8 + .5 + 2 = 10.5.
    np.testing.assert_allclose(weights(-1), np.array([2, 0.5, 1, 0.4]) * 6 / 10.5, rtol=1e-6)


@pytest.mark.parametrize("scores", [[0, 0, 0, 0], [1, np.nan, 2, 3], [1, np.inf, 2, 3]])
def test_unusable_scores_keep_the_sum_of_the_weights(scores):
    # sum(w) = 6.
    found = weights(0.5, scores=np.array(scores, "float32"))
    np.testing.assert_allclose(found, np.sqrt([0.5, 2, 1, 2.5]) * 6 / np.sqrt([0.5, 2, 1, 2.5]).sum(), rtol=1e-6)


@pytest.mark.parametrize("k", [1.001, float("inf"), float("nan")])
def test_exponents_above_one_are_refused(k):
    with pytest.raises(ValueError, match=rf"`k` must be a number of at most 1.*Received: k={k}"):
        BiasedReweightingPolicy(k)


def final(policy, columns, measured):
    return keras.ops.convert_to_numpy(policy.final_weights(columns, np.asarray(measured, "float32")))


def test_the_policy_constants_are_unbiased_and_unweighted():
    assert UNBIASED.unbiased and UNBIASED.k == 1 and not UNWEIGHTED.unbiased
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(UNWEIGHTED.weights(P, 4, SCORES)), np.ones(4))


def test_sample_weights_accept_scores_or_probabilities_or_both():
    # g = [.5 .125 .25 .125], w = 1 / (4 g) = [.5 2 1 2].
    pool = np.array([4.0, 1.0, 2.0, 1.0])
    for scores in (pool, pool / 8):
        np.testing.assert_allclose(UNBIASED.sample_weights([1, 0, 1], scores), [[2], [0.5], [2]], rtol=1e-6)
    mixed = 0.5 * pool / 8 + 0.125  # [.375 .1875 .25 .1875]
    np.testing.assert_allclose(UNBIASED.sample_weights([0, 1], pool, mixed)[:, 0], [2 / 3, 4 / 3], rtol=1e-6)
    # The exponent uses the scores themselves: sqrt(w) sum(w s) / sum(sqrt(w) s), w = [2/3 4/3], s = [4 1].
    w = np.array([2 / 3, 4 / 3])
    expected = np.sqrt(w) * (w @ [4, 1]) / (np.sqrt(w) @ [4, 1])
    found = BiasedReweightingPolicy(0.5).sample_weights([0, 1], pool, mixed)[:, 0]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("scores", [[0, 0, 0], [1, np.nan, 2]])
def test_a_pool_of_unusable_scores_gives_weights_of_one(scores):
    np.testing.assert_allclose(UNBIASED.sample_weights([0, 2], scores), [[1], [1]], rtol=1e-6)


def test_positions_with_probability_zero_are_refused():
    with pytest.raises(ValueError, match=r"`positions` must be of samples that can be drawn.*Received: positions="):
        UNBIASED.sample_weights([0, 1], [0.0, 1.0])


# A pool of 4 with scores [4 1 2 1]: the first is drawn twice, the second once. S1 = 2 + 1 = 3. Measured scores are
# 3 and 2: S2 = 5 (each once), (S1 + S2) / B = 2, a = 2 / s = [2/3 2/3 1].
POOL, PICKED, MEASURED = np.array([4.0, 1.0, 2.0, 1.0]), [0, 0, 1], [3.0, 3.0, 2.0]


def test_adjusted_weights_are_those_computed_by_hand_from_measured_scores():
    policy = AdjustedBiasedReweightingPolicy(1.0)
    columns = policy.sample_weights(PICKED, POOL)
    np.testing.assert_allclose(columns, [[0.75, 0.125], [0.75, 0.125], [0.75, 0.25]], rtol=1e-6)
    np.testing.assert_allclose(final(policy, columns, MEASURED), [2 / 3, 2 / 3, 1], rtol=1e-6)


def test_adjusted_weights_with_an_exponent_keep_the_weighted_sum_of_measured_scores():
    # sum(a s) = 2 + 2 + 2 = 6; sum(sqrt(a) s) = 6 sqrt(2/3) + 2.
    policy = AdjustedBiasedReweightingPolicy(0.5)
    found = final(policy, policy.sample_weights(PICKED, POOL), MEASURED)
    a = np.array([2 / 3, 2 / 3, 1])
    np.testing.assert_allclose(found, np.sqrt(a) * 6 / (6 * np.sqrt(2 / 3) + 2), rtol=1e-6)
    assert found @ MEASURED == pytest.approx(6, rel=1e-6)


def test_adjusted_weights_are_limited_to_ten():
    # S2 = 3 + 0, (3 + 3) / 4 = 1.5: for the score of 0 a weight of 10.
    policy = AdjustedBiasedReweightingPolicy(1.0)
    found = final(policy, policy.sample_weights(PICKED, POOL), [3.0, 3.0, 0.0])
    np.testing.assert_allclose(found, [0.5, 0.5, 10], rtol=1e-6)


@pytest.mark.parametrize("measured", [[0, 0, 0], [1, np.nan, 1], [1, np.inf, 1], [1, -1, 1]])
def test_unusable_measured_scores_give_adjusted_weights_of_one(measured):
    policy = AdjustedBiasedReweightingPolicy(0.5)
    np.testing.assert_array_equal(final(policy, policy.sample_weights(PICKED, POOL), measured), np.ones(3))


def test_adjusted_weights_use_the_batch_alone_if_the_predicted_scores_are_unusable():
    # Mean over the two drawn samples, (3 + 2) / 2 = 2.5.
    policy = AdjustedBiasedReweightingPolicy(1.0)
    columns = policy.sample_weights(PICKED, [1, np.nan, 1, 1])
    np.testing.assert_allclose(final(policy, columns, MEASURED), [2.5 / 3, 2.5 / 3, 1.25], rtol=1e-6)


def test_correcting_weights_are_multiplied_by_predicted_over_measured_scores_up_to_two():
    # w = [.5 .5 2]; predicted [4 4 1] over measured [8 1 .25] is [.5 4 4], limited to 2.
    policy = CorrectingReweightingPolicy(1.0)
    columns = policy.sample_weights(PICKED, POOL)
    np.testing.assert_allclose(columns, [[0.5, 4], [0.5, 4], [2, 1]], rtol=1e-6)
    np.testing.assert_allclose(final(policy, columns, [8, 1, 0.25]), [0.25, 1, 4], rtol=1e-6)


def test_correcting_weights_use_a_ratio_of_one_if_a_score_is_unusable():
    # Predicted scores [0 3 0] and measured scores [0 0 5] of uniform draws: no ratio, 2, and 0.
    policy = CorrectingReweightingPolicy(1.0)
    columns = np.array([[1, 0], [1, 3], [1, 0], [1, 3], [1, -1]], "float32")
    np.testing.assert_allclose(final(policy, columns, [0, 0, 5, np.nan, 2]), [1, 2, 0, 1, 1], rtol=1e-6)


@pytest.mark.parametrize("cls", [AdjustedBiasedReweightingPolicy, CorrectingReweightingPolicy])
def test_policies_that_use_measured_scores_are_biased_and_check_their_exponent(cls):
    assert not cls(1.0).unbiased
    with pytest.raises(ValueError, match="`k` must be a number of at most 1"):
        cls(1.5)


def test_a_weight_layer_is_saved_and_loaded_with_its_model(tmp_path):
    policy = AdjustedBiasedReweightingPolicy(0.5)
    inputs = [keras.Input((2,)), keras.Input(())]
    model = keras.Model(inputs, policy.weight_layer()(inputs))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    data = [policy.sample_weights(PICKED, POOL), np.array(MEASURED, "float32")]
    np.testing.assert_array_equal(again.predict_on_batch(data), model.predict_on_batch(data))
    np.testing.assert_allclose(again.predict_on_batch(data), final(policy, *data), rtol=1e-5)


def test_the_old_name_of_uniform_weights_works_and_warns():
    with pytest.warns(DeprecationWarning, match="Use `ReweightingPolicy.uniform_weights`"):
        np.testing.assert_array_equal(UNBIASED.even(3), np.ones((3, 1)))


def test_a_policy_that_overrides_the_old_name_of_uniform_weights_works_and_warns():
    with pytest.warns(DeprecationWarning, match="Use `Halves.uniform_weights`"):

        class Halves(BiasedReweightingPolicy):
            def even(self, batch_size):
                return np.full((batch_size, 1), 0.5, "float32")

    np.testing.assert_array_equal(Halves().uniform_weights(2), [[0.5], [0.5]])
