"""The datasets and the ways to train that can be named on the command line, with options as in `specs`.

To add a trainer, sampler or dataset to the command line, add a line to a dict of this module.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from importance_sampling import conditions, datasets, samplers, training
from importance_sampling.comparison.specs import Part, call, lookup, options_of, parse
from importance_sampling.comparison.stub import Stub
from importance_sampling.reweighting import UNBIASED, UNWEIGHTED, BiasedReweightingPolicy
from importance_sampling.samplers import BaseSampler, ConditionalStartSampler


def augmented(
    dataset: datasets.BaseDataset,
    N: int | None = None,
    random_state: int = 0,
    cache_size: int | None = None,
    horizontal_flip: bool = False,
    vertical_flip: bool = False,
    width_shift_range: float = 0.0,
    height_shift_range: float = 0.0,
    rotation_range: float = 0.0,
    shear_range: float = 0.0,
    zoom_range: float = 0.0,
    fill_mode: str = "nearest",
) -> datasets.OntheflyAugmentedImages:
    """N augmented copies of the training images, default 10 per image; shifts below 1 are fractions, angles degrees."""
    params = dict(horizontal_flip=horizontal_flip, vertical_flip=vertical_flip, fill_mode=fill_mode)
    params |= dict(width_shift_range=width_shift_range, height_shift_range=height_shift_range)
    params |= dict(rotation_range=rotation_range, shear_range=shear_range, zoom_range=zoom_range)
    return datasets.OntheflyAugmentedImages(dataset, params, N, random_state, cache_size)


# From a compiled model, and a seed or None, to an object with Keras's `fit`.
Way = Callable[[keras.Model, int | None], Any]

DATASETS = {
    "mnist": datasets.MNIST,
    "pixel-mnist": datasets.PixelByPixelMNIST,
    "cifar10": datasets.CIFAR10,
    "cifar100": datasets.CIFAR100,
    "cifar-sanity-check": datasets.CIFARSanityCheck,
    "penn-treebank": datasets.PennTreeBank,
    "canevet": datasets.CanevetICML2016,
}
VIEWS = {"whitened": datasets.ZCAWhitening, "augmented": augmented}

UNIFORM = "uniform"
TRAINERS = {
    "importance": training.ImportanceTraining,
    "biased": training.BiasedImportanceTraining,
    "constant-variance": training.ConstantVarianceImportanceTraining,
    "constant-time": training.ConstantTimeImportanceTraining,
    "reshuffle": training.ReshuffleTraining,
    "robust": training.RobustImportanceTraining,
    "skipping": training.SkippingTraining,
    "quota": training.QuotaTraining,
    "reducible-loss": training.ReducibleLossTraining,
    "history": training.HistoryImportanceTraining,
    "online-batch-selection": training.OnlineBatchSelection,
    "selective-backprop": training.SelectiveBackprop,
    "hard-examples": training.HardExampleMining,
    "approximate": training.ApproximateImportanceTraining,
    "svrg": training.SVRG,
    "katyusha": training.Katyusha,
}
SAMPLERS = {
    "uniform-sampler": samplers.UniformSampler,
    "model-sampler": samplers.ModelSampler,
    "history-sampler": samplers.HistorySampler,
    "reshuffle-sampler": samplers.ReshuffleSampler,
    "robust-sampler": samplers.RobustSampler,
    "skipping-sampler": samplers.SkippingSampler,
    "quota-sampler": samplers.QuotaSampler,
    "online-batch-selection-sampler": samplers.OnlineBatchSelectionSampler,
    "lstm-sampler": samplers.LSTMSampler,
    "cache-sampler": samplers.CacheSampler,
    "per-class-sampler": samplers.PerClassGaussian,
}
SMOOTHING = {
    "additive": samplers.AdditiveSmoothingSampler,
    "adaptive": samplers.AdaptiveAdditiveSmoothingSampler,
    "power": samplers.PowerSmoothingSampler,
}
CONDITIONS = {
    "warmup": conditions.WarmupCondition,
    "variance-reduction": conditions.VarianceReductionCondition,
    "exp": conditions.ExpCondition,
    "total-variation": conditions.TotalVariationCondition,
}


def dataset(text: str, path: str | Path | None = None) -> datasets.BaseDataset:
    """Create a dataset from a specification, such as `mnist` or `cifar10+augmented,horizontal_flip=True`.

    Args:
        text: str, a name of `DATASETS` with its options, and names of `VIEWS` with their options.
        path: default of the option `path`, for datasets that have it.

    Raises:
        ValueError: a name or an option is unknown or out of range.
    """
    first, *views = parse(text)
    if path is not None and "path" in options_of(lookup(first.name, DATASETS, "dataset")):
        first = Part(first.name, {"path": path} | first.options)
    result = call(first, DATASETS, "dataset")
    for view in views:
        result = call(view, VIEWS, "view of a dataset", result)
    return result


def way(text: str) -> Way:
    """Create a way to train from a specification, such as `importance,presample=5` or `history-sampler+power`.

    Args:
        text: str; `uniform`; or a name of `TRAINERS` with its options; or a name of `SAMPLERS` with its options and
            those of `sampler_trainer`, and names of `SMOOTHING` and `CONDITIONS` with their options.

    Returns:
        A function of a model and a seed that returns an object with Keras's `fit`. It checks the options.

    Raises:
        ValueError: a name is unknown.
    """
    first, *decorators = parse(text)
    lookup(first.name, {UNIFORM: None} | TRAINERS | SAMPLERS, "way to train")
    if first.name in SAMPLERS:
        for part in decorators:
            lookup(part.name, SMOOTHING | CONDITIONS, "decorator of a sampler")
        return lambda model, seed: sampler_trainer(model, seed, first, decorators)
    if decorators:
        raise ValueError(f"Only samplers can be decorated: {', '.join(SAMPLERS)}. Received: {text!r}")
    if first.name == UNIFORM:
        return lambda model, seed: call(first, {UNIFORM: lambda model: model}, "way to train", model)
    return lambda model, seed: call(first, TRAINERS, "trainer", model, seed=seed)


def sampler_trainer(
    model: keras.Model, seed: int | None, sampler: Part, decorators: list[Part]
) -> training.SamplerTraining:
    """Create a trainer with a sampler.

    Args:
        model: compiled `keras.Model`.
        seed: int or None, of the sampler.
        sampler: `Part` with a name of `SAMPLERS`. Options that aren't those of the sampler are `score`, `layer` and
            `tau_th` of `SamplerTraining`, and `k`, the exponent of the importance weights: float <= 1, default 1
            (unbiased); None means that all weights are 1.
        decorators: `Part`s with names of `SMOOTHING` or `CONDITIONS`, applied in this order.

    Raises:
        ValueError: an option is unknown or out of range.
    """
    trainer_options = {name: sampler.options[name] for name in ("score", "layer", "tau_th") if name in sampler.options}
    k = sampler.options.get("k", 1.0)
    policy = UNWEIGHTED if k is None else UNBIASED if k == 1 else BiasedReweightingPolicy(k)
    sampler_options = {name: v for name, v in sampler.options.items() if name not in (*trainer_options, "k")}
    undecorated = Part(sampler.name, sampler_options)

    def make(rows: Any, _: Any, seed: int) -> BaseSampler:
        result = call(undecorated, SAMPLERS, "sampler", rows, policy, model=rows, seed=seed)
        for part in decorators:
            if part.name in SMOOTHING:
                result = call(part, SMOOTHING, "decorator", result)
            else:
                result = ConditionalStartSampler(result, call(part, CONDITIONS, "condition"))
        return result

    make(Stub(), None, 0)  # raises errors of the options before training
    return training.SamplerTraining(model, make, seed=seed, **trainer_options)


def describe(registry: Mapping[str, Callable], num_args: int = 0) -> str:
    """Return the names, the first lines of the docstrings, and the options with their defaults.

    Args:
        registry: mapping from names to classes or functions.
        num_args: int, default 0; the number of first parameters that aren't options.
    """
    return "\n".join(_describe_entry(name, entry, num_args) for name, entry in registry.items())


def _describe_entry(name: str, entry: Callable, num_args: int) -> str:
    lines = [*(entry.__doc__ or "").splitlines(), ""]
    options = [
        str(option.replace(annotation=option.empty))
        for option in options_of(entry, num_args).values()
        if option.name not in ("model", "seed")
    ]
    text = [f"  {name}", textwrap.fill(lines[0], 108, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    if options:
        wrapper = textwrap.TextWrapper(108, initial_indent=" " * 6, subsequent_indent=" " * 8, break_on_hyphens=False)
        text.append(wrapper.fill(", ".join(options)))
    return "\n".join(text)
