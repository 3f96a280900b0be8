"""The first cases of the fuzz, in one way each; `python tests/fuzz.py` runs more of them, in every way."""

import pytest
from fuzz import Case, problems

CHUNK = 25


@pytest.mark.parametrize("chunk", range(4))
def test_every_way_trains_or_refuses_what_fit_does(chunk):
    found = {}
    for number in range(CHUNK * chunk, CHUNK * (chunk + 1)):
        case = Case(0, number)
        wrong = problems(case)
        if wrong:
            found[str(case)] = wrong
    assert not found, "\n".join(f"{case}\n    " + "\n    ".join(wrong) for case, wrong in found.items())
