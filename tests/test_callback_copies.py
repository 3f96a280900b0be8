"""The files of callbacks in a comparison: every run has a folder of its own, and the user's files aren't touched."""

from pathlib import Path

import keras
import numpy as np
import pytest

from importance_sampling import ImportanceTraining
from importance_sampling.callbacks import SamplingTensorBoard
from importance_sampling.comparison import train, user_task
from importance_sampling.comparison.callback_copies import copies_of

callbacks = keras.callbacks
RNG = np.random.default_rng(0)
X = RNG.normal(size=(64, 6)).astype("float32")
Y = X[:, :3].argmax(1)
SEEN = []  # of the copies of `Watching`: whether the files are there, and the weights at the beginning


def build():
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, "softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


class Checkpoint(callbacks.ModelCheckpoint):
    """A subclass, as the user may have one."""


class Watching(callbacks.Callback):
    """Notes the weights at the beginning and the files at the end of an epoch."""

    def __init__(self, checkpoint, log, backup):
        super().__init__()
        self.others = checkpoint, log, backup

    def on_train_begin(self, logs=None):
        SEEN.append(self.model.get_weights()[0].copy())

    def on_epoch_end(self, epoch, logs=None):
        checkpoint, log, backup = self.others
        paths = [Path(checkpoint.filepath), Path(log.filename), Path(backup.backup_dir) / "latest.weights.h5"]
        assert all(path.exists() for path in paths), paths
        assert Path(log.filename).read_text().count("epoch") == 1
        SEEN.append(paths)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """Return a folder of the user's files, which is the current folder."""
    monkeypatch.chdir(tmp_path)
    SEEN.clear()
    (tmp_path / "prod.keras").write_text("precious")
    (tmp_path / "log.csv").write_text("epoch,loss\n0,1.0\n")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("fails", [False, True])
def test_runs_share_no_files_and_leave_those_of_the_user_as_they_are(fails, here):
    backup = callbacks.BackupAndRestore("backup", save_freq=1, delete_checkpoint=False)
    backed_up = build()
    backed_up.set_weights([np.full((6, 3), 7.0), np.zeros(3)])
    (here / "backup").mkdir()
    backed_up.save_weights("backup/latest.weights.h5")
    before = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    checkpoint, log = Checkpoint("prod.keras"), callbacks.CSVLogger("log.csv", append=True)
    own = [checkpoint, log, [backup], Watching(checkpoint, log, backup)]
    if fails:
        own.append(callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: 1 / (1 - epoch)))
    models = [build(), build()]
    start = models[0].get_weights()[0].copy()
    trainers = [models[0], ImportanceTraining(models[1], tau_th=0.0)]
    arguments = dict(x=X, y=Y, batch_size=32, callbacks=own)
    if fails:
        with pytest.raises(ZeroDivisionError):
            train(trainers, arguments, lambda model: {"loss": 0.0}, budget=2, by="epochs")
    else:
        train(trainers, arguments, lambda model: {"loss": 0.0}, budget=2, by="epochs")
    weights = [seen for seen in SEEN if isinstance(seen, np.ndarray)]
    paths = [path for seen in SEEN if isinstance(seen, list) for path in seen]
    for one in weights:
        np.testing.assert_array_equal(one, start)
    assert len(weights) == 2 and len(set(paths)) == 6
    assert not any(path.parent.parent.exists() for path in paths)
    assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == before
    assert (checkpoint.filepath, log.filename, backup.backup_dir) == ("prod.keras", "log.csv", "backup")


@pytest.mark.parametrize(
    ("make", "attribute", "name"),
    [
        (lambda: callbacks.ModelCheckpoint("runs/{epoch}-{loss:.2f}.keras"), "filepath", "{epoch}-{loss:.2f}.keras"),
        (lambda: callbacks.ModelCheckpoint(Path("a.weights.h5"), save_weights_only=True), "filepath", "a.weights.h5"),
        (lambda: callbacks.BackupAndRestore("runs/backup/"), "backup_dir", "backup"),
        (lambda: callbacks.CSVLogger(Path("log.csv")), "filename", "log.csv"),
        (lambda: callbacks.TensorBoard("epoch"), "log_dir", "epoch"),
        (lambda: callbacks.TensorBoard("."), "log_dir", "log_dir"),
        (lambda: SamplingTensorBoard("logs"), "log_dir", "logs"),
    ],
)
def test_a_callback_that_writes_files_has_a_path_in_a_temporary_folder(make, attribute, name):
    original = make()
    with copies_of([original]) as [copied]:
        path = Path(getattr(copied, attribute))
        assert path.name == name and path.parent.is_dir() and path.is_absolute()
        assert type(getattr(copied, attribute)) is type(getattr(original, attribute))
        paths = {key: value for key, value in vars(copied).items() if isinstance(value, (str, Path))}
        changed = {key for key, value in paths.items() if value != vars(original)[key]}
        assert all(str(path) in str(vars(copied)[key]) for key in changed) and attribute in changed
        assert len(changed) == (5 if isinstance(original, callbacks.BackupAndRestore) else 1)
    assert not path.parent.exists()


def test_callbacks_that_write_no_files_are_copied_as_they_are():
    own = [callbacks.EarlyStopping("loss"), callbacks.SwapEMAWeights(), callbacks.History()]
    with copies_of(own) as copies:
        assert [type(one) for one in copies] == [type(one) for one in own]
        assert copies[0] is not own[0] and copies[0].monitor == "loss"


def test_an_orbax_checkpoint_is_refused_before_training(monkeypatch):
    class OrbaxCheckpoint(callbacks.Callback):
        pass

    monkeypatch.setattr(callbacks, "OrbaxCheckpoint", OrbaxCheckpoint, raising=False)
    with pytest.raises(ValueError, match=r"can't contain an `OrbaxCheckpoint`.* or use a `ModelCheckpoint`"):
        user_task.compare(build, X, Y, callbacks=[OrbaxCheckpoint()])
