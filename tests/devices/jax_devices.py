"""Train on 1 and on 4 devices of JAX, with `DataParallel` and `ModelParallel`, and print the results as JSON."""

import json
import os
import sys

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"

import keras
from common import BATCH, build, data, train

NAMES = ("uniform", "gate closed", "reshuffled", "pools", "exact norms", "snapshots")

x, y = data()
devices = keras.distribution.list_devices("cpu")
mesh = keras.distribution.DeviceMesh((2, 2), ["batch", "model"], devices)
layout = keras.distribution.LayoutMap(mesh)
layout["dense.*kernel"] = (None, "model")
layout["dense_1.*kernel"] = ("model", None)
DISTRIBUTIONS = {
    "1 device": lambda: None,
    "DataParallel": lambda: keras.distribution.DataParallel(devices=devices),
    "ModelParallel": lambda: keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch"),
}

results = {}
for distribution, make in DISTRIBUTIONS.items():
    keras.distribution.set_distribution(make())
    for name in NAMES if distribution != "ModelParallel" else ("reshuffled", "pools"):
        keras.backend.clear_session()
        results[f"{name}, {distribution}"] = train(name, build, x[:480], y[:480], batch_size=BATCH)
sys.stdout.write(json.dumps(results))
