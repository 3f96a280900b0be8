"""The first cases of the fuzz, in one way each, and how it makes a failing case simpler.

`python tests/fuzz.py` runs more cases, in every way.
"""

import fuzz
import pytest
from fuzz import Case, problems, simplest

from importance_sampling import ImportanceTraining

CHUNK = 25


@pytest.mark.parametrize("chunk", range(4))
def test_every_way_trains_or_refuses_what_fit_does(chunk):
    found = {}
    for number in range(CHUNK * chunk, CHUNK * (chunk + 1)):
        case = Case(0, number)
        for way, text in problems(case).items():
            found[case.command(way)] = f"{case}\n    {way}: {text}"
    assert not found, "\n".join(f"{text}\n    again: {command}" for command, text in found.items())


def failing_on(**faulty):
    """Return a stand-in for `problems`: cases with some values fail, and linear models in another way."""

    def find(case, ways):
        if case["model"] == "linear":
            return dict.fromkeys(ways, "another fault")
        is_found = all(case[name] in values for name, values in faulty.items())
        return dict.fromkeys(ways, f"loss 0.{case.number} of a fault") if is_found else {}

    return find


def unusual(number=0):
    changes = dict(model="attention", loss="huber", callbacks="plateau", epochs="two", x="frames", weights="both")
    return Case(5, number, changes | dict(structure="one", optimizer="adam", metrics="metrics", shuffle="off"))


@pytest.mark.fast
def test_a_failing_case_is_reduced_to_the_choices_that_it_fails_by():
    find = failing_on(loss=["mse", "huber"], epochs=["two"], model=["attention", "dropout"])
    case, text = simplest(unusual(), "rows", find(unusual(), ["rows"])["rows"], find)
    assert text == "loss 0.0 of a fault" and find(case, ["rows"]) == {"rows": text}
    first = {name: fuzz.values_of(name)[0] for name in fuzz.CHOICES}
    # A linear model fails too, but in another way.
    assert dict(case) == first | dict(loss="mse", epochs="two", model="dropout")


@pytest.mark.fast
def test_a_case_is_drawn_again_from_its_command():
    case = Case(5, 7, dict(loss="huber", validation_split="quarter", model="two inputs", graph=True))
    words = case.command("rows").split(" --set ")
    assert words[0] == "python tests/fuzz.py --seed 5 --first 7 --cases 1 --way rows"
    assert words[1] == "loss=huber validation_split=quarter 'model=two inputs' graph=True"
    again = Case(5, 7, fuzz.parsed(["loss=huber", "validation_split=quarter", "model=two inputs", "graph=True"]))
    assert again == case and again.ways == case.ways
    with pytest.raises(SystemExit, match=r"--set must be a value of loss: classes.*Received: loss=none"):
        fuzz.parsed(["loss=none"])
    with pytest.raises(SystemExit, match=r"--set must be a choice: model.*Received: colour=red"):
        fuzz.parsed(["colour=red"])


@pytest.mark.fast
def test_the_line_of_a_case_shows_every_odd_value():
    for name, (usual, *odd) in fuzz.CHOICES.items():
        for value in set(odd[0] if odd else []) - set(usual):
            case = Case(5, 0, dict(x="arrays", structure="one") | {name: value})
            assert f" {name}={value}" in str(case).replace(",", "")


def test_data_of_fewer_rows_than_keras_default_batch_size_may_stay_uniform():
    arguments = dict(model="dense", loss="mse", structure="one", kind="functional", x="arrays", y="whole")
    arguments |= dict(weights="none", validation="none", optimizer="sgd", callbacks="none", epochs="one")
    arguments |= {name: values[0][0] for name, values in fuzz.CHOICES.items() if name not in arguments}
    for batch_size in ("none", "zero"):
        assert problems(Case(25, 67, arguments | dict(batch_size=batch_size)), ["pools", "rows"]) == {}


@pytest.mark.fast
def test_every_case_ends_though_its_data_may_not():
    cases = [Case(23, number) for number in range(500)]
    steps = {case["steps_per_epoch"] for case in cases if case["x"].startswith("endless")}
    assert steps == {"two", "seven"}


def test_a_fault_in_the_library_is_found_and_the_command_of_the_simplest_case_finds_it_again(monkeypatch, capsys):
    fit = ImportanceTraining.fit

    def faulty(self, *arguments, **options):
        if options.get("sample_weight") is not None and self.condition.probes:
            raise ZeroDivisionError("planted")
        return fit(self, *arguments, **options)

    monkeypatch.setattr(ImportanceTraining, "fit", faulty)
    changes = ["weights=rows", "x=arrays", "model=dropout", "epochs=one", "optimizer=adam", "y=whole"]
    changes += ["kind=functional", "structure=one", "loss=mse", "validation=none", "batch_size=some"]
    assert fuzz.main(["--seed", "1", "--first", "2", "--cases", "1", "--way", "rows", "--set", *changes]) == 1
    printed = capsys.readouterr().out.splitlines()
    assert "raises ZeroDivisionError: planted, where `model.fit` goes well" in printed[1]
    assert printed[-1].endswith("1 failed: [2]")
    (simple,) = [line for line in printed if line.startswith("    simplest: ")]
    assert simple.endswith(
        ": model=linear, loss=classes, optimizer=sgd, x=arrays, weights=rows, handed_over=list, batch_size=some"
    )
    words = printed[-2].partition(" tests/fuzz.py ")[2].split()
    assert fuzz.main(words) == 1
    assert "weights=rows" in capsys.readouterr().out
