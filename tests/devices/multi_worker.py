"""Train as worker NUMBER of those at PORTS, under `tf.distribute.MultiWorkerMirroredStrategy`; print JSON."""

import json
import os
import sys
import warnings

number, ports = int(sys.argv[1]), sys.argv[2].split(",")
cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
os.environ["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": {"type": "worker", "index": number}})

import tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before anything else of TensorFlow

from common import BATCH, TRAINERS, build, data


def attempt(name, *arguments, **options):
    """Return the losses and weights after a training, or the type of its error; and the library's warnings."""
    with strategy.scope():
        model = build()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            loss = TRAINERS[name](model).fit(*arguments, epochs=2, verbose=0, **options).history["loss"]
            result = dict(loss=loss, weights=[weight.tolist() for weight in model.get_weights()])
        except Exception as error:  # whatever Keras raises
            result = dict(error=type(error).__name__)
    return result | dict(warnings=[str(one.message) for one in caught if "mportance sampling" in str(one.message)])


x, y = data()
dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH)
results = {}
for name in ("uniform", "pools"):
    results[f"{name}, arrays"] = attempt(name, x, y, batch_size=BATCH)
    results[f"{name}, dataset"] = attempt(name, dataset)
sys.stdout.write(json.dumps(results))
