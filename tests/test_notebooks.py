"""The notebooks run from top to bottom, on few rows and epochs; what they show was computed by their own cells."""

import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
# Packages that a notebook needs, and what makes it short.
NOTEBOOKS = {
    "quick_start": (
        ["sklearn", "matplotlib"],
        {"[::2, ::2]": "[::16, ::16]", "epochs=6": "epochs=1", "seconds=5, seeds=3": "epochs=1, seeds=1"},
    ),
    "wrong_labels": (
        ["sklearn", "matplotlib", "cleanlab"],
        {"EPOCHS = 60": "EPOCHS = 2", "epochs=20": "epochs=2", "epochs=12": "epochs=1"},
    ),
}


def cells(name):
    notebook = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def text(outputs):
    parts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs]
    return "".join("".join(part) for part in parts)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:May not flag all label issues")  # cleanlab's, of rare classes
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_from_top_to_bottom(name, tmp_path, monkeypatch):
    packages, shorter = NOTEBOOKS[name]
    for package in packages:
        pytest.importorskip(package, reason=f"{package} isn't installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    code = "\n".join("".join(cell["source"]) for cell in cells(name))
    for long, short in shorter.items():
        assert long in code
        code = code.replace(long, short)
    names = {}
    try:
        exec(compile(code, f"{name}.ipynb", "exec"), names)
    finally:
        names["plt"].close("all")


def test_the_notebooks_were_run_in_order_and_show_their_results():
    for name in NOTEBOOKS:
        counts = [cell["execution_count"] for cell in cells(name)]
        assert counts == list(range(1, len(counts) + 1))
        assert not any(output["output_type"] == "error" for cell in cells(name) for output in cell["outputs"])
    assert "times sooner (3 seeds" in text(output for cell in cells("quick_start") for output in cell["outputs"])
    assert "ReducibleLossTraining" in text(output for cell in cells("wrong_labels") for output in cell["outputs"])
    assert set(NOTEBOOKS) == {path.stem for path in FOLDER.glob("*.ipynb")}
