"""`ReducibleLossTraining`: train on samples that can still be learnt, and leave out those with wrong labels. Biased.

Source: [M22] Mindermann et al., Prioritized Training on Points that are Learnable, Worth Learning, and Not Yet Learnt,
ICML 2022 (arXiv 2206.07137).
"""

from __future__ import annotations

from typing import Any

import keras

from importance_sampling.conditions import gate
from importance_sampling.events import Listeners
from importance_sampling.fit.controller import FitController
from importance_sampling.fit.fit_plan import FitPlan
from importance_sampling.fit.trainer import Trainer
from importance_sampling.labels import OutOfSample
from importance_sampling.samplers.selective import HighestSampler
from importance_sampling.strategies.base import Strategy
from importance_sampling.strategies.irreducible_loss import IrreducibleLoss
from importance_sampling.strategies.reducible_loss import ReducibleLossStrategy, check_holdout, check_losses
from importance_sampling.utils.validation import check_positive, check_presample

TRAINED_WARNING = (
    "The copies of the model start from weights that have been trained. If they were trained on these labels, wrong "
    "labels aren't recognised: use a new model, or pass `irreducible_loss`"
)


class ReducibleLossTraining(Trainer):
    """Train on the samples whose loss can still fall: wrong labels are left out. Biased: weights are 1, on purpose.

    The irreducible loss of a sample is its loss under a model that hasn't seen its label. By default, two copies of the
    model are trained, each on one half of the data, until their loss on the other half no longer falls, and each scores
    the other half. Then every step scores a pool of `presample` batches and trains on the batch of samples with the
    largest loss minus irreducible loss. A sample with a wrong label has a high loss under both models, and a sample
    that has been learnt has a low one, so neither is selected. Sample weights and class weights multiply both losses;
    samples with a weight of 0 are selected last.

    A step costs 1 + presample/3 uniform steps, from the first step on, and each epoch of both copies costs 4/3 of an
    epoch of `model.fit`. It pays off if training is long enough to memorise wrong labels; it loses on clean data and in
    short training. The training loss in History includes the wrong labels and stays high. Use validation data with
    correct labels to decide when to stop and to compare.

    Args:
        model: a compiled `keras.Model`; `fit` trains this object. It must not have been trained on these labels.
        presample: float >= 1, default 2; candidates per selected sample. The share of wrong labels should be below
            1 - 1/presample.
        irreducible_loss: float `(rows,)` or None, default None; your own irreducible losses, in the unit of the loss.
            No copies are trained then.
        holdout: `(x, y)` or `(x, y, sample_weight)`, or None (default); a data set to train a single copy on, instead
            of the halves.
        copy_epochs: int >= 1 or None, default None; the largest number of epochs for a copy. None: a quarter of the
            epochs of the first `fit`, at most 10; set it for `fit(epochs=1)` in a loop.
        forward_batch_size, seed: as for `ImportanceTraining`.

    Raises:
        ValueError: an argument is out of its range; in `fit`, the data have no row indices, or Keras can't copy the
            model.

    Example:
        >>> trainer = ReducibleLossTraining(model)
        >>> trainer.fit(x_train, noisy_labels, batch_size=128, epochs=20)
        >>> suspicion = label_suspicion(noisy_labels, trainer.out_of_sample.probabilities)

    Source: [M22], Algorithm 1; section 4.2 for the halves.
    """

    needs_rows = True

    def __init__(
        self,
        model: keras.Model,
        presample: float = 2.0,
        *,
        irreducible_loss: Any = None,
        holdout: tuple | None = None,
        copy_epochs: int | None = None,
        forward_batch_size: int | None = None,
        seed: int | None = None,
    ):
        check_presample(presample)
        if irreducible_loss is not None and holdout is not None:
            raise ValueError(
                "Pass only one of `irreducible_loss` and `holdout`: both say where the irreducible losses come from. "
                "Received: both"
            )
        if copy_epochs is not None:
            check_positive(copy_epochs=copy_epochs)
        values = None if irreducible_loss is None else check_losses(irreducible_loss)
        holdout = None if holdout is None else check_holdout(holdout)
        super().__init__(model, gate(0.0), forward_batch_size=forward_batch_size, score="loss", seed=seed)
        self.presample = float(presample)
        self.copy_epochs = copy_epochs
        self._irreducible = IrreducibleLoss(values, holdout, copy_epochs)

    @property
    def out_of_sample(self) -> OutOfSample | None:
        """The losses and outputs of the copies for each sample of the last training set.

        None if no copies were trained: with `irreducible_loss`, and in a run that continues from a saved state. The
        outputs are kept for classifiers with up to 1,000 classes.
        """
        return self._irreducible.measured

    def _make_controller(self, arguments: dict, listeners: Listeners) -> FitController:
        controller = super()._make_controller(arguments, listeners)
        if self._irreducible.copies_trained_model and controller.gating.is_possible:
            controller.deferred.add(TRAINED_WARNING)
        return controller

    def _rows_needed(self, plan: FitPlan, batch_size: int) -> int:
        return round(self.presample * batch_size)

    def _make_strategy(self, plan: FitPlan, batch_size: int) -> Strategy:
        sampler = HighestSampler(self._rows_needed(plan, batch_size), batch_size)
        return ReducibleLossStrategy(self._irreducible, self.model, sampler, self._state, self._scoring)
