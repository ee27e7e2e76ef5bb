"""An interrupted training goes on as if nothing had happened, whatever interrupted it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import forked
import numpy as np
import pandas as pd
import pytest
from files import FolderLock

pytestmark = pytest.mark.trains

# A training like the notebook's, on 64 random pictures and a network of a few weights. Validation
# pictures are random too, so accuracy stalls: the learning rate drops and EarlyStopping counts.
TRAINING = """
import os, signal, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
from pathlib import Path
import keras, numpy as np, pandas as pd
import averaged_weights, resume_training
from keras import layers

folder, epochs, accident = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
SEED = 7
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have switched it off

class Generator(keras.utils.PyDataset):
    def __init__(self, number):
        super().__init__()
        random = np.random.default_rng(number)
        self.pixels = random.random((64, 8, 8, 3), dtype="float32")
        self.answers = np.eye(2)[random.integers(0, 2, 64)]
        self.filenames = [f"{number}.jpg" for number in range(64)]
        self.labels = [["cat", "dog"][answer.argmax()] for answer in self.answers]
        self.seed, self.epoch, self.settings = SEED, 0, {"batch_size": 16, "seed": SEED}
    def __len__(self):
        return 4
    def on_epoch_end(self):
        self.epoch += 1
    def __getitem__(self, index):
        rows = np.random.default_rng([SEED, self.epoch]).permutation(64)[16 * index :][:16]
        return self.pixels[rows], self.answers[rows]

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
        first = accident == "the stop button, in the first epoch"
        if first or accident == "the stop button" and self.epoch == 4 and batch == 2:
            self.press_once()
    def on_test_batch_begin(self, batch, logs=None):
        if accident == "the stop button, in validation" and self.epoch == 4 and batch == 2:
            self.press_once()
    def on_test_end(self, logs=None):
        if accident == "the stop button, after validation" and self.epoch == 4:
            self.press_once()
    def press_once(self):
        if not stops:
            stops.append(True)
            signal.raise_signal(signal.SIGINT)

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
train, validation = Generator(1), Generator(2)
first_answer = train.answers[0].copy()
for attempt in range(2):  # the second one after the stop button
    first = resume.start(model, train, validation, epochs)
    try:
        history = model.fit(train, validation_data=validation, epochs=epochs, initial_epoch=first,
            callbacks=[resume, averaged_weights.UseAveragedWeights(train), stopping,
                reduction, Accident()], shuffle=False, verbose=0)
        break
    except KeyboardInterrupt as stop:
        print("only its sentence", stop._render_traceback_() == [str(stop)])
        print("usual handler", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
        print(type(stop).__name__, stop)
        if len(resume.log):
            best = resume.log["val_accuracy"].max()
            print("stopped at the best", model.evaluate(validation, verbose=0)[1] == best)
print("usual handler", signal.getsignal(signal.SIGINT) is signal.default_int_handler)
print("history", len(history.history["val_accuracy"]), "log", len(resume.log))
print("left out", 4 * len(resume.log) - int(model.optimizer.iterations.numpy()))
print("kept", model.evaluate(validation, verbose=0)[1], "best", resume.log["val_accuracy"].max())
"""


ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = os.environ | {"PYTHONPATH": f"{ROOT / 'notebooks'}{os.pathsep}{ROOT / 'data'}"}


def run(script, folder, epochs, accident):
    """Run a training script in a process of its own."""
    return forked.run(script, str(folder), str(epochs), accident)


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
    return log_of(folder), printed, folder


ACCIDENTS = ["in mid-epoch", "between two writes", "a full disk"]
ACCIDENTS += ["the stop button", "the stop button, in validation"]
ACCIDENTS += ["the stop button, after validation"]


@pytest.mark.parametrize("accident", ACCIDENTS)
def test_an_interrupted_training_goes_on_like_an_undisturbed_one(undisturbed, tmp_path, accident):
    if accident == "a full disk":
        pytest.importorskip("resource", reason="Windows cannot limit the size of files")
    expected, *_ = undisturbed
    folder = tmp_path / "outputs"

    status, printed = train(folder, accident=accident)
    before = log_of(folder).head(4)
    lost = 6 if accident == "the stop button, after validation" else 5
    if accident.startswith("the stop button"):  # goes on in the same process, with the same model
        assert status == 0
        sentence = f"Training was stopped in epoch {lost}. The network is as after the best epoch"
        assert f"\nTrainingStopped {sentence} so far. Run step 24 again" in printed
        assert "stopped at the best True" in printed
        assert printed.count("usual handler True") == 2 and "only its sentence True" in printed
    elif accident == "a full disk":  # trains to the end; later epochs are lost
        assert status == 0 and "Epoch 5 could not be saved in" in printed
        _, printed = train(folder)
    else:
        assert status != 0
        _, printed = train(folder)

    log = log_of(folder)
    assert f"It goes on with epoch {lost}." in printed
    pd.testing.assert_frame_equal(log.head(4), before)
    assert len(log) == len(expected) < 30, "EarlyStopping must count on"
    assert list(log["epoch"]) == list(range(1, len(log) + 1)), "no gap, nothing twice"
    assert list(log["learning_rate"]) == pytest.approx(list(expected["learning_rate"]))
    assert log["learning_rate"].nunique() > 1, "the rate must have dropped for this to say much"
    assert list(log["loss"]) == pytest.approx(list(expected["loss"]), abs=0.001)
    assert f"history {len(log)} log {len(log)}" in printed
    if accident == "the stop button":  # what went on in that process, another one can read
        _, printed = train(folder)
        assert "It is loaded instead of training again." in printed
        assert "cannot be used" not in printed


def test_a_training_stopped_in_its_first_epoch_says_how_to_begin_anew(tmp_path):
    status, printed = train(tmp_path / "outputs", accident="the stop button, in the first epoch")
    assert "\nTrainingStopped Training was stopped before an epoch was saved." in printed
    assert "usual handler True" in printed and "only its sentence True" in printed
    assert status != 0, "a network that is neither fresh nor saved must not be trained on"


@pytest.mark.parametrize(
    ("accident", "told"),
    [
        ("the stop button, in the first epoch", "run step 9 again for a fresh one"),
        ("the stop button", "Run the cell with resume_training.start again"),
    ],
)
def test_a_network_that_is_neither_fresh_nor_restored_is_not_trained(tmp_path, accident, told):
    only_fit = TRAINING.replace(
        "first = resume.start(", "first = first if attempt else resume.start("
    )
    assert only_fit != TRAINING
    done = run(only_fit, tmp_path / "outputs", 30, accident)
    assert "TrainingStopped Training was stopped" in done.stdout
    assert done.returncode != 0 and told in done.stderr


def test_stopped_right_after_going_on_it_is_not_trained_further_either(tmp_path):
    only_fit = TRAINING.replace("= resume.start(", "= first if attempt else resume.start(")
    train(tmp_path / "outputs", epochs=1)  # the last epoch is the best one, too
    done = run(only_fit, tmp_path / "outputs", 30, "the stop button, in the first epoch")
    assert "TrainingStopped Training was stopped in epoch 2." in done.stdout
    assert done.returncode != 0
    assert "Run the cell with resume_training.start again" in done.stderr


def test_a_half_trained_network_that_is_compiled_anew_is_not_fresh(tmp_path):
    start = "    first = resume.start("
    compiled = (
        "    model.compile(keras.optimizers.RMSprop(0.01), loss='categorical_crossentropy')\n"
    )
    done = run(
        TRAINING.replace(start, f"    if attempt:\n    {compiled}{start}"),
        tmp_path / "outputs",
        30,
        "the stop button, in the first epoch",
    )
    assert done.returncode != 0 and "run step 9 again for a fresh one" in done.stderr
    assert len([*(tmp_path / "outputs").iterdir()]) == 2, "filed under its own learning rate"


def test_another_precision_is_said(tmp_path):
    folder = tmp_path / "outputs"
    train(folder, epochs=2)
    build = "model = keras.Sequential("
    other = TRAINING.replace(build, f'keras.config.set_dtype_policy("mixed_bfloat16")\n{build}')
    done = run(other, folder, 3, "none")
    assert "It goes on with epoch 3." in done.stdout, done.stderr
    assert "computed in float32; now it is mixed_bfloat16" in done.stdout
    assert list(log_of(folder)["precision"]) == ["float32", "float32", "mixed_bfloat16"]


SPREADSHEET = {  # what a spreadsheet may do to the log, and a piece of what is said
    "semicolons": (lambda log: log.to_csv(index=False, sep=";"), "no commas between columns"),
    "decimal commas": (lambda log: log.to_csv(index=False, sep=";", decimal=","), "no commas"),
    "a missing column": (lambda log: log.drop(columns="seconds").to_csv(index=False), "'seconds'"),
    "another date format": (
        lambda log: log.assign(finished="26.11.2026 11:26").to_csv(index=False),
        "26.11.2026",
    ),
    "a lost row": (lambda log: log.drop(index=0).to_csv(index=False), "not 1, 2, 3"),
    "a word": (lambda log: log.assign(loss="about 0.3").to_csv(index=False), "about 0.3"),
    "nothing in it": (lambda log: "", "No columns"),
}


@pytest.fixture(scope="module")
def two_epochs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two epochs") / "outputs"
    train(folder, epochs=2)
    return folder


@pytest.mark.parametrize("case", SPREADSHEET)
def test_a_log_that_a_spreadsheet_has_changed_is_named_and_kept(two_epochs, tmp_path, case):
    from training_log import read_log

    change, told = SPREADSHEET[case]
    folder = shutil.copytree(two_epochs, tmp_path / "outputs")
    (file,) = folder.glob("*/training_log.csv")
    file.write_text(change(pd.read_csv(file)))
    before = {path.name: path.read_bytes() for path in file.parent.iterdir()}
    with pytest.raises(ValueError, match="is not as it was written") as problem:
        read_log(file)
    assert told in str(problem.value) and str(file) in str(problem.value)
    assert {path.name: path.read_bytes() for path in file.parent.iterdir()} == before


def test_a_log_that_was_changed_is_not_trained_over(two_epochs, tmp_path):
    folder = shutil.copytree(two_epochs, tmp_path / "outputs")
    (file,) = folder.glob("*/training_log.csv")
    file.write_text(file.read_text().replace(",", ";"))
    before = file.read_text()
    done = run(TRAINING, folder, 3, "none")
    assert done.returncode != 0 and "is not as it was written" in done.stderr
    assert file.read_text() == before and len([*file.parent.glob("epoch-*")]) == 2


SAVE = """
from model_file import save_model
save_model(model, resume.folder / "dogs_vs_cats.keras")
"""


@pytest.mark.parametrize("kills", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_killed_at_random_times_training_and_saving_end_as_if_undisturbed(
    undisturbed, tmp_path, kills
):
    import keras

    expected, *_ = undisturbed
    random, killed, number = np.random.default_rng(kills), 0, 0
    seconds = 20.0  # of a run from its start to its end, on this computer
    while killed < kills:
        folder, number = tmp_path / f"{number}", number + 1
        while True:
            began = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, "-c", TRAINING + SAVE, str(folder), "30", "none"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=ENVIRONMENT,
            )
            try:
                status = process.wait(random.uniform(0.2, 1.1) * seconds if killed < kills else 180)
                assert status == 0
                seconds = time.monotonic() - began
                break
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed += 1
        pd.testing.assert_frame_equal(log_of(folder), expected, rtol=0.01, atol=0.001)
        (model,) = folder.glob("*/dogs_vs_cats.keras")
        assert keras.models.load_model(model).count_params() > 0


def test_weights_that_are_nan_are_not_saved(undisturbed, tmp_path):
    expected, *_ = undisturbed
    folder = tmp_path / "outputs"
    status, _ = train(folder, accident="weights that are NaN")
    assert status != 0
    assert len(log_of(folder)) == 4

    _, printed = train(folder, epochs=6)
    assert "It goes on with epoch 5." in printed
    log = log_of(folder)
    assert list(log["loss"]) == pytest.approx(list(expected["loss"].head(6)), abs=0.001)


def test_a_correction_that_is_nan_is_left_out(undisturbed, tmp_path):
    expected, *_ = undisturbed
    status, printed = train(tmp_path / "outputs", epochs=6, accident="an answer that is NaN")
    assert status == 0
    assert "left out 1\n" in printed
    log = log_of(tmp_path / "outputs")
    # The batch that was lost makes the epoch's mean training loss NaN as well; all else is well.
    assert list(log["loss"].isna()) == [False, False, False, False, True, False]
    assert list(log["val_loss"]) == pytest.approx(list(expected["val_loss"].head(6)), abs=0.2)


def test_the_best_weights_are_kept(undisturbed):
    log, printed, _ = undisturbed
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

    (last,) = folder.glob("*/epoch-002.keras")
    shutil.copy(last, last.with_name("epoch-002 - Copy.keras"))
    _, printed = train(folder, epochs=3)
    assert "It goes on with epoch 3." in printed
    pd.testing.assert_frame_equal(log_of(folder).head(2), first)
    assert len(log_of(folder)) == 3


def test_a_damaged_model_file_costs_epochs_not_the_training(undisturbed, tmp_path):
    expected, *_ = undisturbed
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
    (kept,) = folder.glob("*/training_log_before_*.csv")
    pd.testing.assert_frame_equal(pd.read_csv(kept).drop(columns=["seconds", "finished"]), before)
    assert len(log_of(folder)) == 1

    for file in folder.glob("*/epoch-*.keras"):
        file.write_bytes(b"damaged")
    train(folder, epochs=1)
    assert len([*folder.glob("*/training_log_before_*.csv")]) == 2, "and so is the one after it"
    assert kept.exists()


@pytest.mark.parametrize(
    ("piece", "change"),
    [
        ("train, validation = Generator(1)", "train, validation = Generator(3)"),
        ("patience=2, factor=0.5", "patience=2, factor=0.2"),
        ("layers.Dropout(0.25)", "layers.Dropout(0)"),
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
    assert done.returncode == 0, done.stderr
    assert "(1 of other kinds lie in" in done.stdout
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
        optimizer = type("Optimizer", (), {"learning_rate": 0.001, "iterations": 0})

    callback = ResumeTraining(tmp_path, None, None)
    callback.set_model(Model())
    callback.folder, callback.must_replay, callback.log = tmp_path, False, pd.DataFrame()
    callback.epochs, callback.iterations, callback.precision = 1, 0, "float32"
    callback.may_train = True
    callback.on_epoch_begin(0)
    callback.on_epoch_end(0, dict.fromkeys(["loss", "accuracy", "val_loss", "val_accuracy"], 0.5))
    said = capsys.readouterr().out
    assert "could not be saved" in said and "No space left on device" in said
    assert file.read_bytes() == b"whole"


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    folder = tmp_path / "outputs"
    folder.write_text("a file where the folder should be")
    done = run(TRAINING, folder, 1, "none")
    assert "The training cannot be saved in" in done.stderr
    assert "OUTPUT_FOLDER" in done.stderr


def test_only_one_program_at_a_time_trains_in_a_folder(undisturbed, tmp_path):
    finished, folder = undisturbed[2], tmp_path / "outputs"
    shutil.copytree(finished, folder)
    lock = FolderLock(next(folder.glob("*/training_log.csv")).parent)
    assert lock.take() and lock.take()
    done = run(TRAINING, folder, 99, "none")
    assert done.returncode != 0 and "is open in another notebook or program" in done.stderr
    pd.testing.assert_frame_equal(log_of(folder), log_of(finished))


def test_a_training_lets_go_of_its_folder_when_it_is_stopped_ends_or_is_loaded(tmp_path):
    question = """
import subprocess
others = "import files, pathlib, sys; print(files.FolderLock(pathlib.Path(sys.argv[1])).take())"
def may_others():
    asked = [sys.executable, "-c", others, resume.folder]
    path = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    print("may others?", subprocess.run(asked, capture_output=True, text=True, env=path).stdout)
for attempt in range(2):"""
    script = TRAINING.replace("\nfor attempt in range(2):", question)
    script = script.replace(
        "        print(type(stop)", "        may_others()\n        print(type(stop)"
    )
    script += "may_others()\nresume.start(model, train, validation, epochs)\nmay_others()\n"
    done = run(script, tmp_path / "outputs", 6, "the stop button")
    assert done.stdout.count("may others? True") == 3, done
    assert "Training was stopped in epoch 5" in done.stdout and "loaded instead" in done.stdout


def test_pressed_again_the_stop_button_stops_at_once(tmp_path, monkeypatch):
    from resume_training import ResumeTraining

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    callback = ResumeTraining(tmp_path, None, None)
    callback.set_model(SimpleNamespace(layers=(), optimizer=SimpleNamespace(iterations=0)))
    callback.must_replay, callback.log, done = False, pd.DataFrame(), []
    callback.iterations, callback.may_train = 0, True

    def fit():
        signal.raise_signal(signal.SIGINT)
        done.append("after the first press")
        signal.raise_signal(signal.SIGINT)
        done.append("after the second press")

    try:
        callback.on_epoch_begin(0)
        with pytest.raises(KeyboardInterrupt):
            fit()
        assert done == ["after the first press"]
        callback.on_epoch_begin(0)
        with pytest.raises(KeyboardInterrupt):  # training died of an error; something else runs
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_after_an_error_in_fit_the_stop_button_still_works(tmp_path):
    from resume_training import ResumeTraining

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    callback = ResumeTraining(tmp_path, None, None)
    callback.set_model(SimpleNamespace(layers=(), optimizer=SimpleNamespace(iterations=0)))
    callback.must_replay, callback.log = False, pd.DataFrame()
    callback.iterations, callback.may_train = 0, True
    try:
        callback.on_epoch_begin(0)  # the first batch ends in an error, and `fit` is run again
        callback.on_epoch_begin(0)
        assert callback.stop_button.handler_before is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_plateau_that_was_passed_with_more_patience_ends_nothing(tmp_path):
    import keras
    from resume_training import ResumeTraining

    stopping = keras.callbacks.EarlyStopping("val_accuracy", mode="max", patience=1)
    reduction = keras.callbacks.ReduceLROnPlateau("val_accuracy", mode="max", patience=9)
    model = network()
    callback = ResumeTraining(tmp_path, stopping, reduction)
    for each in [callback, stopping, reduction]:
        each.set_model(model)
        each.on_train_begin() if each is not callback else None
    accuracies = [0.5, 0.4, 0.4, 0.6]
    callback.log = pd.DataFrame({"epoch": [1, 2, 3, 4], "val_accuracy": accuracies})
    callback.log["learning_rate"], callback.best_weights = 0.001, None
    callback._replay()
    assert not model.stop_training and stopping.best == 0.6 and stopping.wait == 0


def test_a_handler_that_cannot_be_called_is_not_called():
    from stop_button import StopButton

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        button = StopButton()
        button.handler_before = signal.SIG_IGN
        button._on_press(signal.SIGINT, None)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def network(units=2, policy="float32", size=3, rate=0.001):
    """Return a compiled network of one layer."""
    import keras

    model = keras.Sequential([keras.Input((size,)), keras.layers.Dense(units, dtype=policy)])
    model.compile(keras.optimizers.RMSprop(rate), loss="mse")
    return model


def photos(fill=1, **settings):
    """Return what the fingerprint looks at in a generator."""
    settings = {"batch_size": 16, "seed": 7} | settings
    pixels = np.full((2, 4, 4, 3), fill, np.uint8)
    names = {"filenames": ["1.jpg", "2.jpg"], "labels": ["cat", "dog"]}
    return SimpleNamespace(pixels=pixels, settings=settings, **names)


def test_the_fingerprint_ignores_only_what_changes_from_run_to_run():
    from fingerprint import fingerprint

    expected = fingerprint(network(), [photos()], {"patience": 1})
    trained = network()
    assert fingerprint(trained, [photos()], {"patience": 1}) == expected
    trained.optimizer.learning_rate = 0.5
    same = [(trained, photos()), (network(policy="mixed_bfloat16"), photos())]
    assert {fingerprint(model, [them], {"patience": 1}) for model, them in same} == {expected}

    renamed = photos()
    renamed.labels = ["dog", "cat"]
    others = [(network(units=3), photos()), (network(size=4), photos())]
    others += [(network(rate=0.002), photos()), (network(), photos(fill=2))]
    others += [(network(), photos(seed=8)), (network(), photos(batch_size=15))]
    others += [(network(), renamed)]
    names = {fingerprint(model, [them], {"patience": 1}) for model, them in others}
    assert len(names) == len(others) and expected not in names
    assert fingerprint(network(), [photos()], {"patience": 2}) != expected


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (8.4, "8 s"),
        (59.4, "59 s"),
        (59.6, "1:00 min"),
        (125, "2:05 min"),
        (3599.6, "1:00 h"),
        (6000, "1:40 h"),
        (100_000, "27:46 h"),
    ],
)
def test_durations_are_put_in_words(seconds, words):
    from progress import in_words

    assert in_words(seconds) == words


@pytest.mark.parametrize("rate", [0.001, 0.00001])
def test_the_line_of_an_epoch_is_short_and_easy_to_read(rate):
    from progress import epoch_line

    row = dict.fromkeys(["loss", "accuracy", "val_loss", "val_accuracy"], 0.5)
    row |= {"epoch": 50, "seconds": 3599, "learning_rate": rate, "loss": 0.000012}
    line = epoch_line(row, 50)
    assert line == (
        "epoch 50/50  59:59 min  loss 0.0000  accuracy 0.5000  "
        f"val_loss 0.5000  val_accuracy 0.5000  rate {rate:.5f}"
    )
    assert len(epoch_line(row | {"epoch": 100, "val_loss": 12.5}, 100)) <= 110


def test_how_long_it_takes_is_said_and_changes_nothing(capsys):
    from progress import say_how_long

    model = network()
    before = model.get_weights()
    batches = [(np.ones((4, 3)), np.ones((4, 2)))] * 3
    say_how_long(model, batches, batches[:1], 0)
    assert capsys.readouterr().out == "There is nothing left to train.\n"
    say_how_long(model, batches, batches[:1], 1)
    assert capsys.readouterr().out.startswith("Training will take about 0 s here: 1 epoch")
    assert int(model.optimizer.iterations) == 0
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize(
    ("seconds", "batches", "epochs", "said"),
    [
        ([0.3, 0.3] + [0.0] * 6, 10, 50, "about 0 s here: 50 epochs of about 0 s.\n"),
        ([0.02] * 8, 500, 50, "switch off sleep"),
    ],
)
def test_the_first_batches_do_not_count(monkeypatch, capsys, seconds, batches, epochs, said):
    import keras
    from progress import say_how_long

    class Copy:
        """Stands in for the copy of the network; each of its batches takes a known time."""

        def __init__(self):
            self.train_on_batch, self.test_on_batch = (self.taking(seconds) for _ in range(2))

        trainable_variables = ()
        optimizer = SimpleNamespace(build=lambda variables: None)

        def compile_from_config(self, config):
            pass

        @staticmethod
        def taking(seconds):
            left = list(seconds)
            return lambda photos, answers: time.sleep(left.pop(0))

    monkeypatch.setattr(keras.models, "clone_model", lambda model: Copy())
    model = SimpleNamespace(get_compile_config=dict)
    say_how_long(model, [(0, 0)] * batches, [(0, 0)] * batches, epochs)
    printed = capsys.readouterr().out
    assert said in printed
    assert ("sleep" in printed) == ("sleep" in said)
