"""The equal-time benchmark: statistics, tables, the results file, the plan of runs, and tuning."""

import json
import math
import sys
from types import SimpleNamespace

import compared_ways
import equal_time
import jumps
import keras
import numpy as np
import pytest
import schedules
from analysis import (
    USUAL_SCHEDULES,
    budget_to_reach,
    final_results,
    loss_at,
    loss_ratio,
    markdown_table,
    protocol_name,
    speed_up,
    summarise,
    summarise_test_loss,
    summarise_ways,
)
from evaluation import Evaluation
from results import Results, key

from importance_sampling.comparison import Clock, Data


def run(way="uniform", seed=1, losses=(1.0, 0.1, 0.01), protocol="anytime", **changes):
    """Return a run measured at 0, 2, 4, ... seconds; test loss and error are 2 and 10 times the training loss."""
    points = [
        dict(seconds=2.0 * i, cost=30.0 * i, steps=10 * i, train_loss=x, test_loss=2 * x, test_error=10 * x)
        for i, x in enumerate(losses)
    ]
    last = points[-1]
    return dict(
        task="t",
        protocol=protocol,
        schedule=USUAL_SCHEDULES[protocol],
        way=way,
        seed=seed,
        by="seconds",
        budget=last["seconds"],
        rate=0.1,
        measurements=len(losses) - 1,
        steps=last["steps"],
        seconds=last["seconds"],
        cost=last["cost"],
        importance_steps=5,
        points=points,
    ) | (changes)


def test_the_logarithm_of_the_loss_is_interpolated_linearly():
    spent, losses = np.array([0.0, 2.0, 4.0]), np.array([1.0, 0.01, 0.5])
    assert loss_at(spent, losses, 1.0) == pytest.approx(0.1)
    # Half of one of two decades is reached after a quarter of the time. The later rise has no effect.
    assert budget_to_reach(spent, losses, 10**-0.5) == pytest.approx(0.5)
    assert budget_to_reach(spent, losses, 1.0) == 0.0
    assert budget_to_reach(spent, losses, 0.005) == math.inf


def test_speed_up_compares_the_times_to_reach_the_minimum_loss_of_the_baseline():
    baseline = run(losses=(1.0, 0.1, 0.3, 0.2, 0.01))  # over 8 seconds
    fast = run(losses=(1.0, 0.01, 0.001, 0.001, 0.001))
    # The minimum of the first half of the baseline is 0.1 after 2 seconds. The fast run reaches it after 1 second.
    assert speed_up(fast, baseline, 0.5) == pytest.approx(2.0)
    # In the final_results 0.01 after 8 seconds; the fast run had it after 2.
    assert speed_up(fast, baseline, 1.0) == pytest.approx(4.0)
    assert speed_up(baseline, fast, 1.0) == 0.0
    assert speed_up(baseline, baseline, 0.75) == pytest.approx(1.0)
    assert loss_ratio(fast, baseline, 0.5) == pytest.approx(0.001 / 0.3)


def test_final_results_are_the_last_measurement_or_the_mean_of_the_last_five():
    losses = (9.0, 7.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    assert final_results(run(losses=losses, protocol="budget"))["train_loss"] == 5.0
    assert final_results(run(losses=losses)) == pytest.approx(dict(train_loss=3.0, test_loss=6.0, test_error=30.0))


def test_summarise_treats_nan_as_infinity():
    assert summarise([1.0, 5.0, 2.0, 4.0, 3.0]) == {"median": 3.0, "quartiles": [1.5, 4.5], "n": 5}
    assert summarise([7.0]) == {"median": 7.0, "quartiles": [7.0, 7.0], "n": 1}
    assert summarise([1.0, math.nan, 2.0])["median"] == 2.0
    assert summarise([1.0, math.nan, math.nan])["median"] == math.inf


def test_ratios_are_computed_per_seed():
    runs = [
        run("uniform", 1, (1.0, 0.4), "budget"),
        run("uniform", 2, (1.0, 0.1), "budget"),
        run("importance", 1, (1.0, 0.2), "budget"),
        run("importance", 2, (1.0, 0.3), "budget"),
        run("importance", 3, (1.0, 9.0), "budget"),
    ]
    uniform, importance = summarise_ways(runs, ["uniform", "absent"])
    assert (uniform["way"], importance["way"]) == ("uniform", "importance")
    assert "train_loss over uniform" not in uniform and not any("absent" in name for name in importance)
    # 0.2 / 0.4 and 0.3 / 0.1; the third seed has no run of the baseline.
    assert importance["train_loss over uniform"]["median"] == pytest.approx((0.5 + 3.0) / 2)
    assert importance["train_loss over uniform"]["n"] == 2 and importance["train_loss"]["n"] == 3
    assert importance["ms/step"]["median"] == pytest.approx(200.0) and importance["importance"]["median"] == 0.5
    assert importance["cost/step"]["median"] == 3.0


def test_the_summary_names_every_comparison_with_a_test_loss_more_than_2_per_cent_above_the_baseline():
    def group(task, over):
        rows = [dict(way="uniform"), dict(way="default", **{"test_loss over uniform": summarise(over)})]
        return dict(task=task, protocol="budget", by="seconds", budget=7.5, ways=rows)

    groups = [group("a", [0.9, 1.019, 4.0]), group("b", [1.0, 1.0, 1.021]), group("c", [1.021, 1.021, 0.1])]
    assert summarise_test_loss(groups).endswith("in 2 of 3 comparisons; above it in `c`, 7.5 seconds, budget (1.02).")
    assert summarise_test_loss(groups[:2]).endswith("at most 2% above that of `uniform` in 2 of 2 comparisons.")
    assert summarise_test_loss(groups, "biased") == summarise_test_loss([]) == ""


def test_a_table_has_one_row_per_way_and_empty_cells_for_missing_statistics():
    rows = [dict(way="uniform", loss=summarise([0.25])), dict(way="importance", loss=summarise([1.0, 2.0, 3.0]))]
    rows[1]["ratio"] = summarise([0.5])
    text = markdown_table(rows, {"loss": ("training loss", ".2f"), "ratio": ("over uniform", ".1f")})
    assert text.splitlines() == [
        "| way        | training loss       | over uniform |",
        "| ---------- | ------------------- | ------------ |",
        "| uniform    | 0.25                |              |",
        "| importance | 2.00 (1.00 to 3.00) | 0.5          |",
    ]


def test_runs_in_the_file_are_not_missing(tmp_path):
    path = tmp_path / "deep" / "results.jsonl"
    first, second, third = run(seed=1), run(seed=2), run(seed=2, rate=0.2)
    Results(path).add(first)
    results = Results(path)
    assert results.missing([first, second]) == [second]
    results.add(second)
    assert Results(path).missing([first, second, third]) == [third]
    assert Results(path).of([third, second, first]) == [second, first]


def test_a_run_with_an_incomplete_line_is_missing(tmp_path):
    path = tmp_path / "results.jsonl"
    first, second = run(seed=1), run(seed=2)
    path.write_text(json.dumps(first) + "\n" + json.dumps(second)[:40])
    results = Results(path)
    assert results.missing([first, second]) == [second]
    results.add(second)
    assert Results(path).missing([first, second]) == []


def test_the_plan_contains_every_run_once_with_the_learning_rate_of_its_protocol(monkeypatch):
    arguments = "x --tasks mnist_mlp --ways uniform default --seeds 2 --by cost --cost 900 1800"
    monkeypatch.setattr(sys, "argv", arguments.split())
    options = equal_time.parse()
    task = equal_time.tasks.get("mnist_mlp")._replace(rate=0.1, tuned=0.2)
    monkeypatch.setattr(equal_time.tasks, "get", lambda name: task)
    runs = equal_time.plan(options, "mnist_mlp")
    assert len(runs) == len({key(run) for run in runs}) == 2 * 2 * 2 * 2
    assert {(run["protocol"], run["rate"]) for run in runs} == {("anytime", 0.1), ("budget", 0.2)}
    assert {run["budget"] for run in runs} == {900.0, 1800.0} and {run["by"] for run in runs} == {"cost"}


def test_the_protocol_budget_also_uses_a_quarter_of_the_budget_of_the_task(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--tasks", "mnist_mlp", "--ways", "uniform", "--seeds", "1"])
    task = equal_time.tasks.get("mnist_mlp")._replace(seconds=40.0, steps=100)
    monkeypatch.setattr(equal_time.tasks, "get", lambda name: task)
    options = equal_time.parse()

    def budgets():
        return [(run["protocol"], run["budget"]) for run in equal_time.plan(options, "mnist_mlp")]

    assert budgets() == [("anytime", 40.0), ("budget", 10.0), ("budget", 40.0)]
    options.by = "cost"
    assert budgets() == [("anytime", 300.0), ("budget", 75.0), ("budget", 300.0)]


def test_the_best_learning_rate_has_the_lowest_test_error_and_then_the_lowest_test_loss():
    rows = [
        dict(way=way, test_error=summarise([error]), test_loss=summarise([loss]))
        for way, error, loss in (("a", 1.5, 0.1), ("b", 1.2, 0.4), ("c", 1.2, 0.3), ("d", 1.3, 0.2))
    ]
    assert equal_time.best_of(rows)["way"] == "c"


def test_runs_without_a_schedule_have_the_usual_one_of_their_protocol(tmp_path):
    old = [run(protocol=protocol) for protocol in ("anytime", "budget")]
    path = tmp_path / "results.jsonl"
    lines = [json.dumps({name: value for name, value in one.items() if name != "schedule"}) + "\n" for one in old]
    path.write_text("".join(lines))
    results = Results(path)
    assert results.missing([*old, dict(old[1], schedule="steps")]) == [dict(old[1], schedule="steps")]
    assert [one["schedule"] for one in results.of(old)] == ["constant", "cosine"]


def test_the_protocol_budget_has_the_schedules_of_the_options_and_anytime_is_constant(monkeypatch):
    arguments = "x --tasks mnist_mlp --ways uniform --seeds 1 --seconds 3 --schedules cosine plateau"
    monkeypatch.setattr(sys, "argv", arguments.split())
    runs = equal_time.plan(equal_time.parse(), "mnist_mlp")
    assert [(one["protocol"], one["schedule"], one["measurements"]) for one in runs] == [
        ("anytime", "constant", 10),
        ("budget", "cosine", 4),
        ("budget", "plateau", 20),
    ]
    assert [equal_time.title(one) for one in runs] == [
        "mnist_mlp, anytime, 3 seconds",
        "mnist_mlp, budget, 3 seconds",
        "mnist_mlp, budget, plateau, 3 seconds",
    ]
    assert protocol_name({"protocol": "budget"}) == "budget"  # a table of before there were schedules


def test_the_tables_have_one_group_for_each_schedule(monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    runs = [run(protocol="budget", schedule=schedule, task="mnist_mlp") for schedule in ("cosine", "steps")]
    results = Results(tmp_path / "results.jsonl")
    for one in runs:
        results.add(one)
    equal_time.write_report(runs, results, tmp_path)
    groups = json.loads((tmp_path / "table.json").read_text())
    assert [(group["protocol"], group["schedule"]) for group in groups] == [("budget", "cosine"), ("budget", "steps")]
    table = (tmp_path / "table.md").read_text()
    assert "## mnist_mlp, budget, 4 seconds\n" in table and "## mnist_mlp, budget, steps, 4 seconds\n" in table
    plots = sorted(path.name for path in tmp_path.glob("*.png"))
    assert plots == ["mnist_mlp-budget-4-seconds.png", "mnist_mlp-budget-steps-4-seconds.png"]


def test_the_preset_decaying_compares_two_ways_at_a_decaying_rate_and_without_a_preset_nothing_changes(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--decaying"])
    options = equal_time.parse()
    assert options.ways == ["uniform", "default"] and options.seeds == 5 and options.by == "seconds"
    assert list(options.protocols) == ["budget"] and options.schedules == ["cosine"]
    assert options.tasks == equal_time.tasks.DECAYING
    monkeypatch.setattr(sys, "argv", ["x"])
    options = equal_time.parse()
    assert options.tasks == equal_time.tasks.STANDARD and list(options.protocols) == ["anytime", "budget"]


def factors(schedule, *fractions):
    return [schedules.options(schedule)["decay"](fraction) for fraction in fractions]


def test_the_cosine_decays_from_1_to_0():
    assert factors("cosine", 0.0, 0.5, 1.0) == pytest.approx([1.0, 0.5, 0.0])


def test_the_steps_divide_the_rate_by_10_after_a_half_and_after_three_quarters():
    assert factors("steps", 0.0, 0.49, 0.5, 0.74, 0.75, 1.0) == [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]


def test_the_warm_up_ends_after_a_tenth_and_a_linear_decay_to_0_follows():
    assert factors("warmup-linear", 0.0, 0.05, 0.1, 0.55, 1.0) == pytest.approx([0.0, 0.5, 1.0, 0.5, 0.0])


def test_a_constant_rate_needs_no_decay():
    assert schedules.options("constant") == {}


def test_the_rate_of_the_plateau_falls_after_two_measurements_without_a_lower_test_loss():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    clock, measured, rates = Clock(None, None, 1.0), schedules.options("plateau")["measured"], []
    clock.set_model(model)
    for loss in (4.0, 3.0, 3.5, 3.2, 3.1, 2.0):
        clock.points.append({"test_loss": loss})
        measured(clock)
        rates.append(float(model.optimizer.learning_rate))
    # The second measurement in a row without a lower test loss than 3 is that of 3.2.
    assert rates == pytest.approx([0.5, 0.5, 0.5, 0.05, 0.05, 0.05])


def test_a_failing_way_is_isolated_from_the_others(capsys):
    def fit(**arguments):
        raise RuntimeError("on purpose")

    way = compared_ways.Isolated(SimpleNamespace(fit=fit, importance_steps=3))
    assert way.importance_steps == 3 and not hasattr(way, "forward_equivalents") and not way.has_failed
    way.fit(x=np.zeros(2))
    assert way.has_failed and "RuntimeError: on purpose" in capsys.readouterr().err


def test_the_evaluation_has_the_losses_and_the_error_of_the_task():
    x = np.random.default_rng(0).normal(size=(12, 2)).astype("float32")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    results = Evaluation(Data(x, x[:, :1], x[:5], x[:5, :1]), lambda results: 7 * results["loss"], rows=4)(model)
    train, test = (model.evaluate(x[:n], x[:n, :1], verbose=0) for n in (4, 5))
    assert results == pytest.approx(dict(train_loss=train, test_loss=test, test_error=7 * test))


def test_a_jump_begins_where_the_mean_of_some_steps_is_a_sixth_of_the_later_one():
    means = np.concatenate([np.ones(200), np.full(400, 10.0), np.full(200, 100.0)])
    # 9 of 15 steps at 10 make a mean of 6.4; as many at 100, after steps at 10, one of 64.
    assert jumps.jumps(means) == [194 - 45, 594 - 45]
    assert jumps.jumps(np.full(300, 2.0)) == jumps.jumps(means[::-1]) == []


def test_the_cause_of_a_jump_is_the_sample_with_the_largest_weighted_score_of_the_first_step_that_rises():
    weights, predicted, scores = np.array([2.0, 4.0, 0.5]), np.array([1.0, 0.1, 4.0]), np.array([0.5, 2.0, 2.0])
    step = jumps.of_step(weights, predicted, scores)  # weighted scores 1, 8 and 1
    assert step == pytest.approx((10 / 3, 0.8, 20.0))
    means = np.concatenate([np.ones(200), np.full(100, 10.0)])
    share, surprise = np.full(300, 0.1), np.full(300, 2.0)
    share[200], surprise[200] = step[1:]
    assert jumps.causes_of(jumps.Steps(means, share, surprise)) == [pytest.approx((0.8, 20.0))]
