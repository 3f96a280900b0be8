"""Train as process NUMBER of COUNT, which JAX joins over localhost:PORT; print the results as JSON."""

import json
import sys

import jax

jax.config.update("jax_cpu_collectives_implementation", "gloo")

import keras

number, count, port, names = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4].split(",")
if count > 1:
    keras.distribution.initialize(f"127.0.0.1:{port}", count, number)
    devices = keras.distribution.list_devices("cpu")
    # Every process reads all batches: the library draws them in one order, the same in every process.
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False))

from common import BATCH, Batches, build, data, default_arguments, train

x, y = data()
ARGUMENTS = {
    "default": default_arguments(480),
    "stream": dict(x=Batches(x[:480], y[:480])),
}
results = {}
for name in names:
    arguments = ARGUMENTS.get(name, dict(x=x[:480], y=y[:480], batch_size=BATCH))
    results[name] = train("pools" if name == "stream" else name, build, **arguments)
sys.stdout.write(json.dumps(results))
