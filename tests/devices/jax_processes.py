"""Train as process NUMBER of two, which JAX joins over localhost:PORT; print the results as JSON."""

import json
import sys

import jax

jax.config.update("jax_cpu_collectives_implementation", "gloo")

import keras

number, port, names = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].split(",")
keras.distribution.initialize(f"127.0.0.1:{port}", 2, number)
devices = keras.distribution.list_devices("cpu")
keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False))

from common import BATCH, build, data, train

x, y = data()
results = {name: train(name, build, x[:480], y[:480], batch_size=BATCH) for name in names}
sys.stdout.write(json.dumps(results))
