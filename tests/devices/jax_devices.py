"""Train on 1 and on 4 devices of JAX, with `DataParallel` and `ModelParallel`, and print the results as JSON."""

import json
import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import keras
from common import BATCH, Batches, build, data, default_arguments, train

NAMES = ("uniform", "gate closed", "reshuffled", "pools", "exact norms", "snapshots")

x, y = data()
devices = keras.distribution.list_devices("cpu")
mesh = keras.distribution.DeviceMesh((2, 2), ["batch", "model"], devices)
layout = keras.distribution.LayoutMap(mesh)
layout[".*hidden.*kernel"] = (None, "model")
layout[".*classes.*kernel"] = ("model", None)
DISTRIBUTIONS = {
    "1 device": lambda: None,
    "DataParallel": lambda: keras.distribution.DataParallel(devices=devices),
    "ModelParallel": lambda: keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch"),
}

results = {}
for distribution, make in DISTRIBUTIONS.items():
    keras.distribution.set_distribution(make())
    for name in NAMES if distribution != "ModelParallel" else ("reshuffled", "pools"):
        model = build()
        result = train(name, lambda model=model: model, x[:480], y[:480], batch_size=BATCH)
        kernel = model.trainable_variables[0].value
        parts = len({str(shard.index) for shard in kernel.addressable_shards})
        results[f"{name}, {distribution}"] = result | dict(devices=len(kernel.devices()), parts=parts)
    if distribution != "ModelParallel":
        results[f"default, {distribution}"] = train("default", build, **default_arguments(480))
        results[f"stream, {distribution}"] = train("pools", build, Batches(x[:480], y[:480]))
        generator = (Batches(x[:480], y[:480])[index] for index in range(12))
        results[f"generator, {distribution}"] = train("pools", build, generator, epochs=1)
sys.stdout.write(json.dumps(results))
