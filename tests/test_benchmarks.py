"""The equal-time benchmark's arithmetic: loss levels, ratios, tables, and going on after a break."""

import json
import math
import sys

import equal_time
import numpy as np
import pytest
from results import Results, key

from importance_sampling.comparison.figures import (
    cell,
    compared,
    end,
    loss_at,
    lower,
    promise,
    reached,
    sooner,
    summarise,
    table,
)


def run(way="plain", seed=1, losses=(1.0, 0.1, 0.01), protocol="anytime", **changes):
    """Measured at 0, 2, 4, ... seconds; a test loss is twice the training loss, an error ten times it."""
    points = [
        dict(seconds=2.0 * i, cost=30.0 * i, steps=10 * i, train_loss=x, test_loss=2 * x, test_error=10 * x)
        for i, x in enumerate(losses)
    ]
    last = points[-1]
    return dict(
        task="t",
        protocol=protocol,
        way=way,
        seed=seed,
        by="seconds",
        budget=last["seconds"],
        rate=0.1,
        measurements=len(losses) - 1,
        steps=last["steps"],
        seconds=last["seconds"],
        cost=last["cost"],
        open_steps=5,
        points=points,
    ) | (changes)


def test_between_measurements_the_loss_is_on_a_line_in_its_logarithm():
    spent, losses = np.array([0.0, 2.0, 4.0]), np.array([1.0, 0.01, 0.5])
    assert loss_at(spent, losses, 1.0) == pytest.approx(0.1)
    # Half a decade of two: a quarter of the way. It rises again after, which doesn't matter.
    assert reached(spent, losses, 10**-0.5) == pytest.approx(0.5)
    assert reached(spent, losses, 1.0) == 0.0
    assert reached(spent, losses, 0.005) == math.inf


def test_sooner_compares_the_times_at_which_the_yardsticks_least_loss_was_reached():
    yardstick = run(losses=(1.0, 0.1, 0.3, 0.2, 0.01))  # over 8 seconds
    fast = run(losses=(1.0, 0.01, 0.001, 0.001, 0.001))
    # In its first half the yardstick's least was 0.1, after 2 seconds; half of the fast run's first 2 decades.
    assert sooner(fast, yardstick, 0.5) == pytest.approx(2.0)
    # In the end 0.01 after 8 seconds; the fast run had it after 2.
    assert sooner(fast, yardstick, 1.0) == pytest.approx(4.0)
    assert sooner(yardstick, fast, 1.0) == 0.0
    assert sooner(yardstick, yardstick, 0.75) == pytest.approx(1.0)
    assert lower(fast, yardstick, 0.5) == pytest.approx(0.001 / 0.3)


def test_the_end_is_one_measurement_where_the_rate_decayed_and_a_mean_where_it_was_constant():
    losses = (9.0, 7.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    assert end(run(losses=losses, protocol="budget"))["train_loss"] == 5.0
    assert end(run(losses=losses)) == pytest.approx(dict(train_loss=3.0, test_loss=6.0, test_error=30.0))


def test_quartiles_bear_with_training_that_broke_down():
    assert summarise([1.0, 5.0, 2.0, 4.0, 3.0]) == {"median": 3.0, "quartiles": [1.5, 4.5], "n": 5}
    assert summarise([7.0]) == {"median": 7.0, "quartiles": [7.0, 7.0], "n": 1}
    assert summarise([1.0, math.nan, 2.0])["median"] == 2.0
    assert summarise([1.0, math.nan, math.nan])["median"] == math.inf


def test_ways_are_compared_seed_by_seed():
    runs = [
        run("plain", 1, (1.0, 0.4), "budget"),
        run("plain", 2, (1.0, 0.1), "budget"),
        run("ours", 1, (1.0, 0.2), "budget"),
        run("ours", 2, (1.0, 0.3), "budget"),
        run("ours", 3, (1.0, 9.0), "budget"),
    ]
    plain, ours = compared(runs, ["plain", "absent"])
    assert (plain["way"], ours["way"]) == ("plain", "ours")
    assert "train_loss over plain" not in plain and not any("absent" in name for name in ours)
    # 0.2 / 0.4 and 0.3 / 0.1; the third seed has no yardstick.
    assert ours["train_loss over plain"]["median"] == pytest.approx((0.5 + 3.0) / 2)
    assert ours["train_loss over plain"]["n"] == 2 and ours["train_loss"]["n"] == 3
    assert ours["ms/step"]["median"] == pytest.approx(200.0) and ours["importance"]["median"] == 0.5
    assert ours["cost/step"]["median"] == 3.0


def test_the_promise_names_every_comparison_in_which_a_test_loss_is_more_than_2_per_cent_above():
    def group(task, over):
        rows = [dict(way="plain"), dict(way="default", **{"test_loss over plain": summarise(over)})]
        return dict(task=task, protocol="budget", by="seconds", budget=7.5, ways=rows)

    groups = [group("a", [0.9, 1.019, 4.0]), group("b", [1.0, 1.0, 1.021]), group("c", [1.021, 1.021, 0.1])]
    assert promise(groups).endswith("in 2 of 3 comparisons; above it in `c`, 7.5 seconds, budget (1.02).")
    assert promise(groups[:2]).endswith("at most 2% above that of `plain` in 2 of 2 comparisons.")
    assert promise(groups, "biased") == promise([]) == ""


def test_a_table_has_a_way_a_row_and_leaves_out_what_is_not_there():
    rows = [dict(way="plain", loss=summarise([0.25])), dict(way="ours", loss=summarise([1.0, 2.0, 3.0]))]
    rows[1]["ratio"] = summarise([0.5])
    text = table(rows, {"loss": ("training loss", ".2f"), "ratio": ("over plain", ".1f")})
    assert text.splitlines() == [
        "| way   | training loss       | over plain |",
        "| ----- | ------------------- | ---------- |",
        "| plain | 0.25                |            |",
        "| ours  | 2.00 (1.00 to 3.00) | 0.5        |",
    ]
    assert cell(None, ".2f") == ""


def test_what_is_in_the_file_is_not_run_again(tmp_path):
    path = tmp_path / "deep" / "results.jsonl"
    first, second, third = run(seed=1), run(seed=2), run(seed=2, rate=0.2)
    Results(path).add(first)
    results = Results(path)
    assert results.missing([first, second]) == [second]
    results.add(second)
    assert Results(path).missing([first, second, third]) == [third]
    assert Results(path).of([third, second, first]) == [second, first]


def test_a_line_that_was_cut_short_is_run_again(tmp_path):
    path = tmp_path / "results.jsonl"
    first, second = run(seed=1), run(seed=2)
    path.write_text(json.dumps(first) + "\n" + json.dumps(second)[:40])
    results = Results(path)
    assert results.missing([first, second]) == [second]
    results.add(second)
    assert Results(path).missing([first, second]) == []


def test_the_plan_has_every_run_once_with_the_rate_of_its_protocol(monkeypatch):
    arguments = "x --tasks mnist_mlp --ways plain default --seeds 2 --by cost --cost 900 1800"
    monkeypatch.setattr(sys, "argv", arguments.split())
    options = equal_time.parse()
    task = equal_time.tasks.get("mnist_mlp")._replace(rate=0.1, tuned=0.2)
    monkeypatch.setattr(equal_time.tasks, "get", lambda name: task)
    runs = equal_time.plan(options, "mnist_mlp")
    assert len(runs) == len({key(run) for run in runs}) == 2 * 2 * 2 * 2
    assert {(run["protocol"], run["rate"]) for run in runs} == {("anytime", 0.1), ("budget", 0.2)}
    assert {run["budget"] for run in runs} == {900.0, 1800.0} and {run["by"] for run in runs} == {"cost"}


def test_budgets_are_the_tasks_own_and_at_a_rate_that_decays_a_quarter_of_them_too(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "--tasks", "mnist_mlp", "--ways", "plain", "--seeds", "1"])
    task = equal_time.tasks.get("mnist_mlp")._replace(seconds=40.0, steps=100)
    monkeypatch.setattr(equal_time.tasks, "get", lambda name: task)
    options = equal_time.parse()

    def budgets():
        return [(run["protocol"], run["budget"]) for run in equal_time.plan(options, "mnist_mlp")]

    assert budgets() == [("anytime", 40.0), ("budget", 10.0), ("budget", 40.0)]
    options.by = "cost"
    assert budgets() == [("anytime", 300.0), ("budget", 75.0), ("budget", 300.0)]


def test_the_best_rate_is_that_of_the_least_test_error_and_then_of_the_least_test_loss():
    rows = [
        dict(way=way, test_error=summarise([error]), test_loss=summarise([loss]))
        for way, error, loss in (("a", 1.5, 0.1), ("b", 1.2, 0.4), ("c", 1.2, 0.3), ("d", 1.3, 0.2))
    ]
    assert equal_time.best_of(rows)["way"] == "c"


def test_the_rate_falls_from_all_to_nothing():
    assert [equal_time.cosine(share) for share in (0.0, 0.5, 1.0)] == pytest.approx([1.0, 0.5, 0.0])
