"""Train on 1, 2 and 4 replicas of `tf.distribute.MirroredStrategy`, and print the results as JSON."""

import contextlib
import functools
import json
import sys

import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)

import numpy as np
from common import BATCH, build, data, default_arguments, train

from importance_sampling.training import ReshuffleTraining

NAMES = ("uniform", "switched off", "gate closed", "reshuffled", "pools", "snapshots")

x, y = data()


def scope(replicas):
    if replicas == 1:
        return contextlib.nullcontext()
    # Collective operations would not allow strategies of several sizes in one process.
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)], reduction).scope()


def build_on(replicas):
    with scope(replicas):
        return build()


def rows_seen(replicas):
    """Return how often each row was trained on in uniform and in importance steps, and the sum of its weights."""
    seen, weighted = np.zeros(len(x), int), np.zeros(len(x))

    def on_sample(sampler, indices, weights, scores):
        np.add.at(seen, indices, 1)
        np.add.at(weighted, indices, weights)

    ReshuffleTraining(build_on(replicas), seed=3).fit(x, y, batch_size=BATCH, epochs=3, verbose=0, on_sample=on_sample)
    return dict(seen=seen.tolist(), weighted=weighted.tolist())


results = {}
for replicas in (1, 2, 4):
    build_here = functools.partial(build_on, replicas)
    for name in NAMES if replicas < 4 else ("reshuffled", "pools"):
        results[f"{name}, {replicas}"] = train(name, build_here, x, y, batch_size=BATCH)
    if replicas < 4:
        stream = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)
        results[f"stream, {replicas}"] = train("pools", build_here, stream)
        results[f"rows, {replicas}"] = rows_seen(replicas)
        results[f"default, {replicas}"] = train("default", build_here, **default_arguments())
with scope(2):
    results["in the scope, 2"] = train("gate closed", build, x, y, batch_size=BATCH)
sys.stdout.write(json.dumps(results))
