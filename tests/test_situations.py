"""What people put together, five ways: `model.fit`, switched off, by default, with pools and with rows by index."""

import pytest
from frameworks import needs
from situations import SITUATIONS
from ways import DEFAULT, OFF, POOLS, ROWS, assert_closed, assert_off, assert_plainly, assert_sampled, train

PARAMETERS = [
    pytest.param(name, marks=needs(situation.feature)) if situation.feature else name
    for name, situation in SITUATIONS.items()
]


@pytest.fixture(scope="module", params=PARAMETERS)
def case(request):
    """A situation, and what `model.fit` makes of it."""
    situation = SITUATIONS[request.param]
    return situation, train(situation.build)


@pytest.mark.parametrize("case", PARAMETERS[::4], indirect=True)  # the drop-in cases are many more
def test_switched_off_training_equals_model_fit_bit_for_bit_without_a_warning(case):
    situation, plain = case
    assert_off(plain, train(situation.build, OFF))


def test_by_default_training_equals_model_fit_or_the_loss_is_that_of_the_trained_model(case):
    situation, plain = case
    run = train(situation.build, DEFAULT)
    if not situation.sampled:
        assert_plainly(plain, run)
    else:
        (assert_sampled if run.trainer.importance_steps else assert_closed)(plain, run)


@pytest.mark.parametrize("case", PARAMETERS[::2], indirect=True)
def test_with_pools_the_loss_is_that_of_the_trained_model_or_one_warning_gives_the_reason(case):
    situation, plain = case
    (assert_sampled if situation.sampled else assert_plainly)(plain, train(situation.build, POOLS))


@pytest.mark.parametrize("case", PARAMETERS[1::2], indirect=True)
def test_with_rows_by_index_the_loss_is_that_of_the_trained_model_or_one_warning_gives_the_reason(case):
    situation, plain = case
    if situation.rows:
        (assert_sampled if situation.sampled else assert_plainly)(plain, train(situation.build, ROWS))
    else:
        with pytest.raises(ValueError, match="rows can be read by index"):
            train(situation.build, ROWS)
