"""The verdict of a comparison: closed forms of its numbers, and the sentence in every case."""

import math

import numpy as np
import pytest

from importance_sampling.comparison.figure import Figure, loss_figure
from importance_sampling.comparison.outcome import (
    Effect,
    effect,
    excess,
    last,
    lowest,
    outcome,
    relative_difference,
    speed_up,
    time_to_reach,
)
from importance_sampling.comparison.verdict import verdict

TRAINING_LOSS = loss_figure("")
AUC = Figure("auc", "val_auc", "val_auc", maximised=True)


def curve(*losses, step=2.0):
    return np.arange(len(losses)) * step, np.array(losses, float)


def falling(time, last=0.0):
    """Return a curve that falls linearly from 1 to `last` in a time, and stays there until 8."""
    spent = np.arange(0.0, 8.25, 0.25)
    return spent, last + (1.0 - last) * np.clip(1.0 - spent / time, 0.0, 1.0)


def test_the_time_to_a_loss_is_interpolated_linearly_and_infinite_if_the_loss_is_never_reached():
    losses = curve(1.0, 0.5, 0.1, 0.4)
    assert time_to_reach(losses, 0.75) == 1.0
    assert time_to_reach(losses, 0.2) == 3.5
    assert time_to_reach(losses, 1.0) == 0.0
    assert time_to_reach(losses, 0.05) == math.inf
    assert time_to_reach(curve(math.inf, 0.5), 0.7) == 2.0


def test_negative_losses_are_compared_like_others():
    assert speed_up(curve(-1.0, -3.0, -4.0), curve(-1.0, -2.0, -3.0)) == 2.0


def test_the_speed_up_is_the_ratio_of_the_times_to_the_lowest_loss_of_the_baseline():
    baseline = curve(1.0, 0.6, 0.2, 0.3)  # lowest after 4 seconds
    assert speed_up(curve(1.0, 0.1, 0.1, 0.1), baseline) == pytest.approx(4 / (2 * 8 / 9))
    assert speed_up(baseline, baseline) == 1.0


def test_without_reaching_the_lowest_loss_the_speed_up_is_the_inverse_ratio_and_at_most_one():
    fast, slow = curve(1.0, 0.5, 0.25, 0.2), curve(1.0, 0.9, 0.7, 0.5)
    assert speed_up(slow, fast) == pytest.approx(2 / 6)  # the lowest loss 0.5: after 2 and after 6 seconds
    early = curve(1.0, 0.4, 0.4, 0.4)
    assert speed_up(early, curve(1.0, 0.9, 0.5, 0.2)) == 1.0  # sooner at 0.4, and then no further
    assert speed_up(curve(1.0, 2.0, 3.0), fast) == 0.01


def test_a_baseline_without_progress_has_no_speed_up():
    assert math.isnan(speed_up(curve(1.0, 0.5), curve(1.0, 1.5)))


def test_the_excess_is_relative_to_the_progress_of_the_baseline():
    assert excess(curve(3.0, 1.5, 2.0), curve(3.0, 1.0, 2.0)) == 0.25
    assert excess(curve(3.0, 0.5), curve(3.0, 1.0)) == -0.25


def test_the_confidence_interval_uses_the_quantile_for_the_number_of_seeds():
    assert effect([1.0, 3.0]) == Effect(2.0, 1.0, 3.0, pytest.approx(6.31))
    assert effect([0.0, 1.0, 5.0]).margin == pytest.approx(2.92 * math.sqrt(7 / 3))
    assert effect([1.0, 2.0] * 20).margin == pytest.approx(1.70 * np.std([1.0, 2.0] * 20, ddof=1) / math.sqrt(40))
    assert effect([0.0, 1.0, 5.0], 95).margin == pytest.approx(4.30 * math.sqrt(7 / 3))
    assert math.isnan(effect([2.0]).margin)


def test_a_clear_win_is_recommended_with_its_range():
    runs, baselines = [falling(4.0), falling(5.0), falling(3.2)], [falling(8.0)] * 3
    assert verdict(runs, baselines) == (
        "Importance sampling reached uniform training's lowest validation loss 2.0 times sooner (3 seeds, 1.6 to 2.5). "
        "Use it."
    )


@pytest.mark.parametrize("last", [0.3, 0.1])
def test_the_lowest_loss_of_the_baseline_is_named_whether_it_is_the_last_one_or_not(last):
    baselines = [curve(1.0, 0.6, 0.2, last)] * 3
    assert "uniform training's lowest training loss" in verdict(
        [curve(1.0, 0.1, 0.1, 0.1)] * 3, baselines, figure=TRAINING_LOSS
    )


def test_a_clear_loss_is_not_recommended():
    runs, baselines = [falling(8.0), falling(6.0), falling(7.0)], [falling(4.0)] * 3
    assert verdict(runs, baselines) == (
        "Importance sampling was 1.7 times slower than uniform training (3 seeds, 1.5 to 2.0). Keep uniform training."
    )


def test_a_way_that_is_early_but_never_as_good_is_not_recommended():
    runs = [falling(2.0, last) for last in (0.4, 0.5, 0.3)]
    assert verdict(runs, [falling(8.0)] * 3) == (
        "Importance sampling did not reach uniform training's lowest validation loss with any of 3 seeds: it made 40 % "
        "less progress (30 % to 50 %). Keep uniform training."
    )


def test_a_difference_below_a_tenth_is_none():
    text = verdict([falling(time) for time in (8.0, 7.5, 7.75)], [falling(8.0)] * 3)
    assert text == (
        "No difference on this task: importance sampling reached uniform training's lowest validation loss 1.03 times "
        "sooner on average (3 seeds, 1.00 to 1.07). Keep uniform training."
    )


@pytest.mark.parametrize("times", [(4.0, 8.0, 7.5), (4.0, 6.0)])
def test_a_difference_within_the_spread_of_the_seeds_needs_more_seeds(times):
    text = verdict([falling(time) for time in times], [falling(8.0)] * len(times), reason="The reason.")
    assert text.startswith("No clear difference on this task: importance sampling reached ")
    assert text.endswith("The seeds are too few, or differ too much, to tell: compare with more seeds.")


def test_runs_without_timed_steps_give_no_verdict():
    assert "too short to be timed" in verdict([curve(1.0, 0.5, step=0.0)], [curve(1.0, 0.5, step=0.0)])


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (falling(4.0), "Importance sampling reached uniform training's lowest validation loss 2.0 times sooner, "),
        (falling(7.75), "Importance sampling was about as fast as uniform training (1.03 times), with one seed"),
        (
            falling(2.0, 0.5),
            "Importance sampling did not reach uniform training's lowest validation loss: it made 50",
        ),
    ],
)
def test_one_seed_gives_no_advice_because_the_spread_is_unknown(run, text):
    sentence = verdict([run], [falling(8.0)])
    assert sentence.startswith(text)
    assert "The spread between seeds is unknown" in sentence and "Use it" not in sentence and "Keep" not in sentence


def test_one_slower_seed_is_reported():
    assert verdict([falling(8.0)], [falling(4.0)]).startswith("Importance sampling was 2.0 times slower than uniform")


def test_without_importance_steps_there_is_no_difference_whatever_the_curves_are():
    runs, baselines = [falling(4.0)] * 3, [falling(8.0)] * 3
    reason = "Uniform training throughout (8 steps): the samples are about equally hard."
    assert verdict(runs, baselines, share=0.0, reason=reason) == (
        f"No difference on this task: importance sampling took no importance steps. {reason}"
    )
    assert verdict(runs, baselines, share=0.0004, reason="The reason.") == (
        "No difference on this task: importance sampling took almost no importance steps. The reason."
    )
    assert "almost no" in verdict(runs, baselines, share=0.009, reason="The reason.")
    assert verdict(runs, baselines, share=0.01, reason="The reason.").endswith("Use it.")
    assert "2.0 times slower" in verdict(baselines, runs, share=0.0004, reason="The reason.")


@pytest.mark.parametrize(
    ("times", "advice"),
    [
        ((8.0,) * 3, "Keep uniform training."),
        ((3.0, 8.0, 7.5), "Keep uniform training."),
        ((4.0,) * 3, "Use it."),
        ((4.0,), ""),
    ],
)
def test_every_sentence_says_that_only_a_small_share_of_the_steps_were_importance_steps(times, advice):
    runs, baselines = [falling(time) for time in times], [falling(8.0)] * len(times)
    text = verdict(runs, baselines, share=0.055, reason="Importance steps ended with step 4: the reason.")
    note = " Importance sampling took only 5.5 % of the steps. Importance steps ended with step 4: the reason."
    assert text.endswith(f"{note} {advice}".rstrip()) and "compare with more seeds" not in text
    assert "took only" not in verdict(runs, baselines, share=0.2, reason="The reason.")


@pytest.mark.parametrize("last", [0.2, 0.0])
def test_a_way_that_is_worse_with_few_importance_steps_is_not_recommended(last):
    text = verdict([falling(8.0, last)] * 3, [falling(4.0)] * 3, share=0.1, reason="The reason.")
    assert text.endswith(" Importance sampling took only 10 % of the steps. The reason. Keep uniform training.")


def test_runs_that_diverged_are_counted_and_not_compared():
    good, bad = falling(8.0), curve(1.0, 0.5, math.nan)
    assert verdict([good, bad, bad], [good] * 3) == (
        "No verdict on the speed: Importance sampling diverged in 2 of 3 runs, and uniform training did not (the "
        "validation loss became NaN or infinite). Keep uniform training, or lower the learning rate."
    )
    assert "Uniform training diverged in 1 of 3 runs, and importance sampling did not" in verdict(
        [good] * 3, [bad, good, good]
    )
    assert "Importance sampling diverged in the only run, and uniform training in the only run" in verdict([bad], [bad])


def test_a_baseline_that_never_improves_gives_no_verdict():
    assert verdict([falling(8.0)] * 2, [curve(1.0, 2.0, 3.0)] * 2).startswith("No verdict: the validation loss of unif")


def test_other_names_are_used_in_the_sentence():
    text = verdict([falling(4.0)] * 3, [falling(8.0)] * 3, "`reshuffle`", "`pool`", TRAINING_LOSS)
    assert text == "`reshuffle` reached `pool`'s lowest training loss 2.0 times sooner (3 seeds, 2.0 to 2.0). Use it."


def test_a_way_that_is_sooner_and_ends_worse_is_not_recommended_without_stopping_early():
    baselines = [curve(1.0, 0.6, 0.5, 0.5)] * 3
    runs = [curve(1.0, 0.5, 0.5, 0.5 * end) for end in (1.016, 1.02, 1.012)]
    assert verdict(runs, baselines) == (
        "Importance sampling reached uniform training's lowest validation loss 2.0 times sooner (3 seeds, 2.0 to 2.0), "
        "but ended 1.6 % worse: stop early, for example with EarlyStopping(restore_best_weights=True), or keep uniform "
        "training."
    )


def test_lowest_and_final_losses_of_one_distribution_seldom_differ_and_others_mostly_do():
    random = np.random.default_rng(0)

    def runs(seeds, noise, end=0.5):
        return [curve(1.0, 0.7, end * math.exp(noise * random.normal())) for _ in range(seeds)]

    def rates(seeds, *, noise, end=0.5):
        results = [outcome(runs(seeds, noise, end), runs(seeds, noise)) for _ in range(1000)]
        return np.array([[result.lowest != 0.0, result.final != 0.0] for result in results]).mean(axis=0)

    for seeds in (3, 5):
        assert (rates(seeds, noise=0.05) < 0.06).all()
        assert (rates(seeds, noise=0.01, end=0.45) > 0.9).all()
    assert (rates(1, noise=0.05) == 0.0).all()


@pytest.mark.parametrize("ends", [(1.009, 1.009, 1.009), (0.9, 0.9, 1.5), (0.99, 1.05), (1.016, 1.03, 0.999), (1.5,)])
def test_a_final_loss_that_is_worse_by_less_or_within_the_spread_of_the_seeds_does_not_count(ends):
    runs = [curve(1.0, 0.5, 0.4, 0.5 * end) for end in ends]
    assert "ended" not in verdict(runs, [curve(1.0, 0.6, 0.5, 0.5)] * len(ends))


def test_a_small_mean_difference_of_seeds_that_differ_much_is_no_clear_difference():
    baseline = [curve(1.0, 0.7, 0.5, 0.4, 0.3, 0.2)] * 3
    differing = [curve(1.0, 0.2, 0.2, 0.2, 0.2, 0.2), baseline[0], curve(1.0, 0.9, 0.8, 0.6, 0.5, 0.4)]
    text = verdict(differing, baseline)
    assert text.startswith("No clear difference") and text.endswith("compare with more seeds.")
    assert verdict(baseline, baseline).startswith("No difference on this task")


def test_every_sentence_says_that_the_final_loss_is_better():
    better = verdict([curve(1.0, 0.5, 0.3, 0.2)] * 3, [curve(1.0, 0.8, 0.6, 0.4)] * 3)
    assert better.endswith(", and ended 50 % better. Use it.")
    slower = verdict([curve(1.0, 0.9, 0.5, 0.2)] * 3, [curve(1.0, 0.5, 0.6, 0.6)] * 3)
    assert "times slower" in slower and slower.endswith(", but ended 67 % better. Keep uniform training.")


def test_every_sentence_says_that_the_final_loss_is_worse():
    worse = [curve(1.0, 0.9, 0.5, 0.6)] * 3
    slower = verdict(worse, [curve(1.0, 0.5, 0.5, 0.5)] * 3)
    assert slower.endswith(
        "was 2.0 times slower than uniform training (3 seeds, 2.0 to 2.0), and ended 20 % worse. Keep uniform training."
    )
    equal = verdict(worse, [curve(1.0, 0.9, 0.5, 0.5)] * 3)
    assert "was as fast as uniform training on average (3 seeds, 1.00 to 1.00), but ended 20 % worse. Keep" in equal


@pytest.mark.parametrize(
    ("runs", "baselines", "expected"),
    [
        ([curve(3.0, 0.6)], [curve(3.0, 0.5)], 0.2),
        ([curve(3.0, 0.6), curve(3.0, 2.0)], [curve(3.0, 0.5), curve(3.0, 1.5)], 0.3),  # of the means, 1.3 and 1
        ([curve(1.0, -0.5)], [curve(1.0, -1.0)], 0.25),
        ([curve(-0.1, -0.4)], [curve(-0.1, -0.5)], 0.2),
        ([curve(1.0, 0.5)], [curve(1.0, 0.0)], 0.5),
        ([curve(1.0, 0.0)], [curve(1.0, 0.0)], 0.0),
    ],
)
def test_differences_are_relative_to_the_mean_loss_or_to_the_progress_if_the_sign_changes(runs, baselines, expected):
    assert relative_difference(runs, baselines, last).mean == pytest.approx(expected)


def test_lowest_losses_are_compared_wherever_in_the_run_they_are():
    runs, baselines = [curve(3.0, 0.4, 0.9), curve(3.0, 0.5, 0.2)], [curve(3.0, 0.8, 0.5), curve(3.0, 0.7, 0.9)]
    assert relative_difference(runs, baselines, lowest).mean == pytest.approx(0.3 / 0.6 - 1.0)
    assert relative_difference(runs, baselines, last).mean == pytest.approx(0.55 / 0.7 - 1.0)


def test_a_lowest_loss_below_that_of_the_baseline_is_named_beside_the_final_one():
    baselines = [curve(1.0, 0.6, 0.5, 0.5)] * 3
    early = "Importance sampling reached uniform training's lowest validation loss 2.4 times sooner (3 seeds, 2.4 to 2."
    texts = [verdict([curve(1.0, 0.4, 0.5, end)] * 3, baselines) for end in (0.52, 0.5, 0.48)]
    assert all(text.startswith(early) for text in texts)
    assert ", went 20 % below it, but ended 4.0 % worse: stop early, for example with Early" in texts[0]
    assert texts[1].endswith(", and went 20 % below it. Use it.")
    assert texts[2].endswith(", went 20 % below it, and ended 4.0 % better. Use it.")
    higher = [(spent, -losses) for spent, losses in [curve(0.5, 0.9, 0.8, 0.8)] * 3]
    text = verdict(higher, [(spent, -losses) for spent, losses in [curve(0.5, 0.6, 0.8, 0.8)] * 3], figure=AUC)
    assert text.endswith("and went 12 % above it. Use it.")


@pytest.mark.parametrize("ends", [(0.496, 0.497, 0.496), (0.45, 0.5, 0.3), (0.4,)])
def test_a_lowest_loss_that_is_lower_by_less_or_within_the_spread_of_the_seeds_does_not_count(ends):
    runs = [curve(1.0, 0.5, end, 0.5) for end in ends]
    assert "below it" not in verdict(runs, [curve(1.0, 0.6, 0.6, 0.5)] * len(ends))


def test_ranges_have_two_decimals_if_one_hides_the_side_of_1():
    text = verdict([falling(time) for time in (7.7, 2.0, 2.1)], [falling(8.0)] * 3)
    assert "2.4 times sooner on average (3 seeds, 1.03 to 4.00). The seeds are too few" in text
    assert "(3 seeds, 1.3 to 4.0)" in verdict([falling(time) for time in (6.0, 2.0, 2.1)], [falling(8.0)] * 3)


def test_an_unclear_difference_is_slowness_if_the_mean_is_below_1():
    text = verdict([falling(8.0), falling(3.0)], [falling(4.0)] * 2)
    assert text.startswith(
        "No clear difference on this task: importance sampling was 1.2 times slower than uniform training on average "
        "(2 seeds, 0.8 to 2.0). The seeds"
    )


def test_a_metric_is_named_and_the_way_to_stop_at_its_best_value():
    runs = [(spent, -losses) for spent, losses in [curve(0.5, 0.8, 0.8, 0.7)] * 3]
    text = verdict(runs, [(spent, -losses) for spent, losses in [curve(0.5, 0.6, 0.8, 0.75)] * 3], figure=AUC)
    assert text == (
        "Importance sampling reached uniform training's highest val_auc 2.0 times sooner (3 seeds, 2.0 to 2.0), but "
        'ended 6.7 % worse: stop early, for example with EarlyStopping("val_auc", mode="max", '
        "restore_best_weights=True), or keep uniform training."
    )
    flat = verdict(runs, [(spent, -losses) for spent, losses in [curve(0.5, 0.4, 0.3)] * 3], figure=AUC)
    assert flat.startswith("No verdict: the val_auc of uniform training did not rise above that of the untrained")
    assert "the loss or val_auc became NaN" in verdict([curve(-0.5, math.nan)], [curve(-0.5, -0.6)], figure=AUC)
