"""Samplers that predict scores: per class, and by a small recurrent network."""

import blinker
import numpy as np
import pytest
from frameworks import lacks
from toys import CLASSES, SCORES, SIZE, Reader, Rows, Toy

from importance_sampling import samplers
from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers.labels import Labels, parse_classes
from importance_sampling.samplers.predictor import ScorePredictor


@pytest.mark.parametrize(
    ("y", "classes", "count"),
    [
        ([2, 0, 1], [2, 0, 1], None),
        ([[1.0], [0.0]], [1, 0], None),
        ([True, False], [1, 0], None),
        ([[0, 0, 1], [1, 0, 0]], [2, 0], 3),
        (np.eye(2, dtype="float32"), [0, 1], 2),
    ],
)
def test_classes_are_parsed_from_integers_and_one_hot_rows(y, classes, count):
    found, found_count = parse_classes(y if isinstance(y, np.ndarray) else np.array(y))
    np.testing.assert_array_equal(found, classes)
    assert found.dtype == np.int32 and found_count == count


@pytest.mark.parametrize(
    "y",
    [
        np.array([0.5, 1.0]),
        np.array([-1, 1]),
        np.array([[1, 1, 0]]),
        np.array([[0, 0]]),
        np.zeros((2, 3, 1)),
        np.array(["a"]),
        {"first": np.zeros(2)},
    ],
)
def test_targets_that_are_not_classes_are_refused(y):
    with pytest.raises(ValueError, match=r"(?s)Targets must be classes.*use `HistorySampler`.*Received: y of shape"):
        parse_classes(y)


def test_the_constructor_refuses_regression_targets():
    with pytest.raises(ValueError, match="Targets must be classes"):
        samplers.LSTMSampler(Toy(y=SCORES), UNBIASED)
    with pytest.raises(ValueError, match="Targets must be classes"):
        samplers.PerClassGaussian(Toy(y=SCORES), UNBIASED)


def test_labels_are_read_once_when_they_are_first_needed():
    toy = Toy()
    labels = Labels(toy)
    assert labels.num_classes == 3 and toy.train_data.read == 1
    np.testing.assert_array_equal(labels.classes(np.array([5, 5, 2])), CLASSES[[5, 5, 2]])
    assert toy.train_data.read == 3
    np.testing.assert_array_equal(labels.classes(np.array([2, 5])), CLASSES[[2, 5]])
    assert toy.train_data.read == 3


def test_classes_are_counted_if_the_dataset_has_no_output_size(monkeypatch):
    monkeypatch.setattr("importance_sampling.samplers.labels.ROWS_PER_READ", 7)

    class Bare:
        train_data = Rows(np.zeros((20, 1)), np.arange(20) % 5)

    assert Labels(Bare()).num_classes == 5
    Bare.train_data = Rows(np.zeros((20, 1)), np.eye(4)[np.zeros(20, int)])
    assert Labels(Bare()).num_classes == 4


def test_labels_beyond_the_number_of_classes_are_refused():
    toy = Toy(y=np.full(SIZE, 3))
    with pytest.raises(ValueError, match=r"Labels must be below the number of classes, 3. Received: label=3"):
        Labels(toy).classes(np.array([0]))


def test_the_score_of_a_class_is_the_moving_mean_plus_the_standard_deviation():
    sampler = samplers.PerClassGaussian(Toy(np.ones(6), [0, 0, 0, 1, 1, 2]), UNBIASED, alpha=0.75)
    np.testing.assert_array_equal(sampler.class_scores(), np.ones(3))
    # Class 0: mean 2, mean square 5, deviation 1. Class 1: 4, 16, 0. The class without a score: (3 + 4) / 2.
    sampler.update([0, 1, 3], [1.0, 3.0, 4.0])
    np.testing.assert_allclose(sampler.class_scores(), [3, 4, 3.5])
    # Class 0: 3/4 * 2 + 1/4 * 6 = 3, 3/4 * 5 + 1/4 * 36 = 12.75: 3 + sqrt(3.75); class 1 wasn't in the batch.
    sampler.update([2, 4], [6.0, np.nan])
    np.testing.assert_allclose(sampler.class_scores(), [3 + np.sqrt(3.75), 4, (7 + np.sqrt(3.75)) / 2])


def test_samples_are_drawn_by_the_score_of_their_class():
    toy = Toy(np.ones(40), np.repeat([0, 1], 20))
    sampler = samplers.PerClassGaussian(toy, UNBIASED, seed=1)
    sampler.update([0, 20], [3.0, 1.0])
    drawn = sampler.draw(400)
    # P of class 0: .9 * 3/4 + .1 / 2 = .725; weights 1 / (.9 * [1.5 .5] + .1).
    assert np.count_nonzero(drawn.indices < 20) == pytest.approx(290, abs=1)
    np.testing.assert_allclose(drawn.weights, np.where(drawn.indices < 20, 1 / 1.45, 1 / 0.55), rtol=1e-6)


def pairs_of(sampler):
    received = []

    def receive(sender, scores):
        received.append((sender, scores))

    signal = blinker.signal("is.lstm_comparison_sampler.scores")
    with signal.connected_to(receive):
        sampler.draw(16)
    return received


@pytest.mark.slow
def test_the_network_learns_the_scores_of_two_classes_and_is_traced_once(monkeypatch):
    # Two classes of scores, each constant: .2 and 2.
    scores = np.where(np.arange(64) % 2, 0.2, 2.0)
    toy, model = Toy(scores, np.arange(64) % 2), Reader()
    sampler = samplers.LSTMComparisonSampler(toy, UNBIASED, model, 32, 64, 3, seed=1)
    traces = []
    for name in ("train_step", "predict_step"):
        step = getattr(sampler.predictor.model, name)
        monkeypatch.setattr(
            sampler.predictor.model, name, lambda *given, step=step, name=name: traces.append(name) or step(*given)
        )
    for _ in range(250):
        drawn = sampler.draw(16)
        sampler.update(drawn.indices, toy.scores(drawn.indices))
    assert lacks("compiled steps") or sorted(traces) == ["predict_step", "train_step"]
    assert model.scored == 0
    ((sender, pairs),) = pairs_of(sampler)
    assert sender is sampler and pairs.shape == (32, 2) and pairs.dtype == np.float32 and model.scored == 32
    np.testing.assert_allclose(pairs[:, 0], scores[sampler.subset], rtol=1e-6)
    np.testing.assert_allclose(pairs[:, 1], pairs[:, 0], rtol=0.35)
    assert np.corrcoef(pairs.T)[0, 1] > 0.98


def test_histories_shift_with_every_usable_score(monkeypatch):
    sampler = samplers.LSTMSampler(Toy(SCORES[:3], [0, 1, 2]), UNBIASED, history=3, seed=1)
    seen = []
    monkeypatch.setattr(sampler.predictor, "train", lambda *arguments: seen.append([a.copy() for a in arguments]))
    for indices, scores in (([0, 1], [1.0, 2.0]), ([0, 0, 2], [3.0, 3.0, np.nan]), ([0, 1], [4.0, -1.0]), ([0], [5.0])):
        sampler.update(indices, scores)
    sampler.update([0, 1, 2], np.ones(3))
    np.testing.assert_array_equal(seen[-1][0], [[3, 4, 5], [0, 0, 2], [0, 0, 0]])
    # The network is trained on the histories before the update.
    histories, classes, scores = seen[1]
    np.testing.assert_array_equal(histories, [[0, 0, 1], [0, 0, 1], [0, 0, 0]])
    np.testing.assert_array_equal(classes, [0, 0, 2])
    np.testing.assert_array_equal(scores, [3, 3, np.nan])


@pytest.mark.slow
def test_predictions_are_bounded_and_unusable_scores_change_no_weight():
    predictor = ScorePredictor(2, 2, True, 1)
    histories, classes = np.array([[0, 1], [1e30, 0]], "float32"), np.array([0, 1], "int32")
    before = predictor.model.get_weights()
    predictor.train(histories, classes, np.array([np.nan, -1.0]))
    for mine, theirs in zip(predictor.model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(mine, theirs)

    def predicting(value):
        """Predict with all weights zero except the last bias."""
        predictor.model.set_weights([*[np.zeros_like(weight) for weight in before[:-1]], np.array([value])])
        return predictor.predict(histories, classes)

    np.testing.assert_allclose(predicting(2.0), [np.exp(2)] * 2, rtol=1e-6)
    np.testing.assert_array_equal(predicting(-50.0), [1e-6, 1e-6])
    assert np.isfinite(predicting(1e30)).all()


@pytest.mark.parametrize(("log", "expected"), [(False, 2.08), (True, 0.4)])
@pytest.mark.slow
def test_the_network_learns_the_mean_or_the_geometric_mean_of_very_different_scores(log, expected):
    # .04 and 4.12 alternate, with a mean of 2.08; .04 and 4, with a geometric mean of .4.
    scores = np.array([0.04, 4.0 if log else 4.12] * 8)
    predictor = ScorePredictor(2, 1, log, 1)
    predictor.model.optimizer.learning_rate = 0.02
    histories, classes = np.ones((16, 2), "float32"), np.zeros(16, "int32")
    for _ in range(150):
        predictor.train(histories, classes, scores)
    np.testing.assert_allclose(predictor.predict(histories, classes), expected, rtol=0.02)


@pytest.mark.slow
def test_the_network_separates_small_scores_in_the_presence_of_a_large_one():
    # The squared error would depend on the large score only.
    scores = np.array([1e-4, 1e-3, 1e-2, 8.0] * 4)
    predictor = ScorePredictor(2, 4, False, 1)
    predictor.model.optimizer.learning_rate = 0.02
    histories = np.repeat(scores[:, None], 2, axis=1).astype("float32")
    for _ in range(300):
        predictor.train(histories, np.arange(16) % 4, scores)
    predicted = predictor.predict(histories, np.arange(16) % 4)[:4]
    np.testing.assert_allclose(predicted[3], 8.0, rtol=0.05)
    assert (np.diff(predicted) > 0).all() and predicted[2] < 0.1


def test_the_seed_sets_the_initial_weights_of_the_network():
    first, again, other = (ScorePredictor(2, 2, False, seed).state() for seed in (1, 1, 2))
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
    # Biases and the moments of the optimizer start at the same values.
    assert sum((value != other[name]).any() for name, value in first.items()) == 6
