"""The judge of a comparison: its data, the figure by which it judges, and the equal start of all ways."""

import warnings

import keras
import numpy as np
import pytest
from small_classifier import X, Y, build
from toys import stream

from importance_sampling import compare
from importance_sampling.comparison import arguments, evaluation, user_task
from importance_sampling.comparison.evaluation import Evaluation
from importance_sampling.comparison.figure import Figure, figure_of, loss_figure


def test_the_validation_data_are_those_of_the_split_and_the_judge_evaluates_them():
    split = arguments.with_split(dict(x=X, y=Y, validation_split=0.2))
    assert len(split["x"]) == 128 and [len(part) for part in split["validation_data"]] == [32, 32]
    model, judge = build(), Evaluation(split)
    assert judge(model) == model.evaluate(X[128:], Y[128:], verbose=0, return_dict=True)
    assert judge.prefix == "val_"
    nested = arguments.with_split(dict(x={"a": X}, y=Y, sample_weight=X[:, 0], validation_split=0.5))
    assert len(nested["validation_data"]) == 3 and len(nested["validation_data"][0]["a"]) == 80


def test_without_validation_data_the_judge_is_the_training_loss(monkeypatch):
    monkeypatch.setattr(evaluation, "MAX_ROWS", 64)
    model, judge = build(), Evaluation(dict(x=X, y=Y))
    assert judge.prefix == ""
    assert judge(model) == model.evaluate(X[:64], Y[:64], verbose=0, return_dict=True)
    assert Evaluation(dict(x=stream(X, Y, 32), steps_per_epoch=2))(model) == judge(model)


def test_the_judge_leaves_the_metrics_of_a_running_fit_unchanged():
    seen = []

    def metrics(evaluates):
        model = build()
        judge = Evaluation(dict(x=X, y=Y))

        class Judging(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None):
                if evaluates:
                    judge(self.model)  # on JAX, `Callback.model` alone gives the variables their values

        model.set_weights([np.ones((6, 3)), np.zeros(3)])
        seen.append(model.fit(X, Y, batch_size=16, shuffle=False, verbose=0, callbacks=[Judging()]).history)

    metrics(False)
    metrics(True)
    assert seen[0] == seen[1]


def error_rate(y, predictions):
    return keras.ops.mean(predictions, axis=-1)


def f1_of_positives(y, predictions):
    return keras.ops.mean(predictions, axis=-1)


def test_the_direction_of_a_metric_is_that_of_keras_or_of_its_name():
    metrics = ["accuracy", "mae", keras.metrics.R2Score(name="fit"), error_rate, f1_of_positives]
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=metrics)
    results = model.evaluate(X, X[:, :1], verbose=0, return_dict=True)

    def maximised(name, mode="auto"):
        return figure_of(f"val_{name}", mode, "val_", results, model).maximised

    assert maximised("accuracy") and maximised("fit") and maximised("f1_of_positives")
    assert not maximised("mae") and not maximised("mae", "min") and maximised("mae", "max")
    assert figure_of("val_loss", "auto", "val_", results, model) == loss_figure("val_") == Figure()
    with pytest.raises(ValueError, match=r"`mode` must be set for .* Received: monitor='val_error_rate', mode='auto'"):
        maximised("error_rate")


class LoadsWeights(keras.callbacks.Callback):
    runs = []  # of all copies

    def on_train_begin(self, logs=None):
        self.runs.append(self)
        self.model.set_weights([weights * len(self.runs) for weights in self.model.get_weights()])


@pytest.mark.slow
def test_ways_that_start_from_different_weights_are_reported(monkeypatch):
    monkeypatch.setattr(user_task, "MEASUREMENTS", 1)
    with pytest.warns(UserWarning, match="must start from the same weights.* for 'uniform' .* before the first step"):
        user_task.check_starts({"uniform": 1.0, "importance": 1.002}, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        user_task.check_starts({"uniform": 1.0, "importance": 1.0005}, 1)
        user_task.check_starts({"uniform": np.nan, "importance": np.nan}, 1)
    with pytest.warns(UserWarning, match="must start from the same weights"):
        compare(build, X, Y, epochs=1, seeds=1, callbacks=[LoadsWeights()])
