"""What the library has, by name: data sets, models, and ways to train. Names and options are written as in `specs`.

A new trainer, sampler or data set is a line here.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras

from importance_sampling import conditions, datasets, samplers, training
from importance_sampling.comparison.specs import Part, call, lookup, options_of, parse
from importance_sampling.comparison.two_rows import TwoRows
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
    """Augmented copies of the training images, N of them or ten of each; shifts are shares, angles degrees."""
    ranges = dict(horizontal_flip=horizontal_flip, vertical_flip=vertical_flip, fill_mode=fill_mode)
    ranges |= dict(width_shift_range=width_shift_range, height_shift_range=height_shift_range)
    ranges |= dict(rotation_range=rotation_range, shear_range=shear_range, zoom_range=zoom_range)
    return datasets.OntheflyAugmentedImages(dataset, ranges, N, random_state, cache_size)


Way = Callable[[keras.Model, int], Any]  # from a compiled model and a seed to whatever has Keras's `fit`

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
    "history": training.HistoryImportanceTraining,
    "online-batch-selection": training.OnlineBatchSelection,
    "approximate": training.ApproximateImportanceTraining,
    "svrg": training.SVRG,
    "katyusha": training.Katyusha,
}
SAMPLERS = {
    "uniform-sampler": samplers.UniformSampler,
    "model-sampler": samplers.ModelSampler,
    "history-sampler": samplers.HistorySampler,
    "reshuffle-sampler": samplers.ReshuffleSampler,
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
    """A data set as written, such as `mnist`, `canevet,N=512` or `cifar10+augmented,horizontal_flip=True`.

    Args:
        text: str, a name of `DATASETS` with its options, and names of `VIEWS` with theirs.
        path: what it is read from, where it reads anything and has no option `path`.

    Raises:
        ValueError: a name or an option isn't known, or is out of its range.
    """
    first, *views = parse(text)
    if path is not None and "path" in options_of(lookup(first.name, DATASETS, "data set")):
        first = Part(first.name, {"path": path} | first.options)
    made = call(first, DATASETS, "data set")
    for view in views:
        made = call(view, VIEWS, "view of a data set", made)
    return made


def way(text: str) -> Way:
    """A way to train as written, such as `importance,presample=5` or `history-sampler+power,power=0.5`.

    Args:
        text: str, `uniform`; a name of `TRAINERS` with its options; or a name of `SAMPLERS` with its own, perhaps those
            of `sampled`, and names of `SMOOTHING` and `CONDITIONS` with theirs.

    Raises:
        ValueError: a name isn't known. Options are checked when it is called.
    """
    first, *around = parse(text)
    lookup(first.name, {UNIFORM: None} | TRAINERS | SAMPLERS, "way to train")
    if first.name in SAMPLERS:
        for part in around:
            lookup(part.name, SMOOTHING | CONDITIONS, "decorator of a sampler")
        return lambda model, seed: sampled(model, seed, first, around)
    if around:
        raise ValueError(f"Only samplers can be decorated: {', '.join(SAMPLERS)}. Received: {text!r}")
    if first.name == UNIFORM:
        return lambda model, seed: call(first, {UNIFORM: lambda model: model}, "way to train", model)
    return lambda model, seed: call(first, TRAINERS, "trainer", model, seed=seed)


def sampled(model: keras.Model, seed: int, sampler: Part, around: list[Part]) -> training.SamplerTraining:
    """A trainer of a sampler; beside the sampler's options it has `k`, of its weights, and `SamplerTraining`'s.

    k is a float of at most 1, default 1, unbiased; None: every weight is 1.
    """
    of_trainer = {name: sampler.options[name] for name in ("score", "layer", "tau_th") if name in sampler.options}
    k = sampler.options.get("k", 1.0)
    policy = UNWEIGHTED if k is None else UNBIASED if k == 1 else BiasedReweightingPolicy(k)
    left = Part(sampler.name, {name: v for name, v in sampler.options.items() if name not in (*of_trainer, "k")})

    def make(rows: Any, _: Any, seed: int) -> BaseSampler:
        made = call(left, SAMPLERS, "sampler", rows, policy, model=rows, seed=seed)
        for part in around:
            if part.name in SMOOTHING:
                made = call(part, SMOOTHING, "decorator", made)
            else:
                made = ConditionalStartSampler(made, call(part, CONDITIONS, "condition"))
        return made

    make(TwoRows(), None, 0)
    return training.SamplerTraining(model, make, seed=seed, **of_trainer)


def described(known: Mapping[str, Callable], given: int = 0) -> str:
    """For each name what its class says of it, and its options with their defaults.

    Args:
        known: from names to classes or functions.
        given: int, how many of the first arguments are no options.
    """
    return "\n".join(_described(name, one, given) for name, one in known.items())


def _described(name: str, one: Callable, given: int) -> str:
    lines = [*(one.__doc__ or "").splitlines(), ""]
    options = [
        str(option.replace(annotation=option.empty))
        for option in options_of(one, given).values()
        if option.name not in ("model", "seed")
    ]
    text = [f"  {name}", textwrap.fill(lines[0], 108, initial_indent=" " * 6, subsequent_indent=" " * 6)]
    if options:
        wide = textwrap.TextWrapper(108, initial_indent=" " * 6, subsequent_indent=" " * 8, break_on_hyphens=False)
        text.append(wide.fill(", ".join(options)))
    return "\n".join(text)
