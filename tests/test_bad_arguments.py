"""Every argument of a public constructor that has a range refuses, at once and by its name, what is outside of it.

The table has an entry for each argument; the values follow from its range. Arguments of `fit` that Keras refuses itself
are in `test_refused_arguments.py`.
"""

import inspect
import re

import keras
import numpy as np
import pytest
from toys import Reader, Rows, Toy

from importance_sampling import (
    ImportanceTraining,
    callbacks,
    compare,
    conditions,
    model_wrappers,
    reweighting,
    samplers,
    training,
)
from importance_sampling.comparison import user_task
from importance_sampling.labels import out_of_sample
from importance_sampling.reweighting import UNBIASED
from importance_sampling.samplers import resampling

NAN, INF = float("nan"), float("inf")
UNEVEN = [[1.0], [1.0, 2.0]]  # which NumPy can't turn into an array
NO_SCALARS = ["1", [1], np.ones(2), 1j, True, {}]
X, Y = np.zeros((8, 4), "float32"), np.zeros(8, "int64")


def number(*outside, none=False, infinite=False):
    """Return values that aren't numbers of a range: those of another type, and `outside`, beyond its ends."""
    return [*NO_SCALARS, NAN, *([] if infinite else [INF, -INF]), *([] if none else [None]), *outside]


def integer(*outside, none=False):
    """Return values that aren't integers of a range."""
    return [*NO_SCALARS, NAN, INF, 1.5, *([] if none else [None]), *outside]


def choice(none=False):
    """Return values that are none of a few names."""
    return ["another", "", 3, True, ["loss"], {}, np.array(["loss", "pool"]), *([] if none else [None])]


def flag():
    """Return values that aren't True or False."""
    return ["False", "", None, [], 2, 0.5, NAN, np.ones(2)]


def parameters(function):
    """Return the names of the arguments of a function, or of a constructor."""
    return list(inspect.signature(function).parameters)


class Empty:
    train_data: list = []


class Unsized:
    train_data = 3


def build():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    return model


MODEL = build()
SAMPLER = samplers.UniformSampler(Toy(), UNBIASED)
# Ranges of arguments that several classes have.
ALPHA, SEED, K = number(0, -0.1, 1.1), integer(-1, 2**31, none=True), number(1.1)
SCORE, LAYER = choice(), ["nowhere", 99, -99, True, 1.5, [0], {}, keras.layers.Dense(3)]
FORWARD, RECOMPUTE, COUNT = integer(0, -1, none=True), integer(-1), integer(0, -1)
GATE, GATE_OR_NONE = number(infinite=True), number(none=True, infinite=True)
PRESAMPLE, FRACTION, SMOOTH = number(0.9, 0, -1), number(-0.1, 1, 1.5), number(-0.1)
RESAMPLING, S_E = choice(), [3, None, "ab", (1,), (0.5, 1), (1, 0.5), ("a", "b"), (NAN, 1), (1, INF), (True, 1), UNEVEN]
SHARES = [3, "1", [0.5], {}, {1: 0}, {1: 1.0}, {1: -0.1}, {1: "a"}, {1: NAN}, {1: True}, {1: None}, {0: 0.6, 1: 0.6}]
GROUPS = [3, "a", [0.5], [[1]], ["a"], [None], UNEVEN, {0: 1}]
NEEDS_NO_MODEL = {"ReshuffleSampler"}  # without `recompute`
NO_MODEL = [None, "model", 3, keras.layers.Dense(3), keras.Model]
NO_SAMPLER = [None, "uniform", 3, Toy(), samplers.UniformSampler]
NO_POLICY = [None, "unbiased", 1.0, reweighting.BiasedReweightingPolicy]
NO_DATASET = [None, "mnist", 3, X, (X, Y), Empty(), Unsized()]
SCORED = dict(score=SCORE, layer=LAYER, seed=SEED)
POOLED = SCORED | dict(forward_batch_size=FORWARD, alpha=ALPHA, resampling=RESAMPLING)
SNAPSHOT = dict(B=number(-1), B_rate=number(0.9, -1), B_over_b=COUNT, seed=SEED)
TIME = dict(backward_time=number(0, -1), ratio=number(-0.1, 1.1), min_a=number(0, -0.1, 1.1), tau_th=GATE)
VARIANCE = dict(backward_time=number(0, -1), extra_samples=number(-0.1, 0.7))
OPTIONS = dict(alpha=ALPHA, resampling=RESAMPLING, seed=SEED)
SMOOTHED = dict(k=K, smooth=SMOOTH, adaptive_smoothing=flag(), presample=COUNT)
PICKED = dict(pool_size=COUNT, batch_size=COUNT)

TRAINERS = {
    "SVRG": SNAPSHOT,
    "Katyusha": SNAPSHOT | dict(t1=number(0, -0.1, 1.1, 0.6), t2=number(-0.1, 1.1, 0.6)),
    "ApproximateImportanceTraining": SCORED | SMOOTHED | dict(alpha=ALPHA, tau_th=GATE_OR_NONE),
    "BiasedImportanceTraining": POOLED | SMOOTHED | dict(tau_th=GATE_OR_NONE),
    "ConstantTimeImportanceTraining": POOLED | TIME,
    "ConstantVarianceImportanceTraining": POOLED | VARIANCE | dict(tau_th=GATE_OR_NONE),
    "HardExampleMining": SCORED | dict(presample=PRESAMPLE, forward_batch_size=FORWARD),
    "HistoryImportanceTraining": SCORED
    | dict(recompute=RECOMPUTE, forward_batch_size=FORWARD, alpha=ALPHA, tau_th=GATE_OR_NONE),
    "ImportanceTraining": POOLED | dict(presample=PRESAMPLE, tau_th=GATE_OR_NONE, sampler=choice()),
    "OnlineBatchSelection": SCORED
    | dict(steps_per_epoch=COUNT, recompute=RECOMPUTE, s_e=S_E, n_epochs=COUNT)
    | dict(forward_batch_size=FORWARD, tau_th=GATE_OR_NONE),
    "QuotaTraining": SCORED | dict(shares=SHARES, groups=GROUPS, balanced=flag(), alpha=ALPHA),
    "ReducibleLossTraining": dict(
        presample=PRESAMPLE,
        irreducible_loss=["losses", 3.0, True, [[1.0]], [NAN], [INF], ["a"], [None], UNEVEN, {}],
        holdout=["xy", 3, X, (X,), (X, Y, Y, Y), {"x": X, "y": Y}, (1, 2), ("x", "y"), (X, [0, 1]), (None, Y)],
        copy_epochs=integer(0, -1, none=True),
        forward_batch_size=FORWARD,
        seed=SEED,
    ),
    "ReshuffleTraining": SCORED | dict(recompute=RECOMPUTE, alpha=ALPHA, tau_th=GATE_OR_NONE),
    "RobustImportanceTraining": SCORED | dict(width=SMOOTH, alpha=ALPHA),
    "SamplerTraining": SCORED | dict(sampler=[None, "cache", 3], forward_batch_size=FORWARD, tau_th=GATE_OR_NONE),
    "SelectiveBackprop": SCORED
    | dict(share=number(0, -0.1, 1.1), start=number(-0.1, 0.95, 1.1), end=number(-0.1, 0.4, 1.1))
    | dict(interrupt=integer(-1), forward_batch_size=FORWARD),
    "SkippingTraining": dict(
        skip_probability=number(-0.1, 1, none=True), smooth=flag(), full_epochs=FRACTION, score=SCORE, seed=SEED
    ),
}
TRAINERS = {name: dict(model=NO_MODEL) | arguments for name, arguments in TRAINERS.items()}
SAMPLERS = {
    "BaseSampler": {},
    "CacheSampler": dict(staleness=COUNT, cache_prob=FRACTION, smooth=SMOOTH),
    "ConstantTimeSampler": TIME,
    "ConstantVarianceSampler": VARIANCE,
    "HistorySampler": dict(recompute=RECOMPUTE),
    "LSTMComparisonSampler": dict(subset=COUNT, presample=COUNT, history=COUNT, log=flag()),
    "LSTMSampler": dict(presample=COUNT, history=COUNT, log=flag()),
    "ModelSampler": dict(large_batch=COUNT, forward_batch_size=COUNT),
    "OnlineBatchSelectionSampler": dict(steps_per_epoch=COUNT, recompute=RECOMPUTE, s_e=S_E, n_epochs=COUNT),
    "PerClassGaussian": dict(alpha=FRACTION, presample=COUNT),
    "QuotaSampler": dict(shares=SHARES, groups=GROUPS, balanced=flag()),
    "ReshuffleSampler": dict(recompute=RECOMPUTE),
    "RobustSampler": dict(width=SMOOTH),
    "SCSGSampler": dict(B=integer(-1), B_over_b=COUNT, B_rate=number(0.9, 0)),
    "SkippingSampler": dict(skip_probability=number(-0.1, 1, none=True), smooth=flag(), seed=SEED),
    "UniformSampler": {},
}
SAMPLERS = {name: dict(dataset=NO_DATASET, reweighting=NO_POLICY) | entry for name, entry in SAMPLERS.items()}
for name, entry in SAMPLERS.items():
    if "model" in parameters(getattr(samplers, name)):
        entry["model"] = [*([] if name in NEEDS_NO_MODEL else [None]), "model", 3, object()]
    for option, values in OPTIONS.items():
        if name != "SkippingSampler":
            entry.setdefault(option, values)
DECORATORS = {
    "AdaptiveAdditiveSmoothingSampler": dict(percentage=SMOOTH, forget=FRACTION),
    "AdditiveSmoothingSampler": dict(c=SMOOTH),
    "ConditionalStartSampler": dict(condition=[None, True, "warmup", 3, conditions.WarmupCondition]),
    "PowerSmoothingSampler": dict(power=SMOOTH),
    "SamplerDecorator": {},
}
DECORATORS = {name: dict(sampler=NO_SAMPLER) | arguments for name, arguments in DECORATORS.items()}
SELECTORS = {
    "PoolSampler": PICKED
    | dict(
        alpha=number(-0.1, 1.1),
        resampling=[None, "systematic", 3],
        reweighting=NO_POLICY,
        smooth=["additive", 0.5, True],
    ),
    "HighestSampler": PICKED | dict(batch_size=[*COUNT, 9]),
    "RankSampler": PICKED | dict(batch_size=[*COUNT, 9]),
}
CONDITIONS = {
    "ExpCondition": dict(lambda_th=GATE, momentum=FRACTION),
    "ScoreCondition": dict(threshold=GATE, momentum=FRACTION),
    "TotalVariationCondition": dict(tv_th=GATE, momentum=FRACTION),
    "VarianceReductionCondition": dict(vr_th=GATE, momentum=FRACTION),
    "WarmupCondition": dict(warmup=integer(-1)),
    "gate": dict(tau_th=GATE),
}
POLICIES = {
    "AdjustedBiasedReweightingPolicy": dict(k=K),
    "BiasedReweightingPolicy": dict(k=K),
    "CorrectingReweightingPolicy": dict(k=K),
    "WeightLayer": dict(policy=NO_POLICY),
}
CALLBACKS = {
    "SamplingTensorBoard": dict(log_dir=[None, 3, True, ["logs"]]),
    "TrainingDynamics": dict(
        x=[None, 3, X[:5], [X, X[:5]]], y=[None, 3, X[0, 0], Y[:5], UNEVEN], batch_size=integer(0, -1, none=True)
    ),
}
WRAPPERS = {
    "OracleWrapper": dict(model=[*NO_MODEL, keras.Sequential()], reweighting=NO_POLICY, score=SCORE, layer=LAYER),
    "KatyushaWrapper": dict(model=NO_MODEL, t1=number(0, 1.1, 0.6), t2=number(-0.1, 1.1, 0.6)),
    "SVRGWrapper": dict(model=NO_MODEL),
}
FUNCTIONS = {
    "compare": dict(
        build_model=[None, "model", 3, MODEL],
        ways=["uniform", 3, [], {}, {"a": build}, {"a": build, "b": 3}, [build, build]],
        seconds=number(0, -1, none=True),
        cost=number(0, -1, none=True),
        epochs=integer(0, -1, none=True),
        seeds=COUNT,
        monitor=["auc", "", 3, True, ["loss"], {}, np.array(["loss", "auc"])],
        mode=choice(),
        verbose=["yes", 3, 1.0, [], np.ones(2), NAN],
        validation_split=["0.2", True, [0.2], 1.5, 1, -0.1, NAN, INF],
        callbacks=[[iter([])], 3, "early stopping", ["early stopping"]],
    ),
    "out_of_sample": dict(
        model=NO_MODEL,
        x=[None, 3, "data", X.tolist()],
        y=[None, 3, "data", Y.tolist()],
        batch_size=COUNT,
        epochs=COUNT,
        seed=SEED,
    ),
    "fit": dict(on_sample=["print", 3, True, []], on_scores=["print", 3, True, []]),
}
# Arguments that have no range.
FREE = {
    ("ImportanceTraining", "cost"),  # deprecated, without effect
    ("ScoreCondition", "name"),
    ("compare", "x"),  # and `y`: Keras's own
    ("compare", "y"),
    ("out_of_sample", "sample_weight"),
}
NO_RANGES = {
    "Drawn",  # results, and what is passed on
    "GateContext",
    "LossComparison",
    "LossTrend",
    "Picked",
    "Signals",
    "ModelWrapper",  # the base class of the others
}
TABLES = {
    training: TRAINERS,
    samplers: SAMPLERS | DECORATORS | SELECTORS,
    conditions: CONDITIONS,
    reweighting: POLICIES,
    callbacks: CALLBACKS,
    model_wrappers: WRAPPERS,
}
# What a function needs besides the argument that is wrong.
NEEDED = {
    "SamplerTraining": lambda: dict(sampler=samplers.CacheSampler),
    "ReshuffleSampler": lambda: dict(recompute=1),  # otherwise it needs no model
    "AdditiveSmoothingSampler": lambda: dict(c=1.0),
    "ConditionalStartSampler": lambda: dict(condition=conditions.WarmupCondition()),
    "PoolSampler": lambda: dict(alpha=0.1, resampling=resampling.get("systematic"), reweighting=UNBIASED),
    "ScoreCondition": lambda: dict(threshold=1.0, momentum=0.9, name="threshold"),
    "TrainingDynamics": lambda: dict(x=X, y=Y, batch_size=None),
    "OracleWrapper": lambda: dict(reweighting=UNBIASED),
    "compare": lambda: dict(build_model=build, x=X, y=Y),
    "out_of_sample": lambda: dict(model=MODEL, x=X, y=Y),
    "fit": lambda: dict(x=X, y=Y, verbose=0),
}
CALLED = {"compare": compare, "out_of_sample": out_of_sample, "fit": ImportanceTraining(MODEL).fit}
ENTRIES = {name: (module, table[name]) for module, table in TABLES.items() for name in table}
ENTRIES |= {name: (None, entry) for name, entry in FUNCTIONS.items()}
CASES = [(name, argument) for name, (_, entry) in ENTRIES.items() for argument in entry]


def function_of(name):
    """Return the function or class of a name, and arguments that it accepts."""
    module, _ = ENTRIES[name]
    function = CALLED[name] if module is None else getattr(module, name)
    others = dict(dataset=Toy(), reweighting=UNBIASED, pool_size=8, batch_size=4)
    others |= dict(sampler=SAMPLER) if name in DECORATORS else {}
    others["model"] = Reader() if module is samplers else MODEL
    arguments = {one: value for one, value in others.items() if one in parameters(function)} if module else {}
    return function, arguments | NEEDED.get(name, dict)()


def refusal(name, argument, value):
    """Return what is wrong with the way in which a bad value is refused; empty if nothing is."""
    function, arguments = function_of(name)
    try:
        function(**arguments | {argument: value})
    except ValueError as error:
        rule, _, received = str(error).partition("Received: ")
        is_named = re.search(rf"(?s)`{argument}`.* must |must .*`{argument}`", rule)
        return "" if is_named and re.search(rf"\b{argument}\b", received) else f"{value!r}: {error}"
    except Exception as error:
        return f"{value!r}: {type(error).__name__}: {error}"
    return f"{value!r} is accepted"


@pytest.mark.parametrize(("name", "argument"), CASES, ids=[f"{name}-{argument}" for name, argument in CASES])
def test_a_bad_argument_is_refused_at_once_by_its_name_and_value(name, argument, monkeypatch):
    monkeypatch.setattr(user_task, "train", lambda *args, **kwargs: pytest.fail("trained"))
    monkeypatch.setattr(Rows, "__getitem__", lambda *args: pytest.fail("read the data"))
    monkeypatch.setattr(keras.Model, "train_step", lambda *args: pytest.fail("trained"))
    wrong = [refusal(name, argument, value) for value in ENTRIES[name][1][argument]]
    assert [text for text in wrong if text] == []


def test_the_table_has_every_argument_of_every_public_constructor():
    missing = []
    for module, table in TABLES.items():
        classes = [name for name in module.__all__ if inspect.isclass(getattr(module, name)) and name not in NO_RANGES]
        missing += [name for name in classes if parameters(getattr(module, name)) and name not in table]
    for name, (_, entry) in ENTRIES.items():
        known = [one for one in parameters(function_of(name)[0]) if one not in ("options", "kwargs", "fit_arguments")]
        if name != "fit":
            missing += [(name, one) for one in known if one not in entry and (name, one) not in FREE]
    assert missing == []


def test_the_table_has_hundreds_of_distinct_bad_arguments():
    names = {(name, argument, repr(value)) for name, argument in CASES for value in ENTRIES[name][1][argument]}
    assert len(names) > 2500
    assert len({argument for _, argument in CASES}) > 60
