"""How far a `fit` has come: its own steps, those of the current epoch, and those of the current pass over the data."""

from __future__ import annotations

import dataclasses
import math

from importance_sampling.fit.fit_plan import FitPlan


@dataclasses.dataclass
class MeanNoise:
    """The gradient noise of importance steps, for the summary. Steps before the first measurement don't count.

    Attributes:
        steps: how many importance steps are in the mean.
        steps_by_noise: those of them that the gate took because gradient noise keeps the loss high.
        noises: the sum of their gradient variances, divided by those of uniform steps.
    """

    steps: int = 0
    steps_by_noise: int = 0
    noises: float = 0.0

    def add(self, steps: int, gain: float, by_noise: bool) -> None:
        """Add importance steps.

        Args:
            steps: their number.
            gain: their variance gain; NaN if it wasn't measured.
            by_noise: True if the gate took them because gradient noise keeps the loss high.
        """
        if gain > 0:  # not NaN
            self.steps += steps
            self.steps_by_noise += steps * by_noise
            self.noises += steps / gain

    @property
    def gain(self) -> float:
        """The variance gain that corresponds to the mean gradient noise; NaN if there are no steps."""
        return self.steps / self.noises if self.noises else math.nan

    @property
    def is_reason(self) -> bool:
        """True if the gate took most of the steps because gradient noise keeps the loss high."""
        return 2 * self.steps_by_noise > self.steps


@dataclasses.dataclass
class Progress:
    """The steps of one `fit`.

    An epoch ends where Keras ends it, and a pass where the data end: with `steps_per_epoch` a pass may last several
    epochs.

    Attributes:
        initial_epoch, epochs: the arguments of `fit`.
        steps_per_epoch: the argument of `fit`, or None.
        batches_per_pass: the number of uniform steps of a pass; 0 if only Keras's iterator knows.
        steps: all steps.
        importance_steps: those of them whose batches were drawn by scores.
        uniform_draws: those of them whose batches a sampler drew uniformly, for lack of scores.
        importance_cost: the cost of both in forward passes of a batch, with all scoring.
        noise: `MeanNoise` of the importance steps.
        first_importance_step: the number of steps before the first importance step; -1 if there was none.
        last_importance_step: the number of steps up to the last importance step; 0 if there was none.
        epoch: the number of the current epoch.
        epoch_length: the number of steps after which the epoch ends; 0 if Keras ends it.
        epoch_steps, epoch_importance_steps: steps of the current epoch.
        pass_steps: steps of the current pass.
    """

    initial_epoch: int = 0
    epochs: int = 1
    steps_per_epoch: int | None = None
    batches_per_pass: int = 0
    steps: int = 0
    importance_steps: int = 0
    uniform_draws: int = 0
    importance_cost: float = 0.0
    noise: MeanNoise = dataclasses.field(default_factory=MeanNoise)
    first_importance_step: int = -1
    last_importance_step: int = 0
    epoch: int = 0
    epoch_length: int = 0
    epoch_steps: int = 0
    epoch_importance_steps: int = 0
    pass_steps: int = 0

    @classmethod
    def of(cls, plan: FitPlan) -> Progress:
        """Return the progress of a `fit` before its first step."""
        names = ("initial_epoch", "epochs", "steps_per_epoch")
        return cls(**{name: plan.arguments[name] for name in names}, batches_per_pass=plan.batches_per_pass)

    def restart(self) -> None:
        """Count the steps of the `fit` anew, after the trainer's state was restored within it."""
        self.steps = self.importance_steps = self.uniform_draws = self.last_importance_step = 0
        self.importance_cost, self.noise, self.first_importance_step = 0.0, MeanNoise(), -1

    def begin_epoch(self, epoch: int, length: int) -> None:
        """Begin an epoch of a length, or of 0 if Keras ends it."""
        self.epoch, self.epoch_length = epoch, length
        self.epoch_steps = self.epoch_importance_steps = 0

    def begin_pass(self) -> None:
        """Begin a pass over the data."""
        self.pass_steps = 0

    def add(self, steps: int) -> None:
        """Count steps."""
        self.steps += steps
        self.epoch_steps += steps
        self.pass_steps += steps

    def add_importance(self, steps: int, uniform_draws: int, cost: float) -> int:
        """Count the steps of a strategy, before `add` counts them among all steps.

        Args:
            steps: their number.
            uniform_draws: those of them whose batches were drawn uniformly, which come first; they aren't importance
                steps.
            cost: of all of them, in forward passes of a batch.

        Returns:
            The number of importance steps.
        """
        self.uniform_draws += uniform_draws
        self.importance_cost += cost
        importance_steps = steps - uniform_draws
        if importance_steps:
            if self.first_importance_step < 0:
                self.first_importance_step = self.steps + uniform_draws
            self.last_importance_step = self.steps + steps
            self.importance_steps += importance_steps
            self.epoch_importance_steps += importance_steps
        return importance_steps

    def steps_of_execution(self, steps_per_execution: int) -> int:
        """Return how many steps Keras would take in this execution; at most that many if only its iterator knows."""
        steps = self.epoch_length or self.batches_per_pass or math.inf
        return min(steps_per_execution, steps - self.pass_steps)

    @property
    def strategy_steps(self) -> int:
        """The number of steps that the strategy has taken: importance steps, and those drawn uniformly."""
        return self.importance_steps + self.uniform_draws

    @property
    def epoch_ends_early(self) -> bool:
        """True if the epoch is over although the pass isn't."""
        return 0 < self.epoch_length == self.pass_steps < self.batches_per_pass

    @property
    def pass_is_over(self) -> bool:
        """True if the next execution begins a pass, for backends whose iterators don't show it."""
        if self.steps_per_epoch:
            return 0 < self.batches_per_pass <= self.pass_steps
        return self.epoch_steps == 0

    @property
    def steps_left(self) -> float:
        """The number of steps left in the `fit`; infinity if only Keras's iterator knows."""
        return (self.epochs - self.epoch) * self._epoch_steps() - self.epoch_steps

    @property
    def share_done(self) -> float:
        """The share of the epochs of the `fit` that is done, in [0, 1]."""
        epochs_done = self.epoch - self.initial_epoch + self.epoch_steps / self._epoch_steps()
        return epochs_done / max(self.epochs - self.initial_epoch, 1)

    def _epoch_steps(self) -> float:
        """Return the steps of an epoch; infinity if only Keras's iterator knows."""
        return self.steps_per_epoch or self.batches_per_pass or math.inf
