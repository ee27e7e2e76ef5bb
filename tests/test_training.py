"""A training goes on after whatever stopped it, is loaded when finished, and never mistaken."""

import json
import os
import re
import resource
import shutil
import signal
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
from keras.callbacks import EarlyStopping, LearningRateScheduler, ModelCheckpoint, ReduceLROnPlateau
from PIL import Image
from traitlets.config import Config


def make_generators(photos, size=8, wrong=5, **options):
    """Return generators of 32 photos to train with and of 16 others; each fifth label is wrong."""
    table, folder = photos[0].copy(), photos[1]
    table.loc[::wrong, "label"] = table.loc[::wrong, "label"].map({"cat": "dog", "dog": "cat"})
    usual = {"y_col": "label", "target_size": (size, size), "batch_size": 8}
    changes = {"rotation_range": 15, "brightness_range": 0.3, "shuffle": True}
    train = PhotoGenerator(table[:32], folder, **usual | changes | options)
    return [train, PhotoGenerator(table[32:], folder, **usual)]


def compiled(model, optimizer="rmsprop", loss="categorical_crossentropy", eager=True):
    """Return a compiled model; what is computed step by step starts sooner."""
    model.compile(optimizer, loss=loss, metrics=["accuracy"], run_eagerly=eager)
    return model


def network(rate=0.005, eager=True):
    """Return a compiled network with convolution, normalization and dropout."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Rescaling(1 / 255)])
    for layer in (layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Dropout(0.25)):
        model.add(layer)
    for layer in (layers.Flatten(), layers.Dense(64, activation="relu"), layers.Dropout(0.5)):
        model.add(layer)
    model.add(layers.Dense(2, activation="softmax"))
    return compiled(model, optimizers.RMSprop(rate), eager=eager)


def usual_callbacks():
    best = EarlyStopping("val_accuracy", mode="max", patience=6, restore_best_weights=True)
    return [best, ReduceLROnPlateau("val_accuracy", mode="max", patience=1, factor=0.5)]


def train(photos, folder, epochs=4, model=None, callbacks=None, twin=None, others=(), **options):
    """Train a network or its twin as step 24 does; return the resuming callback and the history.

    `others` are callbacks that the resuming one knows nothing of.
    """
    model = model or network()
    callbacks = usual_callbacks() if callbacks is None else callbacks
    generators = options.pop("generators", None) or make_generators(photos)
    resume_training = ResumeTraining(model, generators, callbacks, folder=folder)
    options = {"epochs": epochs, "shuffle": False, "verbose": 0} | options
    options |= {"callbacks": [resume_training, *others]}
    history = (twin or model).fit(generators[0], validation_data=generators[-1], **options)
    return resume_training, history.history


def log_of(resume_training):
    """Return what was measured in each epoch, but for how long it took."""
    return pd.DataFrame(resume_training.log).drop(columns="seconds")


def evaluate(model, photos):
    loss, accuracy = model.evaluate(make_generators(photos)[1], verbose=0)
    return {"val_loss": loss, "val_accuracy": accuracy}


def assert_same_weights(model, weights):
    for mine, theirs in zip(model.get_weights(), weights, strict=True):
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


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def fill_disk():
    """Let no file grow beyond 30,000 bytes from now on, where a saved epoch has 100,000."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))


def train_until(photos, folder, accident, moment):
    """Train in a process of its own, in which something happens; leave the result in a file."""
    if accident == "before renaming":
        rename, count = os.replace, iter(range(1, 100))
        os.replace = lambda *paths: die() if next(count) == moment else rename(*paths)
    actions = {"in a batch": die, "in validation": die, "a full disk": fill_disk}
    happens = [At(moment, actions.get(accident), accident == "in validation")]
    model = network(eager=False)
    training, _ = train(photos, folder, 9, model, twin=faster(model, "float32"), others=happens)
    result = {"kept": training.kept_epoch, "weights": [w.tolist() for w in model.get_weights()]}
    result["log"] = log_of(training).to_dict("list")
    if accident != "a full disk":
        (folder / "result.json").write_text(json.dumps(result))


ACCIDENTS = [  # one after the other: what happens, when, and the epoch that the next run begins
    ("before renaming", 1, 1),  # the weights to keep of epoch 1
    ("before renaming", 2, 1),  # what to go on from
    ("before renaming", 3, 2),  # the log
    ("in a batch", (2, 1), 2),
    ("in a batch", (3, 4), 3),
    ("in validation", (4, 2), 4),
    ("a full disk", (5, 2), 5),
    ("by time", 6, None),  # at some moment after that epoch
    ("nothing", 0, None),
]


def test_killed_at_any_moment_it_equals_an_undisturbed_training(photos, tmp_path):
    undisturbed, folder, printed = (tmp_path / name for name in ("undisturbed", "killed", "said"))
    undisturbed.mkdir()
    assert in_process(train_until, photos, undisturbed, "nothing", 0, printed=printed) == 0
    first = None
    for accident, moment, goes_on_with in ACCIDENTS:

        def is_time(accident=accident, moment=moment):
            logs = folder.glob("*/training_log.csv") if accident == "by time" else ()
            return any(len(log.read_text().splitlines()) > moment for log in logs)

        arguments = (photos, folder, accident, moment)
        status = in_process(train_until, *arguments, printed=printed, kill_when=is_time)
        said = printed.read_text()
        survives = accident in ("nothing", "a full disk")
        assert status == (0 if survives else -signal.SIGKILL) or accident == "by time", said
        assert first in (None, 1) or f"goes on with epoch {first}." in said, said
        assert ("could not be saved" in said) == (accident == "a full disk"), said
        first = goes_on_with
    result, expected = (
        json.loads((place / "result.json").read_text()) for place in (folder, undisturbed)
    )
    assert result == expected, "every loss, rate and weight, to the last digit"
    log = result["log"]
    assert log["epoch"] == list(range(1, len(log["epoch"]) + 1)) and len(log["epoch"]) > 6
    assert len(set(log["learning_rate"])) > 1, "the rate must have dropped for this to say much"
    for kind in ("kept_epoch_*.npz", "last_epoch.npz", "training_log.csv"):
        assert len(list(folder.glob(f"*/{kind}"))) == 1


def press():
    signal.raise_signal(signal.SIGINT)


def press_twice():
    press()
    press()


def fail():
    raise RuntimeError("an error in a callback")


STOPS = {  # what a cell ends with, what is done in `fit`, when, and whether in validation
    "nothing": (type(None), None, None),
    "a press": (TrainingStopped, press, (3, 2)),
    "a press in validation": (TrainingStopped, press, (3, 1), True),
    "a press in the first epoch": (TrainingStopped, press, (1, 2)),
    "two presses": (KeyboardInterrupt, press_twice, (3, 2)),
    "an error": (RuntimeError, fail, (3, 2)),
    "refused": (ValueError, None, None),
}


def stop_in_each_way(photos, folder):
    """Run each of STOPS in a cell, and once more without it, in a shell as notebooks have it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    shell.user_ns.update(train=train, photos=photos)
    expected = None
    for name, (error, action, moment, *rest) in STOPS.items():
        model = network()
        before = model.get_weights()
        options = {"steps_per_epoch": 3} if name == "refused" else {}
        options |= {"others": [At(moment, action, *rest)]} if action else {}
        for run, more, ends_with in [(name, options, error), ("again", {}, type(None))]:
            print("\n---", run)
            shell.user_ns.update(model=model, folder=folder / name, more=more)
            result = shell.run_cell("training, _ = train(photos, folder, 4, model, **more)")
            assert type(result.error_in_exec) is ends_with, result.error_in_exec
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            if ends_with is type(None):
                log = log_of(shell.user_ns["training"])
                expected = log if expected is None else expected
                pd.testing.assert_frame_equal(log, expected, check_exact=True)
            elif name in ("refused", "a press in the first epoch"):
                assert_same_weights(model, before)
            else:
                (file,) = (folder / name).glob("*/training_log.csv")
                accuracies = pd.read_csv(file)["val_accuracy"]
                assert len(accuracies) == 2
                assert evaluate(model, photos)["val_accuracy"] == accuracies.max()


def test_the_stop_button_leaves_the_best_epoch_and_a_sentence_and_is_given_back(photos, tmp_path):
    status = in_process(stop_in_each_way, photos, tmp_path, printed=tmp_path / "said")
    everything = (tmp_path / "said").read_text()
    assert status == 0, everything
    _, *parts = re.split(r"\n--- (.+)\n", everything)
    said = dict(zip(parts[::2], parts[1::2], strict=True))
    for name in ("a press", "a press in validation"):
        assert "Traceback" not in said[name]
        assert "Training was stopped in epoch 3. The network is as after epoch" in said[name]
        assert "Run this cell again to go on." in said[name]
    assert "Traceback" not in said["a press in the first epoch"]
    assert "No epoch was finished" in said["a press in the first epoch"]
    assert everything.count("goes on with epoch 3.") == 4


def folder_of(photos, tmp_path, change):
    """Return the name of the folder of a training that differs from a usual one by a change."""
    generators = make_generators(change.get("photos", photos), **change.get("options", {}))
    model = change.get("network", network)()
    callbacks = change.get("callbacks", usual_callbacks)()
    twin = change.get("twin", lambda model: model)(model)
    options = {"generators": generators, "initial_epoch": 3}  # so that nothing is trained
    return train(photos, tmp_path, 3, model, callbacks, twin, **options)[0].folder.name


def wired(shortcut_from=1, twice=False, loss="categorical_crossentropy", optimizer="sgd"):
    """Return a compiled network of three convolutions and a shortcut."""
    maps = [keras.Input((8, 8, 3))]
    convolutions = [layers.Conv2D(3, 3, padding="same") for _ in range(3)]
    for place in (0, 0 if twice else 1, 2):
        maps.append(convolutions[place](maps[-1]))
    sums = layers.Add()([maps[shortcut_from], maps[-1]])
    outputs = layers.Dense(2, activation="softmax")(layers.Flatten()(sums))
    return compiled(keras.Model(maps[0], outputs), optimizer, loss)


def stacked(activation="relu", names=(None, None), nested=False):
    """Return a compiled network of two layers, the first one in a network of its own if wanted."""
    first = layers.Conv2D(3, 3, activation=activation, name=names[0])
    if nested:
        first = keras.Sequential([keras.Input((8, 8, 3)), first])
    last = layers.Dense(2, activation="softmax", name=names[1])
    return compiled(keras.Sequential([keras.Input((8, 8, 3)), first, layers.Flatten(), last]))


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
        self.every = every


def using(kind, *arguments, **options):
    return {"callbacks": lambda: [kind(*arguments, **options)]}


def stopping(monitor="val_loss", patience=3, **options):
    return using(EarlyStopping, monitor, patience=patience, **options)


def plan(*rates):
    return using(LearningRateScheduler, lambda epoch, rate: rates[epoch])


def built(builder, **options):
    return {"network": lambda: builder(**options)}


def given(**options):
    return {"options": options}


smoothed, named = keras.losses.CategoricalCrossentropy, ("relu", "x")
DIFFERENT = {
    "a shortcut moved": [built(wired), built(wired, shortcut_from=2)],
    "one layer twice": [built(wired), built(wired, twice=True)],
    "activation": [built(stacked), built(stacked, activation="elu")],
    "of a layer called so": [built(stacked, activation=a, names=named) for a in ("relu", "elu")],
    "a network in it": [built(stacked), built(stacked, nested=True)],
    "loss": [built(wired), built(wired, loss="binary_crossentropy")],
    "the loss's settings": [built(wired, loss=smoothed(label_smoothing=n)) for n in (0.0, 0.1)],
    "optimizer": [built(wired), built(wired, optimizer="adam")],
    "learning rate": [built(network), built(network, rate=0.02)],
    "momentum": [built(wired, optimizer=optimizers.SGD(momentum=n)) for n in (0.0, 0.9)],
    "patience": [stopping(), stopping(patience=4)],
    "monitor": [stopping(), stopping("loss")],
    "mode": [stopping(), stopping(mode="max")],
    "min_delta": [stopping(), stopping(min_delta=0.01)],
    "restoring": [stopping(), stopping(restore_best_weights=True)],
    "factor": [using(ReduceLROnPlateau, factor=factor) for factor in (0.1, 0.5)],
    "cooldown": [using(ReduceLROnPlateau, cooldown=epochs) for epochs in (0, 2)],
    "schedule": [plan(0.1, 0.2, 0.3), plan(0.1, 0.2, 0.2)],
    "a callback more": [{}, {"callbacks": lambda: [*usual_callbacks(), Own()]}],
    "one's own setting": [using(Own, 1), using(Own, 2)],
    "range": [{}, given(rotation_range=16)],
    "seed": [{}, given(seed=43)],
    "batch size": [{}, given(batch_size=16)],
    "shuffle": [{}, given(shuffle=False)],
    "sizes": [{}, given(target_size=[(6, 6), (8, 8)])],
    "order of classes": [{}, given(classes=["dog", "cat"])],
    "labels": [{}, given(wrong=6)],
}
EQUAL = {
    "built again": [{}, {}],
    "nested, built again": [built(stacked, nested=True), built(stacked, nested=True)],
    "other names": [built(stacked), built(stacked, names=("softmax", "activation"))],
    "another precision": [{}, built(in_16_bits)],
    "the twin": [{}, {"twin": lambda model: faster(model, "float32")}],
    "what is printed": [stopping(), stopping(verbose=1)],
    "a shorter plan": [plan(0.1, 0.1, 0.1), using(LearningRateScheduler, lambda epoch: 0.1)],
}


@pytest.mark.parametrize("case", DIFFERENT)
def test_another_training_is_never_loaded(photos, tmp_path, case):
    one, other = (folder_of(photos, tmp_path, change) for change in DIFFERENT[case])
    assert one != other


@pytest.mark.parametrize("case", EQUAL)
def test_the_same_training_is_found_again(photos, tmp_path, case):
    one, other = (folder_of(photos, tmp_path, change) for change in EQUAL[case])
    assert one == other


def test_a_training_with_one_pixel_changed_is_never_loaded(photos, tmp_path):
    table, folder = photos[0], shutil.copytree(photos[1], tmp_path / "photos")
    pixels = np.array(Image.open(folder / "cat.23.png"))  # one to validate with
    pixels[:3, :3, 0] += 9
    Image.fromarray(pixels).save(folder / "cat.23.png")
    other = folder_of(photos, tmp_path, {"photos": (table, folder)})
    assert folder_of(photos, tmp_path, {}) != other


def test_a_training_goes_on_in_another_precision_and_is_loaded_without_twin(photos, tmp_path):
    for epochs, precision in [(1, "float32"), (2, "mixed_bfloat16"), (3, "mixed_float16")]:
        model = network()
        training, _ = train(photos, tmp_path, epochs, model, twin=faster(model, precision))
        assert len(training.log) == epochs
    loaded = network()
    train(photos, tmp_path, 3, loaded)
    assert_same_weights(loaded, model.get_weights())


restoring = {"restore_best_weights": True}
KEPT = {  # callbacks, and the place in the log of what they find best
    "val_loss": (stopping(**restoring), lambda log: log["val_loss"].idxmin()),
    "its largest": (stopping(mode="max", **restoring), lambda log: log["val_loss"].idxmax()),
    "loss": (stopping("loss", **restoring), lambda log: log["loss"].idxmin()),
    "min_delta": (stopping(min_delta=999, **restoring), lambda log: 0),
    "not restoring": (stopping(), lambda log: len(log) - 1),
    "no EarlyStopping": (using(ReduceLROnPlateau), lambda log: len(log) - 1),
}


@pytest.mark.parametrize("case", KEPT)
def test_what_was_best_by_the_callbacks_own_measure_is_kept_and_loaded(photos, tmp_path, case):
    change, find_best = KEPT[case]
    for run in ("trained", "loaded"):
        model = network()
        training, history = train(photos, tmp_path, 5, model, change["callbacks"]())
        log = log_of(training)
        best = log.loc[find_best(log)]
        assert training.kept_epoch == best["epoch"], (run, log)
        for name, value in evaluate(model, photos).items():
            assert value == pytest.approx(best[name], abs=1e-5), (run, log)
        assert history["val_loss"] == list(log["val_loss"])


def test_epochs_may_be_raised_and_lowered_and_all_callbacks_count_on(photos, tmp_path, capsys):
    logs, checkpoints = [], []
    path = str(tmp_path / "best" / "{epoch}-{val_loss:.3f}.keras")
    for folder, runs in [("at once", [6]), ("bit by bit", [2, 3, 6, 4])]:
        model = network()
        for epochs in runs:
            checkpoint = ModelCheckpoint(path, monitor="val_loss", save_best_only=True)
            callbacks = [*usual_callbacks(), checkpoint]
            training, _ = train(photos, tmp_path / folder, epochs, model, callbacks)
        logs.append(log_of(training))
        best = training.log[logs[0]["val_loss"].idxmin()]
        saved = evaluate(keras.models.load_model(path.format(**best)), photos)
        assert saved["val_loss"] == pytest.approx(best["val_loss"], abs=1e-5), "what was validated"
        checkpoints.append({path.name for path in (tmp_path / "best").iterdir()})
        shutil.rmtree(tmp_path / "best")
        assert float(model.optimizer.learning_rate) == pytest.approx(0.005), "as it was compiled"
    pd.testing.assert_frame_equal(*logs, check_exact=True)
    assert checkpoints[0] == checkpoints[1] and len(checkpoints[0]) < 6
    assert "is finished, and loaded instead of training again" in capsys.readouterr().out
    history = model.fit(make_generators(photos)[0], epochs=1, verbose=0).history
    assert len(history["loss"]) == 1, "a usual training afterwards begins with its first epoch"


def test_an_optimizer_with_a_schedule_of_its_own_trains(photos, tmp_path):
    model = compiled(network(), optimizers.SGD(optimizers.schedules.CosineDecay(0.1, 12)))
    training, _ = train(photos, tmp_path, 2, model, [])
    assert log_of(training)["learning_rate"].is_monotonic_decreasing


def test_weights_that_are_no_numbers_are_said_and_the_network_is_given_back(photos, tmp_path):
    model, nan = network(), plan(0.01, float("nan"), 0.01)["callbacks"]()
    with pytest.raises(ArithmeticError, match=r"In epoch 2 the network's weights became NaN"):
        train(photos, tmp_path, 3, model, nan)
    (file,) = tmp_path.glob("*/training_log.csv")
    (loss,) = pd.read_csv(file)["val_loss"]
    assert evaluate(model, photos)["val_loss"] == pytest.approx(loss, abs=1e-5)
    training, _ = train(photos, tmp_path, 3, model)
    assert np.isfinite(log_of(training)).all(axis=None) and len(training.log) == 3


REFUSED = {
    "steps left over": (ValueError, "steps_per_epoch is 3, but the generator has 4 batches"),
    "photos in both": (ValueError, "32 photos are to be trained on and validated with, such as"),
    "no folder": (OSError, "The training cannot be saved in .*outputs"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_trained_is_said_in_a_sentence(photos, tmp_path, case):
    error, sentence = REFUSED[case]
    (tmp_path / "outputs").write_text("a file of the reader's")
    options = {"steps_per_epoch": 3} if case == "steps left over" else {}
    if case == "photos in both":
        options["generators"] = make_generators(photos)[:1] * 2
    with pytest.raises(error, match=sentence):
        train(photos, tmp_path / ("outputs" if case == "no folder" else ""), **options)
    assert (tmp_path / "outputs").read_text() == "a file of the reader's"


@pytest.fixture(scope="module")
def one_epoch(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    train(photos, folder, 1)
    return folder


@pytest.mark.parametrize("case", ["cut", "empty", "a web page", "without its best"])
def test_a_training_that_cannot_be_read_is_named_and_left_alone(photos, one_epoch, tmp_path, case):
    (folder,) = shutil.copytree(one_epoch, tmp_path / "outputs").iterdir()
    state, (kept,) = folder / "last_epoch.npz", folder.glob("kept_epoch_*")
    content = {"cut": state.read_bytes()[:9000], "empty": b"", "a web page": b"<html>"}
    kept.unlink() if case == "without its best" else state.write_bytes(content[case])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = network()
    weights = model.get_weights()
    with pytest.raises(OSError, match=r"cannot be read .* move that folder elsewhere"):
        train(photos, tmp_path / "outputs", 2, model)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert_same_weights(model, weights)


class Slow(keras.callbacks.Callback):
    """Makes each batch take a tenth of a second longer, and ends a training after two epochs."""

    def on_train_batch_begin(self, batch, logs=None):
        time.sleep(0.1)

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch == 1


def test_it_says_how_long_it_takes(photos, tmp_path, capsys):
    generator, _ = make_generators(photos, batch_size=2)
    model = network()
    training = ResumeTraining(model, [generator], [Slow()], folder=tmp_path)  # nothing to validate
    model.fit(generator, epochs=20, shuffle=False, verbose=0, callbacks=[training])
    said = re.search(r"Training takes about ([\d.]+) (s|min) here", capsys.readouterr().out)
    seconds = float(said[1]) * {"s": 1, "min": 60}[said[2]]
    assert seconds == pytest.approx(20 * training.log[1]["seconds"], rel=1 / 3)
