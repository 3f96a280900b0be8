"""Ways to train: `model.fit`, `ImportanceTraining` switched off, by default, with pools and rows, and other trainers.

A `Setup` is built from a seed for every way, trained, and compared with what `model.fit` makes of it.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from frameworks import all_warnings, build_ahead, host

from importance_sampling import ImportanceTraining, training
from importance_sampling.backend import keras_internals

OFF = dict(tau_th=float("inf"))
DEFAULT: dict = {}
POOLS = dict(tau_th=0.0)
ROWS = dict(tau_th=0.0, sampler="reshuffle")
WAYS = {"off": OFF, "default": DEFAULT, "pools": POOLS, "rows": ROWS}

# The other trainers, for data of a few rows.
TRAINERS: dict[str, Callable] = {
    "reshuffle": training.ReshuffleTraining,
    "history": lambda model: training.HistoryImportanceTraining(model, recompute=1),
    "skipping": training.SkippingTraining,
    "smoothly skipping": lambda model: training.SkippingTraining(model, smooth=True, full_epochs=0.0, score="gnorm"),
    "robust": training.RobustImportanceTraining,
    "quota": training.QuotaTraining,
    "svrg": lambda model: training.SVRG(model, B=2, B_over_b=2),
    "svrg, all rows": lambda model: training.SVRG(model, B=0, B_over_b=3),
    "katyusha": lambda model: training.Katyusha(model, B=2, B_over_b=2),
    "biased": lambda model: training.BiasedImportanceTraining(model, presample=10),
    "constant variance": lambda model: training.ConstantVarianceImportanceTraining(model, tau_th=0),
    "constant time": lambda model: training.ConstantTimeImportanceTraining(model, tau_th=0),
    "online batch selection": lambda model: training.OnlineBatchSelection(
        model, steps_per_epoch=3, recompute=1, s_e=(10, 1)
    ),
    "approximate": lambda model: training.ApproximateImportanceTraining(model, presample=10),
    "selective backprop": lambda model: training.SelectiveBackprop(model, start=0.0, end=1.0, interrupt=0),
    "hard examples": lambda model: training.HardExampleMining(model, presample=2),
    "reducible loss": lambda model: training.ReducibleLossTraining(model, copy_epochs=1),
}
TAKES_STREAMS = ("biased", "constant variance", "constant time", "selective backprop", "hard examples")
NEEDS_ROWS = {"rows", *TRAINERS} - {*TAKES_STREAMS}
# The loss that they report is that of samples which they prefer.
BIASED = {"biased", "online batch selection", "approximate", "selective backprop", "hard examples", "reducible loss"}
SHORTER = {"skipping", "smoothly skipping"}  # epochs
# Errors that are documented, by trainer: a part of the message.
_LOSS = "`score` must not be negative"
REFUSALS = {
    "skipping": _LOSS,
    "quota": "Targets must be classes",
    "approximate": f"Targets must be classes|{_LOSS}",
    "online batch selection": _LOSS,
    "selective backprop": _LOSS,
    "hard examples": _LOSS,
    "reducible loss": "copy",
}
# Documented warnings, by trainer, beside the one for models that can't be weighted: a part of the message.
REMARKS = {
    "katyusha": "uses only the learning rate of the optimizer",
    "skipping": "`LearningRateSchedule` counts steps",
    "smoothly skipping": "`LearningRateSchedule` counts steps",
}

STAYS_OFF = "Importance sampling stays off"
# Attributes of a model that `fit` sets, and a trainer needn't.
OF_FIT = {"train_function", "test_function", "predict_function", "stop_training", "_jax_state_synced"}


@dataclasses.dataclass
class Setup:
    """A model and what it is trained on.

    Args:
        model: a compiled model.
        arguments: of `fit`; `verbose` is 0.
        evaluate: arguments of `evaluate` for the same data; None (default): `x` and `y` of `arguments`, with their
            `sample_weight`, in batches of the same size.
    """

    model: keras.Model
    arguments: dict
    evaluate: dict | None = None


@dataclasses.dataclass
class Run:
    """What a `fit` left behind."""

    setup: Setup
    trainer: Any
    history: dict | None
    error: Exception | None
    messages: list[str]  # of the warnings
    changed: set[tuple]  # attributes of the user's objects that `fit` set, replaced or deleted

    @property
    def model(self) -> keras.Model:
        return self.setup.model

    def evaluate(self) -> float:
        """The loss of the trained model."""
        arguments = self.setup.arguments
        given = self.setup.evaluate
        if given is None:
            given = {key: arguments[key] for key in ("x", "y", "sample_weight", "batch_size") if key in arguments}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Keras's, about data of unknown size
            return float(self.model.evaluate(**given, verbose=0, return_dict=True)["loss"])

    @property
    def gap(self) -> float:
        """How far the loss of the last epoch is from that of the trained model."""
        return abs(float(self.history["loss"][-1]) - self.evaluate())


def train(
    build: Callable[[], Setup],
    way: dict | Callable | None = None,
    seed: int = 1,
    raises: bool = True,
    ahead: bool = True,
) -> Run:
    """Build and train.

    Args:
        build: makes the setup, from the seed that is set ahead of it.
        way: arguments of `ImportanceTraining`, or a function of the model that returns a trainer; None: `model.fit`.
        seed: of `keras.utils.set_random_seed`.
        raises: False returns what `fit` raised as `error`.
        ahead: build what can be built ahead of `fit`, which saves much of the time.
    """
    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(seed)
    with all_warnings() as captured:
        setup = build()
        if ahead:
            build_ahead(setup.model, **setup.arguments)
        before = attributes(setup)
        captured.clear()
        history, error, trainer = None, None, setup.model
        try:
            if way is not None:
                trainer = way(setup.model) if callable(way) else ImportanceTraining(setup.model, **way)
            history = trainer.fit(**{"verbose": 0, **setup.arguments}).history
        except Exception as raised:
            if raises:
                raise
            error = raised
    messages = [str(warning.message) for warning in captured]
    return Run(setup, trainer, history, error, messages, changes(before, attributes(setup)))


def plainly(build: Callable[..., Setup], *arguments: Any, raises: bool = True) -> Run:
    """Train `build(*arguments)` by `model.fit`, once for the ways that are compared with it one after another."""
    return _plainly(build, arguments, raises, keras.config.floatx())


@functools.lru_cache(maxsize=4)
def _plainly(build: Callable[..., Setup], arguments: tuple, raises: bool, floatx: str) -> Run:
    return train(lambda: build(*arguments), raises=raises)


def attributes(setup: Setup) -> dict[tuple, Any]:
    """Every attribute of the objects that are the user's: layers, losses, metrics, the optimizer, the data.

    Of callbacks, which note what goes on, the names alone.
    """
    model = setup.model
    metrics = getattr(keras_internals.compiled_metrics(model), "_user_metrics", None)
    owners = [
        *(("layer", layer) for layer in keras_internals.layers_of(model)),
        *(("loss", loss) for loss in keras.tree.flatten(getattr(model, "loss", None))),
        *(("metric", metric) for metric in keras.tree.flatten(metrics)),
        *(("callback", callback) for callback in keras.tree.flatten(setup.arguments.get("callbacks"))),
        ("optimizer", model.optimizer),
        ("data", setup.arguments.get("x")),
    ]
    return {
        (kind, number, name): None if kind == "callback" else value
        for number, (kind, owner) in enumerate(owners)
        if hasattr(owner, "__dict__")
        for name, value in vars(owner).items()
        if name not in OF_FIT
    }


def changes(before: dict[tuple, Any], after: dict[tuple, Any]) -> set[tuple]:
    """Return the attributes that were set, deleted, or are another object now."""
    return {key for key in before | after if key not in before or key not in after or before[key] is not after[key]}


def added(plain: Run, run: Run) -> list[str]:
    """Return the warnings that `model.fit` doesn't give."""
    return [message for message in run.messages if message not in plain.messages]


def assert_trained_alike(plain: Run, run: Run) -> None:
    """Assert that weights and History are those of `model.fit`, bit for bit."""
    np.testing.assert_equal({key: run.history[key] for key in plain.history}, plain.history)
    for owner in ("model", "optimizer"):
        first, second = (one.model if owner == "model" else one.model.optimizer for one in (plain, run))
        for before, after in zip(getattr(first, "variables", ()), getattr(second, "variables", ()), strict=True):
            np.testing.assert_array_equal(host(before), host(after), err_msg=before.path)


def assert_off(plain: Run, run: Run) -> None:
    """Assert that a trainer that is switched off did what `model.fit` does, without a warning."""
    assert added(plain, run) == [], added(plain, run)
    assert list(run.history) == list(plain.history), (list(run.history), list(plain.history))
    assert_trained_alike(plain, run)
    assert_left_alone(plain, run)


def assert_plainly(plain: Run, run: Run) -> None:
    """Assert that a trainer gave one warning, and then did what `model.fit` does."""
    (message,) = added(plain, run)
    assert message.startswith(STAYS_OFF), message
    assert run.trainer.importance_steps == 0
    assert_trained_alike(plain, run)
    assert_left_alone(plain, run)


def assert_closed(plain: Run, run: Run) -> None:
    """Assert that a trainer whose gate stayed closed did what `model.fit` does, without a warning."""
    assert added(plain, run) == []
    assert run.trainer.importance_steps == 0
    assert_trained_alike(plain, run)
    assert_left_alone(plain, run)


def assert_sampled(plain: Run, run: Run) -> None:
    """Assert that a trainer took importance steps, and that its figures are those of the model that came of it.

    The loss moves during an epoch, and is one of training mode in some: by how much, `model.fit` tells.
    """
    assert added(plain, run) == []
    assert run.trainer.importance_steps > 0
    assert all(np.isfinite(value).all() for value in run.model.get_weights() if value.dtype.kind == "f")
    loss, evaluated = float(run.history["loss"][-1]), run.evaluate()
    assert np.isfinite(loss)
    assert abs(loss - evaluated) <= 0.3 * abs(evaluated) + 0.1 + plain.gap, (loss, evaluated, plain.gap)
    assert_left_alone(plain, run)


def assert_left_alone(plain: Run, run: Run) -> None:
    """Assert that no attribute of the user's objects was changed but those that `model.fit` changes."""
    changed = run.changed - plain.changed
    assert changed == set(), changed
