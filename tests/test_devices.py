"""Training on several devices equals training on one.

Each backend trains in a process of its own, because the number of devices is set before the framework starts.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from devices.common import pick_by_shard
from frameworks import BACKEND, needs
from toys import SCORES

from importance_sampling import backend
from importance_sampling.core.scoring import Scoring
from importance_sampling.fit.state import TrainerState
from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers.pool import PoolSampler
from importance_sampling.samplers.resampling import SystematicResampling
from importance_sampling.strategies.pool import PoolStrategy
from importance_sampling.utils.errors import Unsupported

SCRIPTS = Path(__file__).parent / "devices"
EVERY_STEP = ("reshuffled", "pools", "exact norms", "snapshots")


def start(script, *arguments):
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([str(SCRIPTS), *sys.path]), KERAS_BACKEND=BACKEND)
    command = [sys.executable, str(SCRIPTS / script), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def free_ports(count):
    """Return numbers of ports of this machine that nothing listens to."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def results_of(process):
    try:
        output, errors = process.communicate(timeout=300)
    finally:
        process.kill()  # after a timeout it would go on; others have ended
    assert process.returncode == 0, errors[-3000:]
    return json.loads(output.splitlines()[-1])


def assert_equal_training(one, other, tolerance=2e-5):
    np.testing.assert_allclose(other["weights"], one["weights"], rtol=0, atol=tolerance)
    np.testing.assert_allclose(other["loss"], one["loss"], rtol=tolerance)
    assert other["importance"] == one["importance"]
    np.testing.assert_allclose(other["score"], one["score"], rtol=1e-3)


@pytest.fixture(scope="module")
def mirrored():
    return results_of(start("mirrored.py"))


@needs("tf.distribute")
@pytest.mark.parametrize(
    ("name", "replicas"),
    [
        ("uniform", 2),
        ("switched off", 2),
        ("gate closed", 2),
        ("reshuffled", 2),
        ("reshuffled", 4),
        ("pools", 2),
        ("pools", 4),
    ],
)
def test_replicas_of_a_mirrored_strategy_train_as_one_device_does(name, replicas, mirrored):
    one, other = mirrored[f"{name}, 1"], mirrored[f"{name}, {replicas}"]
    assert_equal_training(one, other)
    assert one["importance"] == (1.0 if name in EVERY_STEP else 0.0)
    assert other["warnings"] == []


@needs("tf.distribute")
def test_replicas_train_on_a_stream_as_one_device_does(mirrored):
    assert_equal_training(mirrored["stream, 1"], mirrored["stream, 2"])
    assert mirrored["stream, 2"]["importance"] == 1.0


@needs("tf.distribute")
def test_the_default_trainer_on_replicas_takes_the_importance_steps_that_it_takes_on_one_device(mirrored):
    one, other = mirrored["default, 1"], mirrored["default, 2"]
    assert_equal_training(one, other)
    assert one["importance"] == 1.0 and one["importance_by_epoch"][0] == 0.0  # the gate has opened in between
    assert other["importance_by_epoch"] == one["importance_by_epoch"]
    assert other["warnings"] == []


@needs("tf.distribute")
def test_a_fit_inside_the_scope_of_a_strategy_reports_the_same_score(mirrored):
    assert_equal_training(mirrored["gate closed, 1"], mirrored["in the scope, 2"])
    assert mirrored["in the scope, 2"]["score"] > 0


@needs("tf.distribute")
def test_listeners_receive_the_rows_of_all_replicas(mirrored):
    one, other = mirrored["rows, 1"], mirrored["rows, 2"]
    assert other["seen"] == one["seen"]
    np.testing.assert_allclose(other["weighted"], one["weighted"], rtol=1e-4)
    assert np.std(one["seen"]) > 0.5  # the rows are drawn unequally, so an order of its own per replica would differ


@needs("tf.distribute")
def test_a_trainer_whose_steps_cannot_be_split_trains_uniformly_with_a_warning(mirrored):
    one, other = mirrored["uniform, 2"], mirrored["snapshots, 2"]
    assert other["weights"] == one["weights"] and other["importance"] == 0.0
    assert len(other["warnings"]) == 1 and "can't be split" in other["warnings"][0]


@needs("tf.distribute")
def test_on_several_workers_the_fit_of_keras_fails_and_a_trainer_warns_before_it_fails_too():
    ports = ",".join(map(str, free_ports(2)))
    workers = [start("multi_worker.py", number, ports) for number in (0, 1)]
    for results in map(results_of, workers):
        for data in ("arrays", "dataset"):
            plain, trainer = results[f"uniform, {data}"], results[f"pools, {data}"]
            assert plain["error"] == trainer["error"] == "ValueError"
            assert len(trainer["warnings"]) == 1 and "where Keras's own `fit` fails too" in trainer["warnings"][0]


@needs("tf.distribute")
def test_a_single_worker_takes_importance_steps(mirrored):
    results = results_of(start("multi_worker.py", 0, *free_ports(1)))
    assert all(result["warnings"] == [] for result in results.values())
    for name, expected in (
        ("uniform, arrays", "uniform, 1"),
        ("pools, arrays", "pools, 1"),
        ("pools, dataset", "stream, 1"),
    ):
        np.testing.assert_allclose(results[name]["loss"], mirrored[expected]["loss"], rtol=2e-5)


@pytest.mark.parametrize(
    ("pool_size", "batch_size", "reason"),
    [(36, 12, None), (30, 10, "can't share 10 rows equally"), (18, 12, "can't share a pool of 18 candidates equally")],
)
def test_rows_that_the_replicas_cannot_share_are_refused(pool_size, batch_size, reason, monkeypatch):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    sampler = PoolSampler(pool_size, batch_size, 0.1, SystematicResampling(), UNBIASED)
    strategy = PoolStrategy(model, sampler, TrainerState(0), Scoring("loss"))
    monkeypatch.setattr(backend, "replicas", lambda model: 4)
    with pytest.raises(Unsupported, match=reason) if reason else contextlib.nullcontext():
        strategy.check_replicas()


@needs("keras.distribution")
def test_a_distribution_over_devices_trains_as_one_device_does():
    distributed = results_of(start("jax_devices.py"))  # takes long: one test, and so one process
    names = ("uniform", "gate closed", "reshuffled", "pools", "exact norms", "snapshots")
    more = ("default", "stream", "generator")
    for distribution in ("1 device", "DataParallel"):
        assert distributed[f"default, {distribution}"]["importance_by_epoch"][0] == 0.0
    for name in more:
        one, other = distributed[f"{name}, 1 device"], distributed[f"{name}, DataParallel"]
        assert_equal_training(one, other)
        assert other["importance_by_epoch"] == one["importance_by_epoch"] and one["importance"] > 0.3, name
        assert other["warnings"] == [], name
    for distribution, trained in (("DataParallel", names), ("ModelParallel", ("reshuffled", "pools"))):
        for name in trained:
            one, other = distributed[f"{name}, 1 device"], distributed[f"{name}, {distribution}"]
            assert_equal_training(one, other)
            assert one["importance"] == (1.0 if name in EVERY_STEP else 0.0), name
            assert other["warnings"] == [], name
            assert (one["devices"], other["devices"]) == (1, 4), name
            assert other["parts"] == (2 if distribution == "ModelParallel" else 1), name


@needs("keras.distribution")
def test_the_rows_of_a_step_are_split_over_the_devices():
    code = (
        "import os; os.environ['XLA_FLAGS'] = '--xla_force_host_platform_device_count=4'\n"
        "import jax, keras\n"
        "from importance_sampling import backend\n"
        "distribution = keras.distribution.DataParallel(devices=keras.distribution.list_devices('cpu'))\n"
        "keras.distribution.set_distribution(distribution)\n"
        "split = jax.jit(lambda x: backend.distribute_rows((x, None)))(keras.ops.ones((8, 3)))[0]\n"
        "uneven = jax.jit(backend.distribute_rows)(keras.ops.ones((7, 3)))\n"
        "whole = jax.jit(backend.collect_rows)(split)\n"
        "print([x.addressable_shards[0].data.shape[0] for x in (split, uneven, whole)])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[2, 7, 8]"


@needs("keras.distribution")
def test_two_processes_train_as_one_does():
    (port,) = free_ports(1)
    names = "uniform,reshuffled,pools,default,stream"
    runs = [start("jax_processes.py", number, count, port, names) for number, count in ((0, 2), (1, 2), (0, 1))]
    first, second, alone = map(results_of, runs)
    for name in names.split(","):
        assert_equal_training(first[name], second[name], tolerance=0)
        assert_equal_training(alone[name], first[name])
        assert first[name]["importance"] == (0.0 if name == "uniform" else 1.0), name


SHARDED_POOL = np.sort(SCORES)  # the first half, the shard of a replica, has low scores
PICKS = {"one order": PoolSampler.pick, "shards with global weights": pick_by_shard}


@pytest.mark.parametrize("way", PICKS)
def test_only_the_draw_in_one_order_is_unbiased_where_the_shards_differ(way):
    """A replica that draws from its own rows needs the probabilities of these rows; with those of all rows it errs."""
    values = 4.0 - np.log(SHARDED_POOL) / 2  # asymmetric, in the place of gradients
    sampler = PoolSampler(len(values), 12, 0.1, SystematicResampling(), UNBIASED)
    rng = np.random.default_rng(0)
    means = []
    for _ in range(2000):
        picked = PICKS[way](sampler, SHARDED_POOL, rng.random(sampler.num_uniforms))
        means.append(np.mean(picked.weights * values[picked.positions]))
    errors = abs(np.mean(means) - values.mean()) / (np.std(means, ddof=1) / np.sqrt(len(means)))
    assert errors < 5 if way == "one order" else errors > 14
