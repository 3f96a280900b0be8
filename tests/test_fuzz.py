"""The first cases of the fuzz, in one way each; `python tests/fuzz.py` runs more of them, in every way."""

import pytest
from fuzz import Case, problems

CHUNK = 25


@pytest.mark.parametrize("chunk", range(4))
def test_every_way_trains_or_refuses_what_fit_does(chunk):
    found = {}
    for number in range(CHUNK * chunk, CHUNK * (chunk + 1)):
        case = Case(0, number)
        for way, text in problems(case).items():
            found[case.command(way)] = f"{case}\n    {way}: {text}"
    assert not found, "\n".join(f"{text}\n    again: {command}" for command, text in found.items())
