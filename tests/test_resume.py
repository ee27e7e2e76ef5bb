"""An interrupted training goes on as if nothing had happened, whatever interrupted it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

# A training like the notebook's, on 64 random pictures and a network of a few weights. Validation
# pictures are random too, so accuracy stalls: the learning rate drops and EarlyStopping counts.
TRAINING = """
import os, signal, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
from pathlib import Path
import keras, numpy as np, pandas as pd
import resume_training
from keras import layers

folder, epochs, accident = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
SEED = 7
photo_folder = folder.parent / "photos"
photo_folder.mkdir(exist_ok=True)
for name in "ab":
    (photo_folder / name).write_text("stands for a photo")

class Generator(keras.utils.PyDataset):
    def __init__(self, seed, changing=False):
        super().__init__()
        random = np.random.default_rng(seed)
        self.table = pd.DataFrame({"filename": ["a", "b"], "label": ["cat", "dog"]})
        self.folder, self.epoch = photo_folder, 0
        self.pixels = random.random((64, 8, 8, 3), dtype="float32")
        self.changed, self.changing = self.pixels.copy(), changing
        self.answers = np.eye(2)[random.integers(0, 2, 64)]
    def __len__(self):
        return 4
    def on_epoch_end(self):
        self.epoch += 1
    def __getitem__(self, index):
        rows = np.random.default_rng([SEED, self.epoch]).permutation(64)[16 * index :][:16]
        if self.changing:  # one half anew in each epoch, the other half as in the epoch before
            new = rows[(rows + self.epoch) % 2 == 0]
            random = np.random.default_rng([SEED, self.epoch, index])
            self.changed[new] = self.pixels[new] * random.uniform(0.8, 1.2, (len(new), 1, 1, 1))
        return self.changed[rows], self.answers[rows]

def die():
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

class Accident(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        if accident == "weights that are NaN" and epoch == 4:
            self.model.layers[0].kernel.assign(np.full((3, 3, 3, 4), np.nan))
        nan_answer = accident == "an answer that is NaN" and epoch == 4
        train.answers[0] = np.nan if nan_answer else first_answer
        if accident == "a full disk" and epoch == 4:  # files of more than 100 bytes fail
            import resource
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    def on_train_batch_begin(self, batch, logs=None):
        if accident == "in mid-epoch" and self.epoch == 4 and batch == 2:
            die()
        if accident == "the stop button" and self.epoch == 4 and batch == 2 and not stops:
            stops.append(True)
            raise KeyboardInterrupt

stops = []
replace, replaced = os.replace, []
def replace_or_die(source, target):
    replaced.append(target)
    if accident == "between two writes" and len(replaced) == 10:  # the model of epoch 5
        die()
    replace(source, target)
os.replace = replace_or_die

keras.utils.set_random_seed(SEED)
model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.BatchNormalization(),
    layers.Flatten(), layers.Dropout(0.25), layers.Dense(2, activation="softmax")])
optimizer = keras.optimizers.RMSprop(0.02, use_ema=True, ema_momentum=0.5)
optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
model.compile(optimizer, loss="categorical_crossentropy", metrics=["accuracy"])
stopping = keras.callbacks.EarlyStopping("val_accuracy", mode="max", patience=5,
    restore_best_weights=True)
reduction = keras.callbacks.ReduceLROnPlateau("val_accuracy", mode="max", patience=2, factor=0.5)
resume = resume_training.ResumeTraining(folder, stopping, reduction)
train, validation = Generator(1, changing=True), Generator(2)
first_answer = train.answers[0].copy()
for attempt in range(2):  # the second one after the stop button
    first = resume.start(model, train, validation, epochs, {"seed": SEED})
    try:
        history = model.fit(train, validation_data=validation, epochs=epochs, initial_epoch=first,
            callbacks=[resume, keras.callbacks.SwapEMAWeights(swap_on_epoch=True), stopping,
                reduction, Accident()], shuffle=False, verbose=0)
        break
    except KeyboardInterrupt:
        print("stopped by hand")
print("history", len(history.history["val_accuracy"]), "log", len(resume.log))
print("left out", 4 * len(resume.log) - int(model.optimizer.iterations.numpy()))
print("kept", model.evaluate(validation, verbose=0)[1], "best", resume.log["val_accuracy"].max())
"""


def run(script, folder, epochs, accident):
    """Run a training script in a process of its own."""
    data = Path(__file__).resolve().parents[1] / "data"
    return subprocess.run(
        [sys.executable, "-c", script, str(folder), str(epochs), accident],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(data)},
        timeout=180,
    )


def train(folder, epochs=30, accident="none"):
    """Run the training; return its exit status and what it printed."""
    done = run(TRAINING, folder, epochs, accident)
    if accident == "none":
        assert done.returncode == 0, done.stderr
    return done.returncode, done.stdout


def log_of(folder):
    """Return the training log below `folder`, without its times."""
    (file,) = folder.glob("*/training_log.csv")
    return pd.read_csv(file).drop(columns=["seconds", "finished"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "outputs"
    _, printed = train(folder)
    return log_of(folder), printed


ACCIDENTS = ["in mid-epoch", "between two writes", "the stop button", "a full disk"]


@pytest.mark.parametrize("accident", ACCIDENTS)
def test_an_interrupted_training_goes_on_like_an_undisturbed_one(undisturbed, tmp_path, accident):
    if accident == "a full disk":
        pytest.importorskip("resource", reason="Windows cannot limit the size of files")
    expected, _ = undisturbed
    folder = tmp_path / "outputs"

    status, printed = train(folder, accident=accident)
    before = log_of(folder).head(4)
    if accident == "the stop button":  # goes on in the same process, with the same model
        assert status == 0 and "stopped by hand" in printed
    elif accident == "a full disk":  # trains to the end; later epochs are lost
        assert status == 0 and "Epoch 5 could not be saved in" in printed
        _, printed = train(folder)
    else:
        assert status != 0
        _, printed = train(folder)

    log = log_of(folder)
    assert "It goes on with epoch 5." in printed
    pd.testing.assert_frame_equal(log.head(4), before)
    assert len(log) == len(expected) < 30, "EarlyStopping must count on"
    assert list(log["epoch"]) == list(range(1, len(log) + 1)), "no gap, nothing twice"
    assert list(log["learning_rate"]) == pytest.approx(list(expected["learning_rate"]))
    assert log["learning_rate"].nunique() > 1, "the rate must have dropped for this to say much"
    assert list(log["loss"]) == pytest.approx(list(expected["loss"]), abs=0.001)
    assert f"history {len(log)} log {len(log)}" in printed


def test_weights_that_are_nan_are_not_saved(undisturbed, tmp_path):
    expected, _ = undisturbed
    folder = tmp_path / "outputs"
    status, _ = train(folder, accident="weights that are NaN")
    assert status != 0
    assert len(log_of(folder)) == 4

    _, printed = train(folder, epochs=6)
    assert "It goes on with epoch 5." in printed
    log = log_of(folder)
    assert list(log["loss"]) == pytest.approx(list(expected["loss"].head(6)), abs=0.001)


def test_a_correction_that_is_nan_is_left_out(undisturbed, tmp_path):
    expected, _ = undisturbed
    status, printed = train(tmp_path / "outputs", epochs=6, accident="an answer that is NaN")
    assert status == 0
    assert "left out 1\n" in printed
    log = log_of(tmp_path / "outputs")
    # The batch that was lost makes the epoch's mean training loss NaN as well; all else is well.
    assert list(log["loss"].isna()) == [False, False, False, False, True, False]
    assert list(log["val_loss"]) == pytest.approx(list(expected["val_loss"].head(6)), abs=0.2)


def test_the_best_weights_are_kept(undisturbed):
    log, printed = undisturbed
    assert log["val_accuracy"].iloc[-1] < log["val_accuracy"].max(), "the last must not be the best"
    words = printed.split()
    kept, best = float(words[words.index("kept") + 1]), float(words[words.index("best") + 1])
    assert kept == pytest.approx(best, abs=0.02)


def test_a_finished_training_is_loaded_and_more_epochs_continue_it(tmp_path):
    folder = tmp_path / "outputs"
    train(folder, epochs=2)
    first = log_of(folder)

    _, printed = train(folder, epochs=2)
    assert "loaded instead of training again" in printed
    assert "history 2 log 2" in printed
    pd.testing.assert_frame_equal(log_of(folder), first)

    _, printed = train(folder, epochs=3)
    assert "It goes on with epoch 3." in printed
    pd.testing.assert_frame_equal(log_of(folder).head(2), first)
    assert len(log_of(folder)) == 3


def test_a_damaged_model_file_costs_epochs_not_the_training(undisturbed, tmp_path):
    expected, _ = undisturbed
    source = tmp_path / "outputs"
    train(source, epochs=6)
    *_, before_last, last = sorted(source.glob("*/epoch-*.keras"))
    best = source.glob(f"*/epoch-{expected['val_accuracy'].head(6).idxmax() + 1:03}.keras")
    for damaged, goes_on in [([last], 6), ([*best], 7), ([*best, last], 6), ([before_last], 7)]:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}" / "outputs"
        shutil.copytree(source, folder)
        copies = [folder / path.relative_to(source) for path in damaged]
        for copy in copies:
            copy.write_bytes(copy.read_bytes()[:20_000])

        _, printed = train(folder, epochs=7)
        assert f"It goes on with epoch {goes_on}." in printed
        for copy in copies:
            assert f"{copy.name} cannot be used" in printed
            replaced = copy.name == last.name
            assert replaced or copy.stat().st_size == 20_000, "it must be left as it is"
        losses = list(log_of(folder)["loss"])
        assert losses == pytest.approx(list(expected["loss"].head(7)), abs=0.001)


def test_when_all_model_files_are_damaged_training_starts_anew_and_the_log_is_kept(tmp_path):
    folder = tmp_path / "outputs"
    train(folder, epochs=2)
    before = log_of(folder)
    for file in folder.glob("*/epoch-*.keras"):
        file.write_bytes(b"damaged")

    _, printed = train(folder, epochs=1)
    assert "Training starts anew." in printed
    (kept,) = folder.glob("*/training_log_before.csv")
    pd.testing.assert_frame_equal(pd.read_csv(kept).drop(columns=["seconds", "finished"]), before)
    assert len(log_of(folder)) == 1


@pytest.mark.parametrize(
    ("piece", "change"),
    [
        ("stands for a photo", "stands for another photo"),
        ("patience=2, factor=0.5", "patience=2, factor=0.2"),
        ("layers.Dropout(0.25)", "layers.Dropout(0.5)"),
        ("8, 8, 3", "9, 9, 3"),
    ],
)
def test_another_training_is_left_alone(tmp_path, piece, change):
    folder = tmp_path / "outputs"
    train(folder, epochs=1)
    (old,) = folder.iterdir()
    content = {path.name: path.read_bytes() for path in old.iterdir()}

    changed = TRAINING.replace(piece, change)
    assert changed != TRAINING
    done = run(changed, folder, 1, "none")
    assert "(1 of other kinds lie in" in done.stdout, done.stderr
    assert {path.name: path.read_bytes() for path in old.iterdir()} == content


def test_a_full_disk_is_said_and_leaves_whole_files(tmp_path, capsys):
    from resume_training import ResumeTraining, write_aside

    def full(path):
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    file = tmp_path / "epoch-001.keras"
    file.write_bytes(b"whole")
    with pytest.raises(OSError, match="No space left"):
        write_aside(file, full)
    assert file.read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == [file.name]

    class Model:
        """What the callback needs of a model, with a disk that is full."""

        save = staticmethod(full)
        layers = ()
        get_weights = staticmethod(list)
        optimizer = type("Optimizer", (), {"learning_rate": 0.001})

    callback = ResumeTraining(tmp_path, None, None)
    callback.set_model(Model())
    callback.folder, callback.must_replay, callback.log = tmp_path, False, pd.DataFrame()
    callback.on_epoch_begin(0)
    callback.on_epoch_end(0, {"val_accuracy": 0.5})
    said = capsys.readouterr().out
    assert "could not be saved" in said and "No space left on device" in said
    assert file.read_bytes() == b"whole"


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    folder = tmp_path / "outputs"
    folder.write_text("a file where the folder should be")
    done = run(TRAINING, folder, 1, "none")
    assert "The training cannot be saved in" in done.stderr
    assert "OUTPUT_FOLDER" in done.stderr


def test_the_fingerprint_ignores_only_what_changes_from_run_to_run():
    import keras
    from resume_training import fingerprint

    def network(units=2, policy="float32", size=3):
        model = keras.Sequential([keras.Input((size,)), keras.layers.Dense(units, dtype=policy)])
        model.compile("rmsprop", loss="mse")
        return model

    expected = fingerprint(network(), [], {"seed": 1})
    assert fingerprint(network(policy="mixed_bfloat16"), [], {"seed": 1}) == expected
    trained = network()
    trained.optimizer.learning_rate = 0.5
    assert fingerprint(trained, [], {"seed": 1}) == expected
    assert fingerprint(network(units=3), [], {"seed": 1}) != expected
    assert fingerprint(network(size=4), [], {"seed": 1}) != expected
    assert fingerprint(network(), [], {"seed": 2}) != expected
