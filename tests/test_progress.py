"""How far a `fit` has come: epochs, passes over the data, and what is left."""

import math

import pytest

from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.fit.progress import MeanNoise, Progress


def progress(batches_per_pass=10, **arguments):
    arguments = dict(initial_epoch=0, epochs=4, steps_per_epoch=None) | arguments
    return Progress.of(FitPlan(arguments, batches_per_pass=batches_per_pass))


def test_what_is_left_and_done_counts_the_steps_of_the_current_epoch():
    fit = progress(initial_epoch=1, epochs=4)
    fit.begin_epoch(2, 0)
    fit.add(5)
    assert fit.steps_left == 15  # a half of the third epoch, and the fourth
    assert fit.share_done == pytest.approx(0.5)


def test_what_is_left_of_a_stream_of_unknown_length_is_unknown():
    fit = progress(batches_per_pass=0, epochs=2)
    fit.begin_epoch(0, 0)
    fit.add(7)
    assert fit.steps_left == math.inf and fit.share_done == 0.0
    assert fit.steps_of_execution(8) == 8


def test_a_pass_may_last_several_epochs_of_a_given_number_of_steps():
    fit = progress(batches_per_pass=10, steps_per_epoch=4)
    for epoch in range(2):
        fit.begin_epoch(epoch, 0)
        fit.add(4)
        assert not fit.pass_is_over
    fit.begin_epoch(2, 0)
    assert fit.steps_of_execution(8) == 2  # the pass ends before the execution
    fit.add(2)
    assert fit.pass_is_over
    fit.begin_pass()
    assert not fit.pass_is_over and fit.steps_of_execution(8) == 8


def test_an_epoch_of_fewer_steps_than_a_pass_ends_early_and_once():
    fit = progress(batches_per_pass=10)
    fit.begin_epoch(0, 6)
    fit.add(4)
    assert not fit.epoch_ends_early and fit.steps_of_execution(8) == 2
    fit.add(2)
    assert fit.epoch_ends_early
    fit.begin_pass()
    fit.begin_epoch(1, 10)
    fit.add(10)
    assert not fit.epoch_ends_early  # it ends with the data


def test_importance_steps_are_counted_with_their_place_among_all_steps():
    fit = progress()
    fit.add(3)
    assert fit.first_importance_step == -1
    for uniform_draws in (2, 1, 0):
        assert fit.add_importance(2, uniform_draws, 7.0) == 2 - uniform_draws
        fit.add(2)
    fit.add(4)
    assert (fit.steps, fit.importance_steps, fit.uniform_draws, fit.strategy_steps) == (13, 3, 3, 6)
    assert fit.importance_cost == 21.0
    assert (fit.first_importance_step, fit.last_importance_step) == (6, 9)
    assert (fit.epoch_steps, fit.epoch_importance_steps) == (13, 3)
    fit.noise.add(3, 2.0, False)
    fit.restart()
    assert (fit.steps, fit.strategy_steps, fit.importance_cost, fit.noise.steps) == (0, 0, 0.0, 0)
    assert (fit.first_importance_step, fit.last_importance_step) == (-1, 0)


def test_the_mean_gain_is_that_of_the_mean_noise_and_a_short_peak_hardly_changes_it():
    noise = MeanNoise()
    assert math.isnan(noise.gain)
    noise.add(7, math.nan, False)  # nothing was measured yet
    noise.add(90, 1.2, False)
    noise.add(10, 50.0, False)
    assert noise.gain == pytest.approx(100 / (90 / 1.2 + 10 / 50))


def test_noise_is_the_reason_if_the_gate_took_most_steps_for_it():
    noise = MeanNoise()
    noise.add(5, 2.0, False)
    noise.add(5, 4.0, True)
    assert not noise.is_reason
    noise.add(1, 4.0, True)
    assert noise.is_reason and noise.gain == pytest.approx(11 / (5 / 2 + 6 / 4))
