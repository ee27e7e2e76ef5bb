"""A training goes on after whatever stopped it, is loaded when finished, and never mistaken."""

import os
import re
import resource
import shutil
import signal
import sys
import time

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import in_process
from helpers.generator import PhotoGenerator
from helpers.speed import faster
from helpers.training import ResumeTraining, TrainingStopped
from IPython.core.interactiveshell import InteractiveShell
from keras import layers, optimizers
from keras.callbacks import EarlyStopping, LearningRateScheduler, ModelCheckpoint
from PIL import Image
from traitlets.config import Config


def make_generators(photos, size=8, wrong=5, **options):
    """Return generators of 32 photos to train with and of 16 others; each fifth label is wrong."""
    table, folder = photos[0].copy(), photos[1]
    table.loc[::wrong, "label"] = table.loc[::wrong, "label"].map({"cat": "dog", "dog": "cat"})
    usual = {"y_col": "label", "target_size": (size, size), "batch_size": 16}
    changes = {"rotation_range": 15, "brightness_range": 0.3, "shuffle": True}
    train = PhotoGenerator(table[:32], folder, **usual | changes | options)
    return [train, PhotoGenerator(table[32:], folder, **usual)]


def compiled(model, optimizer="rmsprop", loss="categorical_crossentropy", eager=True):
    """Return a compiled model; what is computed step by step starts sooner."""
    model.compile(optimizer, loss=loss, metrics=["accuracy"], run_eagerly=eager)
    return model


def network(rate=0.005):
    """Return a compiled network with convolution, normalization and dropout."""
    keras.utils.set_random_seed(1)
    steps = [keras.Input((8, 8, 3)), layers.RandomFlip(), layers.Rescaling(1 / 255)]
    steps.append(layers.Conv2D(4, 3))
    steps += [layers.BatchNormalization(), layers.Dropout(0.25), layers.Flatten()]
    steps.append(layers.Dense(2, activation="softmax"))
    return compiled(keras.Sequential(steps), optimizers.RMSprop(rate))


def usual_callbacks():
    best = EarlyStopping("val_accuracy", patience=6, restore_best_weights=True)
    return [best, keras.callbacks.ReduceLROnPlateau("val_accuracy", patience=1, factor=0.5)]


def train(photos, folder, epochs=4, model=None, callbacks=None, twin=None, others=(), **options):
    """Train a network or its twin as step 24 does; return the resuming callback and the history.

    `others` are callbacks that the resuming one knows nothing of.
    """
    model = model or network()
    callbacks = usual_callbacks() if callbacks is None else callbacks
    generators = options.pop("generators", None) or make_generators(photos)
    resume_training = ResumeTraining(model, generators, callbacks, folder=folder)
    options = {"epochs": epochs, "shuffle": False, "verbose": 0} | options
    options |= {"callbacks": resume_training if others is None else [resume_training, *others]}
    history = (twin or model).fit(generators[0], validation_data=generators[-1], **options)
    return resume_training, history.history


def log_of(resume_training):
    """Return what was measured in each epoch, but for how long it took."""
    return pd.DataFrame(resume_training.log).drop(columns="seconds")


def evaluate(model, photos):
    loss, accuracy = model.evaluate(make_generators(photos)[1], verbose=0)
    return {"val_loss": loss, "val_accuracy": accuracy}


def assert_same(weights, others):
    for mine, theirs in zip(weights, others, strict=True):
        np.testing.assert_array_equal(mine, theirs)


class At(keras.callbacks.Callback):
    """Does something at one moment: (number of the epoch, number of the batch), both from 1."""

    def __init__(self, moment, action, is_validation=False):
        super().__init__()
        self.moment, self.action, self.is_validation = moment, action, is_validation

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1

    def on_train_batch_begin(self, batch, logs=None, is_validation=False):
        if is_validation == self.is_validation and (self.epoch, batch + 1) == self.moment:
            self.action()

    def on_test_batch_begin(self, batch, logs=None):
        self.on_train_batch_begin(batch, is_validation=True)


def train_with_twin(photos, folder, others=()):
    """Train for four epochs; return the folder's files, the log, and the weights that were kept."""
    model = network()
    training, _ = train(photos, folder, 4, model, twin=faster(model, "float32"), others=others)
    files = {path.relative_to(folder) for path in folder.rglob("*")}
    return files, log_of(training), model.get_weights()


def train_until_killed(photos, folder, copies):
    """Train until the disk is full in epoch 3 and a signal kills this process in epoch 4.

    Before, the folder is copied whenever a file in it is about to be renamed or removed.
    """
    places = [copies / f"{number:02}" for number in range(99)]

    def copy(event, arguments):
        if event in ("os.rename", "os.remove") and places and str(folder) in str(arguments[0]):
            shutil.copytree(folder, places.pop(0))

    def fill_disk():
        places.clear()
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, resource.RLIM_INFINITY))

    sys.addaudithook(copy)
    death = At((4, 1), lambda: signal.raise_signal(signal.SIGKILL), is_validation=True)
    train_with_twin(photos, folder, [At((3, 1), fill_disk), death])


def test_killed_at_any_moment_it_equals_an_undisturbed_training(photos, tmp_path, capsys):
    folder, copies, printed = tmp_path / "killed", tmp_path / "copies", tmp_path / "said"
    status = in_process(train_until_killed, photos, folder, copies, printed=printed)
    assert status == -signal.SIGKILL and "Epoch 3 could not be saved" in printed.read_text()
    expected = train_with_twin(photos, tmp_path / "undisturbed")
    assert expected[1]["learning_rate"].nunique() > 1, "or this would say little"
    began = []
    for place in [*sorted(copies.iterdir()), folder]:
        capsys.readouterr()
        files, log, weights = train_with_twin(photos, place)
        goes_on_with = re.search(r"goes on with epoch (\d)\.", capsys.readouterr().out)
        began.append(int(goes_on_with[1]) if goes_on_with else 1)
        assert files == expected[0]
        pd.testing.assert_frame_equal(log, expected[1], check_exact=True)
        assert_same(weights, expected[2])
    assert began == sorted(began) and set(began) == {1, 2, 3}, "after the last epoch saved"


def press(times=1):
    for _ in range(times):
        signal.raise_signal(signal.SIGINT)


STOPS = {  # what a cell ends with, when, what is done then in `fit`, and whether in validation
    "a press in the first epoch": (TrainingStopped, (1, 1), press, True),
    "a press": (TrainingStopped, (3, 2), press),
    "two presses": (KeyboardInterrupt, (3, 2), lambda: press(times=2)),
    "an error": (ZeroDivisionError, (3, 2), lambda: 1 / 0),
}


def stop_in_each_way(photos, folder):
    """Run each of STOPS in a cell, and once more without it, in a shell as notebooks have it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    shell.user_ns.update(train=train, photos=photos)
    logs = []
    for name, (error, *stop) in STOPS.items():
        model = network()
        before = model.get_weights()
        shell.user_ns.update(model=model, folder=folder / name)
        for run, others, ends_with in [(name, [At(*stop)], error), ("again", [], type(None))]:
            print("\n---", run)
            shell.user_ns["others"] = others
            result = shell.run_cell("training, _ = train(photos, folder, 3, model, others=others)")
            assert type(result.error_in_exec) is ends_with
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            if run == "again":
                logs.append(log_of(shell.user_ns["training"]))
                pd.testing.assert_frame_equal(logs[-1], logs[0], check_exact=True)
            elif stop[0] == (1, 1):
                assert_same(model.get_weights(), before)
            else:
                (file,) = (folder / name).glob("*/training_log.csv")
                accuracies = pd.read_csv(file)["val_accuracy"]
                assert evaluate(model, photos)["val_accuracy"] == accuracies.max()
                best = f"as after epoch {accuracies.idxmax() + 1}, the one to keep"
                assert best in str(result.error_in_exec) or error is not TrainingStopped


def test_the_stop_button_leaves_the_best_epoch_and_a_sentence_and_is_given_back(photos, tmp_path):
    status = in_process(stop_in_each_way, photos, tmp_path, printed=tmp_path / "said")
    everything = (tmp_path / "said").read_text()
    assert status == 0, everything
    _, at_first, _, later, *_ = everything.split("\n--- ")
    assert "no epoch was finished" in at_first and "Traceback" not in at_first + later
    assert "Training was stopped in epoch 3. The network is as after epoch" in later
    assert "Run this cell again to go on." in later
    assert everything.count("goes on with epoch 3.") == 3


def wired(shortcut_from=1, twice=False, activation="relu", names=(None, None), **options):
    """Return a compiled network of convolutions, a shortcut, and a network within it."""
    maps = [keras.Input((8, 8, 3))]
    steps = [layers.Conv2D(3, 3, padding="same") for _ in range(2)]
    inside = layers.Conv2D(3, 3, padding="same", activation=activation, name=names[0])
    steps.append(keras.Sequential([keras.Input((8, 8, 3)), inside]))
    for place in (0, 0 if twice else 1, 2):
        maps.append(steps[place](maps[-1]))
    sums = layers.Flatten()(layers.Add()([maps[shortcut_from], maps[-1]]))
    outputs = layers.Dense(2, activation="softmax", name=names[1])(sums)
    return compiled(keras.Model(maps[0], outputs), **options)


def in_16_bits():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return network()
    finally:
        keras.config.set_dtype_policy("float32")


class Own(keras.callbacks.Callback):
    """A callback of one's own."""

    def __init__(self, every=1):
        super().__init__()
        self._every = every


class Kind(EarlyStopping):
    """A kind of Keras's own, which hands its settings on."""

    def __init__(self, **settings):
        super().__init__(**settings)


def decaying(epochs):
    return compiled(network(), optimizers.SGD(optimizers.schedules.CosineDecay(0.1, 2 * epochs)))


def folder_of(photos, tmp_path, change):
    """Return the folder of a training of a changed kind, without training."""
    return train(photos, tmp_path, 3, initial_epoch=3, **change)[0].folder


def test_another_training_is_never_loaded(photos, tmp_path):
    folder = shutil.copytree(photos[1], tmp_path / "photos")
    pixels = np.array(Image.open(folder / "cat.23.png"))  # one to validate with
    pixels[:3, :3, 0] += 9
    Image.fromarray(pixels).save(folder / "cat.23.png")
    smoothed = [keras.losses.CategoricalCrossentropy(label_smoothing=n) for n in (0.1, 0.2)]
    models = {
        "another network": wired(),
        "a shortcut moved": wired(shortcut_from=2),
        "one layer twice": wired(twice=True),
        "the network in it": wired(activation="elu"),
        "another loss": wired(loss=smoothed[0]),
        "its setting": wired(loss=smoothed[1]),
        "learning rate": network(rate=0.02),
        "schedule of the rate": decaying(6),
        "how long it is": decaying(7),
    }
    callbacks = {
        "a callback less": usual_callbacks()[:1],
        "another callback": [EarlyStopping()],
        "monitor": [EarlyStopping("loss")],
        "mode": [EarlyStopping(mode="max")],
        "min_delta": [EarlyStopping(min_delta=0.01)],
        "restoring": [EarlyStopping(restore_best_weights=True)],
        "a callback of one's own": [Own(1)],
        "what it was made with": [Own(2)],
        "a kind of EarlyStopping": [Kind(monitor="loss")],
        "what it hands on": [Kind(monitor="val_loss")],
    }
    settings = {
        "usual": {},
        "range": {"rotation_range": 16},
        "seed": {"seed": 43},
        "batch size": {"batch_size": 8},
        "shuffle": {"shuffle": False},
        "sizes": {"target_size": [(6, 6), (8, 8)]},
        "order of classes": {"classes": ["dog", "cat"]},
        "labels": {"wrong": 6},
    }
    changes = {case: {"model": model} for case, model in models.items()}
    changes |= {case: {"callbacks": others} for case, others in callbacks.items()}
    for case, options in settings.items():
        changes[case] = {"generators": make_generators(photos, **options)}
    changes["one pixel"] = {"generators": make_generators((photos[0], folder))}
    folders, usual = pd.Series(), {"model": network()}
    for case, change in changes.items():
        folders[case] = folder_of(photos, tmp_path / "outputs", usual | change)
    assert folders.is_unique, folders[folders.duplicated(keep=False)]


def test_the_same_training_is_found_again(photos, tmp_path):
    model = network()
    for case, one, other in [
        ("other names", {"model": wired()}, {"model": wired(names=("softmax", "activation"))}),
        ("another precision", {}, {"model": in_16_bits()}),
        ("the twin", {}, {"model": model, "twin": faster(model, "float32")}),
        ("an object of one's own", *({"callbacks": [Own(object())]} for _ in range(2))),
        ("what is printed", *({"callbacks": [EarlyStopping(verbose=n)]} for n in (0, 1))),
    ]:
        folders = {folder_of(photos, tmp_path, change) for change in (one, other)}
        assert len(folders) == 1, case


def test_a_training_goes_on_in_another_precision_and_is_loaded_without_twin(photos, tmp_path):
    for epochs, precision in [(1, "float32"), (2, "mixed_bfloat16"), (3, "mixed_float16")]:
        model = network()
        training, _ = train(photos, tmp_path, epochs, model, twin=faster(model, precision))
        assert len(training.log) == epochs
    loaded = network()
    train(photos, tmp_path, 3, loaded)
    assert_same(loaded.get_weights(), model.get_weights())


KEPT = {  # settings of EarlyStopping, and the place in the log of what it finds best
    "val_loss": ({}, lambda log: log["val_loss"].idxmin()),
    "its largest": ({"mode": "max"}, lambda log: log["val_loss"].idxmax()),
    "min_delta": ({"min_delta": 999}, lambda log: 0),
    "not restoring": ({"restore_best_weights": False}, lambda log: len(log) - 1),
}


@pytest.mark.parametrize("case", KEPT)
def test_what_was_best_by_the_callbacks_own_measure_is_kept_and_loaded(photos, tmp_path, case):
    settings, find_best = KEPT[case]
    for run in ("trained", "loaded"):
        model = network()
        best = EarlyStopping(**{"patience": 3, "restore_best_weights": True} | settings)
        training, history = train(photos, tmp_path, 5, model, [best])
        log = log_of(training)
        for name, value in evaluate(model, photos).items():
            assert value == pytest.approx(log[name][find_best(log)], abs=1e-5), (run, log)
        assert history["val_loss"] == list(log["val_loss"])


def test_epochs_may_be_raised_and_lowered_and_all_callbacks_count_on(photos, tmp_path, capsys):
    logs, names = [], []
    for runs in ([5], [2, 5, 3]):
        folder, model = tmp_path / f"{len(runs)} runs", network()
        for epochs in runs:
            path = folder / "{epoch}.keras"
            checkpoint = ModelCheckpoint(path, monitor="val_accuracy", save_best_only=True)
            callbacks = [*usual_callbacks(), checkpoint]
            training, _ = train(photos, folder, epochs, model, callbacks)
        logs.append(log_of(training))
        best = training.log[logs[0]["val_accuracy"].idxmax()]
        saved = evaluate(keras.models.load_model(folder / f"{best['epoch']}.keras"), photos)
        assert saved["val_loss"] == pytest.approx(best["val_loss"], abs=1e-5), "what was validated"
        names.append({path.name for path in folder.glob("*.keras")})
        assert float(model.optimizer.learning_rate) == pytest.approx(0.005), "as it was compiled"
    pd.testing.assert_frame_equal(*logs, check_exact=True)
    assert names[0] == names[1] and len(names[0]) < 5
    assert "is finished, and loaded instead of training again" in capsys.readouterr().out
    history = model.fit(make_generators(photos)[0], epochs=1, verbose=0).history
    assert len(history["loss"]) == 1, "a usual training afterwards begins with its first epoch"


def test_the_network_is_the_same_however_often_keras_validates_and_calls(photos, tmp_path):
    seldom, often, at_once, averaged = network(), network(), network(), set()
    at_once.compile(at_once.optimizer, at_once.loss, steps_per_execution=3)
    for model, frequency in [(seldom, 2), (often, 1), (at_once, 1)]:
        options = {"generators": make_generators(photos, batch_size=2), "callbacks": []}
        options |= {"validation_freq": frequency}
        averaged.add(train(photos, tmp_path / f"{id(model)}", 2, model, **options)[0].averaged)
    assert_same(seldom.get_weights(), often.get_weights())
    assert averaged <= {4, 6}, "two or three times in each epoch of 16 batches"


def test_a_schedule_of_the_rate_goes_on_where_it_was(photos, tmp_path):
    logs = []
    for runs in ([3], [1, 3]):
        for epochs in runs:
            training, _ = train(photos, tmp_path / f"{len(runs)}", epochs, decaying(6), [])
        logs.append(log_of(training))
    pd.testing.assert_frame_equal(*logs, check_exact=True)


def test_weights_that_are_no_numbers_are_said_and_the_network_is_given_back(photos, tmp_path):
    model, rates = network(), [0.01, float("nan"), 0.01]
    with pytest.raises(ArithmeticError, match=r"In epoch 2 the network's weights became NaN"):
        train(photos, tmp_path, 3, model, [LearningRateScheduler(lambda epoch: rates[epoch])])
    (file,) = tmp_path.glob("*/training_log.csv")
    (loss,) = pd.read_csv(file)["val_loss"]
    assert evaluate(model, photos)["val_loss"] == pytest.approx(loss, abs=1e-5)
    training, _ = train(photos, tmp_path, 3, model)
    assert np.isfinite(log_of(training)).all(axis=None) and len(training.log) == 3


REFUSED = {
    "a cut file": (OSError, r"cannot be read .* move that folder elsewhere"),
    "no folder": (OSError, "The training cannot be saved in "),
    "steps left over": (ValueError, "steps_per_epoch is 3, but the generator has 2 batches"),
    "no list": (ValueError, r"fit takes a list of callbacks: callbacks=\[resume_training\]"),
    "photos in both": (ValueError, "32 photos are to be trained on and validated with, such as"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_is_said_in_a_sentence_and_left_alone(photos, tmp_path, case):
    train(photos, tmp_path, 1)
    (folder,) = tmp_path.iterdir()
    options = {}
    if case == "a cut file":
        os.truncate(folder / "last_epoch.npz", 5000)
    elif case == "no folder":
        shutil.rmtree(folder)
        folder.write_text("a file of the reader's")
    elif case == "steps left over":
        options = {"steps_per_epoch": 3}
    elif case == "no list":
        options = {"others": None}
    else:
        options = {"generators": make_generators(photos)[:1] * 2}
    before = {path: path.is_dir() or path.read_bytes() for path in tmp_path.rglob("*")}
    model = network()
    weights = model.get_weights()
    error, sentence = REFUSED[case]
    with pytest.raises(error, match=sentence):
        train(photos, tmp_path, 2, model, **options)
    assert {path: path.is_dir() or path.read_bytes() for path in tmp_path.rglob("*")} == before
    assert_same(model.get_weights(), weights)


def test_it_says_how_long_it_takes(photos, tmp_path, capsys):
    generator, _ = make_generators(photos, batch_size=2)  # there may be nothing to validate
    slow = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: time.sleep(0.05))
    callbacks = [slow, EarlyStopping("loss", min_delta=999, patience=1)]  # ends after two epochs
    steps = [keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(2, activation="softmax")]
    model = compiled(keras.Sequential(steps))
    training = ResumeTraining(model, [generator], callbacks, folder=tmp_path)
    model.fit(generator, epochs=20, shuffle=False, verbose=0, callbacks=[training])
    said = re.search(r"Training takes about ([\d.]+) (s|min) here", capsys.readouterr().out)
    seconds = float(said[1]) * {"s": 1, "min": 60}[said[2]]
    assert seconds == pytest.approx(20 * training.log[1]["seconds"], rel=1 / 3)
