"""Steps 39 and 40: the residual network, the pretrained one, and the table that compares them."""

import ast
import contextlib
import hashlib
import io
import json
import os
import re
import sys
import time
from types import SimpleNamespace
from urllib.error import URLError

import keras
import numpy as np
import pandas as pd
import pretrained
import pytest
import residual_network
from files import FolderLock
from fingerprint import what_sets_the_rate
from keras import layers
from photo_generator import PhotoGenerator
from practice_set import draw_practice_set
from resume_training import ResumeTraining
from run_notebook import NOTEBOOK, code_cells, read
from stop_button import TrainingStopped


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    """Return a folder of 60 labeled drawings and 20 others."""
    folder = tmp_path_factory.mktemp("drawings")
    draw_practice_set(folder, train=60, test=20)
    return folder


def of_kind(model, kind):
    """Return the layers of a network that are of a kind."""
    return [layer for layer in model.layers if isinstance(layer, kind)]


def test_the_residual_network_is_built_as_described():
    model = residual_network.build_residual_network((128, 128, 3))
    assert model.count_params() == 2_800_098
    assert model.output_shape == (None, 2) and model.layers[-1].compute_dtype == "float32"
    kernels = [layer.kernel.shape for layer in of_kind(model, layers.Conv2D)]
    assert kernels[0] == (5, 5, 3, 32) and len(kernels) == 1 + 16 + 3
    assert [shape for shape in kernels if shape[0] == 1] == [
        (1, 1, 32, 64),
        (1, 1, 64, 128),
        (1, 1, 128, 256),
    ]
    assert not any(layer.use_bias for layer in of_kind(model, layers.Conv2D))
    strides = [layer.strides for layer in of_kind(model, layers.Conv2D)]
    assert strides.count((2, 2)) == 1 + 3 and len(of_kind(model, layers.AveragePooling2D)) == 3
    maps = [layer.output.shape[1:] for layer in of_kind(model, layers.Add)]
    assert maps == [(32, 32, 32)] * 2 + [(16, 16, 64)] * 2 + [(8, 8, 128)] * 2 + [(4, 4, 256)] * 2
    gammas = [keras.ops.sum(norm.gamma) for norm in of_kind(model, layers.BatchNormalization)]
    assert [float(gamma) == 0 for gamma in gammas].count(True) == 8
    assert of_kind(model, layers.Dropout)[0].rate == 0.25
    assert model.layers[1].scale == 1 / 255


@pytest.mark.parametrize("size", [(150, 150), (33, 47), (48, 48)])
def test_the_residual_network_takes_photos_of_any_size(size):
    model = residual_network.build_residual_network((*size, 3))
    for layer in of_kind(model, layers.Add):
        shortcut, change = layer.input
        assert shortcut.shape == change.shape, "not stretched to fit"


def test_every_block_begins_as_its_shortcut():
    model = residual_network.build_residual_network((32, 32, 3))
    photos = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), np.uint8)
    before = model.predict(photos, verbose=0)
    for layer in of_kind(model, layers.Conv2D):
        if layer.kernel_size == (3, 3):
            layer.kernel.assign(7 * layer.kernel)
    np.testing.assert_allclose(model.predict(photos, verbose=0), before, atol=1e-6)
    for layer in of_kind(model, layers.Conv2D):
        if layer.kernel_size == (1, 1):
            layer.kernel.assign(7 * layer.kernel)
    assert np.abs(model.predict(photos, verbose=0) - before).max() > 1e-3


def test_multiplications_are_counted():
    inner = keras.Sequential([keras.Input((4, 4, 6)), layers.Conv2D(9, 3, padding="same")])
    model = keras.Sequential([keras.Input((10, 8, 4)), layers.Rescaling(1 / 255)])
    model.add(layers.Conv2D(6, (3, 5), groups=2, strides=2))  # 4 x 2 places
    model.add(layers.BatchNormalization())
    model.add(layers.ReLU())
    model.add(layers.DepthwiseConv2D(3, padding="same"))
    model.add(layers.UpSampling2D((1, 2)))
    model.add(inner)
    model.add(layers.Dense(5))  # at each of 4 x 4 places
    model.add(layers.Flatten())
    model.add(layers.Dropout(0.5))
    model.add(layers.Dense(3, activation="softmax"))
    expected = [4 * 2 * 3 * 5 * 2 * 6, 4 * 2 * 3 * 3 * 6, 4 * 4 * 3 * 3 * 6 * 9]
    expected += [4 * 4 * 9 * 5, 4 * 4 * 5 * 3]
    assert residual_network.count_multiplications(model) == sum(expected)


@pytest.mark.parametrize(
    ("shape", "layer", "sentence"),
    [
        ((None, None, 3), layers.Conv2D(4, 3), "has no fixed size"),
        ((5, 3), layers.LSTM(4), r"\(LSTM\) are not counted"),
        ((8, 8, 3), layers.Conv2DTranspose(4, 3), r"\(Conv2DTranspose\) are not counted"),
    ],
)
def test_what_cannot_be_counted_is_said(shape, layer, sentence):
    with pytest.raises(ValueError, match=sentence):
        residual_network.count_multiplications(keras.Sequential([keras.Input(shape), layer]))


def test_a_row_says_what_was_measured_and_what_was_not():
    model = keras.Sequential([keras.Input((1000,)), layers.Dense(2000)])
    row = residual_network.describe("this", model, 61.6, np.array([True] * 8 + [False] * 2))
    assert list(row.values()) == ["this", "2,002,000", "2 million", "62", "80.0% (49.0% to 94.3%)"]
    assert list(residual_network.describe("that").values()) == ["that"] + ["not measured here"] * 4
    assert (
        residual_network.describe("other", seconds="no epochs")["seconds an epoch"] == "no epochs"
    )


def rate(epoch, rate_before):
    """Return the learning rate of an epoch as in step 39, for three epochs."""
    return 0.001 * (1 + np.cos(np.pi * epoch / 3))


def make_generators(folder):
    """Return generators of drawings of 32 x 32 pixels: to train with, changed, and to validate."""
    names = sorted(path.name for path in (folder / "train").iterdir())
    table = pd.DataFrame({"filename": names, "label": [name[:3] for name in names]})
    usual = {"y_col": "label", "target_size": (32, 32), "batch_size": 16}
    changes = {"rotation_range": 15, "scale_range": 0.15, "contrast_range": 0.4, "cutout": 0.4}
    train = PhotoGenerator(table[::2], folder / "train", shuffle=True, **usual, **changes)
    return train, PhotoGenerator(table[1::2], folder / "train", **usual)


def make_training(folder, schedule=rate):
    """Return a fresh network of two residual blocks, and its callback for `folder`."""
    from keras.callbacks import EarlyStopping, LearningRateScheduler

    keras.utils.set_random_seed(3)
    photos = keras.Input((32, 32, 3))
    maps = layers.MaxPooling2D(4)(layers.Rescaling(1 / 255)(photos))
    maps = residual_network.residual_block(residual_network.residual_block(maps, 8), 8)
    features = layers.Dropout(0.5)(layers.GlobalAveragePooling2D()(maps))
    model = keras.Model(photos, layers.Dense(2, activation="softmax")(features))
    sgd = keras.optimizers.SGD(
        momentum=0.9, nesterov=True, weight_decay=0.0005, use_ema=True, ema_momentum=0.98
    )
    sgd.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    sgd = keras.optimizers.LossScaleOptimizer(sgd)
    model.compile(sgd, loss="categorical_crossentropy", metrics=["accuracy"])
    best = EarlyStopping("val_accuracy", mode="max", patience=3, restore_best_weights=True)
    return model, ResumeTraining(folder, best, LearningRateScheduler(schedule), step=39)


class PowerCut(Exception):
    """What interrupts a training here."""


class CutAfterTwoEpochs(keras.callbacks.Callback):
    """Ends a training in its third epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise PowerCut


def train(folder, drawings, *more):
    """Train this network for three epochs, or what is left of them; return the log."""
    from averaged_weights import UseAveragedWeights

    training, validation = make_generators(drawings)
    model, resume = make_training(folder)
    first = resume.start(model, training, validation, 3)
    callbacks = [resume, UseAveragedWeights(training), resume.early_stopping]
    callbacks += [resume.reduce_learning_rate, *more]
    model.fit(
        training,
        validation_data=validation,
        epochs=3,
        initial_epoch=first,
        callbacks=callbacks,
        shuffle=False,
        verbose=0,
    )
    return pd.read_csv(resume.log_file).drop(columns=["seconds", "finished"])


@pytest.mark.trains
def test_an_interrupted_training_with_a_schedule_goes_on_as_undisturbed(tmp_path, drawings, capsys):
    expected = train(tmp_path / "undisturbed", drawings)
    assert list(expected["learning_rate"]) == pytest.approx([0.002, 0.0015, 0.0005])
    with pytest.raises(PowerCut):
        train(tmp_path / "interrupted", drawings, CutAfterTwoEpochs())
    capsys.readouterr()
    log = train(tmp_path / "interrupted", drawings)
    assert "It goes on with epoch 3." in capsys.readouterr().out
    pd.testing.assert_frame_equal(log, expected, rtol=1e-3, atol=1e-3)

    training, validation = make_generators(drawings)
    model, resume = make_training(tmp_path / "interrupted")
    assert resume.has_finished(model, training, validation, 3)
    assert not resume.has_finished(model, training, validation, 4), "a schedule of its own"
    assert capsys.readouterr().out == ""
    model, resume = make_training(tmp_path / "elsewhere")
    assert not resume.has_finished(model, training, validation, 3)
    assert not (tmp_path / "elsewhere").exists(), "looking leaves nothing behind"


def test_what_sets_the_rate_is_part_of_the_fingerprint(tmp_path, drawings):
    generators = make_generators(drawings)
    schedules = [rate, lambda epoch, rate_before: 0.002, lambda epoch, rate_before: 0.001]
    places = {make_training(tmp_path, by)[1]._folder_of(make_training(tmp_path)[0], *generators, 3)
              for by in schedules}  # fmt: skip
    assert len(places) == 3

    plateau = keras.callbacks.ReduceLROnPlateau(patience=2, factor=0.5, cooldown=3, min_lr=0.00001)
    settings = {"patience": 2, "factor": 0.5, "cooldown": 3, "min_lr": 0.00001}
    assert what_sets_the_rate(plateau, 50) == settings, "as it was before there were schedules"
    assert what_sets_the_rate(None, 50) == {}


def test_a_constant_rate_can_be_replayed(tmp_path):
    callback = make_training(tmp_path)[1]
    callback.reduce_learning_rate = None
    callback.set_model(make_training(tmp_path)[0])
    callback.early_stopping.set_model(callback.model)
    callback.early_stopping.on_train_begin()
    callback.log = pd.DataFrame({"epoch": [1, 2], "val_accuracy": [0.6, 0.5]})
    callback.log["learning_rate"], callback.best_weights = 0.001, None
    callback._replay()
    assert callback.early_stopping.best == 0.6 and callback.early_stopping.wait == 1


def test_what_is_said_names_the_step(tmp_path):
    callback = ResumeTraining(tmp_path, None, None, step=39)
    callback.log, callback.generators, callback.lock = pd.DataFrame(), [], FolderLock(tmp_path)
    callback.stop_button.is_pressed = True
    with pytest.raises(TrainingStopped, match="run step 39 again from its first cell"):
        callback._end_if_stopped()


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """Return the backbone of step 40 with random weights, made in another precision."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = pretrained.load_backbone((32, 32, 3), tmp_path_factory.mktemp("none"), weights=None)
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    return model


def test_the_backbone_is_frozen_and_takes_bytes(backbone):
    assert backbone.trainable_weights == [] and backbone.count_params() == 5_919_312
    assert backbone.output_shape == (None, 1280)
    assert {layer.compute_dtype for layer in backbone.layers} == {"float32"}
    assert residual_network.count_multiplications(backbone) > 10_000_000
    photos = np.random.default_rng(4).integers(0, 256, (2, 32, 32, 3), np.uint8)
    scaled = backbone.layers[1](photos)
    assert float(keras.ops.max(scaled)) <= 1, "the photos are scaled within"


def test_weights_are_fetched_once_and_loaded(backbone, tmp_path, monkeypatch, capsys):
    backbone.save_weights(tmp_path / "published.weights.h5")
    content = (tmp_path / "published.weights.h5").read_bytes()
    monkeypatch.setattr(pretrained, "WEIGHTS", (tmp_path / "published.weights.h5").as_uri())
    monkeypatch.setattr(pretrained, "CHECKSUM", hashlib.md5(content).hexdigest())
    loaded = pretrained.load_backbone((32, 32, 3), tmp_path / "folder")
    for here, there in zip(loaded.get_weights(), backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(here, there)

    (tmp_path / "published.weights.h5").unlink()
    kept = pretrained.fetch_weights(tmp_path / "folder")
    assert os.path.samefile(kept, tmp_path / "folder" / "published.weights.h5")


def refuse(*_, **__):
    """Stand in for a network that is not there."""
    raise URLError("Name or service not known")


@pytest.mark.parametrize("trouble", ["no network", "no answer", "another file"])
def test_without_weights_a_sentence_is_said_and_the_notebook_goes_on(
    trouble, tmp_path, monkeypatch, capsys
):
    page = tmp_path / "weights.h5"
    page.write_text("<html>Please log in.</html>")
    monkeypatch.setattr(pretrained, "WEIGHTS", page.as_uri())
    monkeypatch.setattr(pretrained, "PATIENCE", 0.5)
    if trouble == "no network":
        monkeypatch.setattr(pretrained, "urlopen", refuse)
    if trouble == "no answer":
        monkeypatch.setattr(pretrained, "urlopen", lambda address: time.sleep(60))
    began = time.monotonic()
    assert pretrained.load_backbone((32, 32, 3), tmp_path / "folder") is None
    assert time.monotonic() - began < 10
    said = capsys.readouterr().out
    reasons = {"no network": "Name or service not known", "no answer": "no answer in time"}
    reason = reasons.get(trouble, "Incomplete or corrupted file detected")
    assert f"The pretrained weights cannot be fetched ({reason}" in said
    assert page.as_uri() in said and said.count("\n") <= 3


def small_backbone(seed=1):
    """Return a network with two outputs for each photo."""
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((4, 4, 3)), layers.Flatten(), layers.Dense(2)])


def pixels(seed):
    """Return an object with nine random photos, as a generator has them."""
    random = np.random.default_rng(seed)
    return SimpleNamespace(pixels=random.integers(0, 256, (9, 4, 4, 3), np.uint8))


def test_outputs_are_computed_once(tmp_path, capsys):
    model, photos = small_backbone(), pixels(1)
    outputs = pretrained.outputs_once(model, photos, tmp_path / "new", batch_size=4)
    assert outputs.shape == (9, 2) and outputs.dtype == "float32"
    expected = keras.ops.convert_to_numpy(model(photos.pixels))
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)
    assert "Computing outputs for photos: 9 of 9" in capsys.readouterr().out

    model.predict_on_batch = refuse  # the second time, there is nothing to compute
    again = pretrained.outputs_once(model, photos, tmp_path / "new")
    np.testing.assert_array_equal(again, outputs)
    assert "The outputs for 9 photos were loaded from" in capsys.readouterr().out


def test_outputs_of_others_and_damaged_ones_are_not_trusted(tmp_path):
    first = pretrained.outputs_once(small_backbone(), pixels(1), tmp_path)
    (kept,) = tmp_path.iterdir()
    before = kept.read_bytes()
    changed = pixels(1)
    changed.pixels[3, 2, 2, 1] ^= 1
    assert (pretrained.outputs_once(small_backbone(), changed, tmp_path) != first).any()
    assert (pretrained.outputs_once(small_backbone(seed=2), pixels(1), tmp_path) != first).any()
    assert len([*tmp_path.iterdir()]) == 3 and kept.read_bytes() == before

    for content in [b"", before[:-4], b"no array", before.replace(b"<f4", b"<i4")]:
        kept.write_bytes(content)
        outputs = pretrained.outputs_once(small_backbone(), pixels(1), tmp_path)
        np.testing.assert_array_equal(outputs, first)
        assert kept.read_bytes() == before


def test_outputs_that_cannot_be_kept_are_used_all_the_same(tmp_path, monkeypatch, capsys):
    def full(path, write):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pretrained, "write_aside", full)
    assert pretrained.outputs_once(small_backbone(), pixels(1), tmp_path).shape == (9, 2)
    assert "They could not be kept in" in capsys.readouterr().out
    assert [*tmp_path.iterdir()] == []


# What steps 24 to 35 have made by then, for those cells that need it; nothing is trained for it.
BEFORE = """
training_log = pd.DataFrame({"seconds": [7.0, 8.0, 90.0]})
truth = validation_generator.answers.argmax(axis=1)
once = np.eye(2)[(truth + np.arange(len(truth))) % 2]  # half of them wrong
"""
FIRST_HALF = ["step-00", "step-02", "step-03-imports", "step-04", "step-05", "step-07", "step-09"]
FIRST_HALF += ["step-1", "step-20", "step-21", "step-24-resume"]
LAST_HALF = ["step-39", "step-40"]
RANDOM_WEIGHTS = {
    'OUTPUT_FOLDER / "pretrained")\nelse': 'OUTPUT_FOLDER / "pretrained", None)\nelse'
}
SMALLER = {"IMAGE_WIDTH = 128": "IMAGE_WIDTH = 32", "IMAGE_HEIGHT = 128": "IMAGE_HEIGHT = 32"}


def walk(environment, edits=None):
    """Run the notebook's cells that steps 39 and 40 build upon, and theirs.

    Returns what they define, a dict, and what steps 39 and 40 print.
    """
    sources = {cell.id: cell.source for cell in code_cells(read())}
    for old, new in (edits or {}).items():
        assert sum(old in source for source in sources.values()) == 1, old
        sources = {name: source.replace(old, new) for name, source in sources.items()}
    names, printed = {}, io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(NOTEBOOK.parent):
        for name, value in {"MPLBACKEND": "agg", "PRECISION": "float32", **environment}.items():
            patch.setenv(name, value)
        patch.setattr(sys, "path", [*sys.path])
        with contextlib.redirect_stdout(io.StringIO()):
            for cell, source in sources.items():
                if cell.startswith(tuple(FIRST_HALF)):
                    exec(source, names)
            exec(BEFORE, names)
        with contextlib.redirect_stdout(printed):
            for cell, source in sources.items():
                if cell.startswith(tuple(LAST_HALF)):
                    exec(source, names)
    return names, printed.getvalue()


@pytest.fixture
def environment(drawings, tmp_path):
    """Return the variables for a short run on drawings, as the notebook reads them."""
    return {
        "DOGS_VS_CATS_DATA": str(drawings),
        "DOGS_VS_CATS_SOURCE": "auto",
        "OUTPUT_FOLDER": str(tmp_path / "outputs"),
        "EPOCHS": "2",
        "BATCH_SIZE": "16",
    }


@pytest.mark.trains
def test_switched_off_the_long_steps_only_say_what_they_would_do(environment, tmp_path):
    names, printed = walk(environment | {"LONG_STEPS": "0"})
    assert "Step 9: 152,951,168 multiplications a photo, 12,942,786 parameters" in printed
    assert "Residual: 148,242,944 multiplications a photo, 2,800,098 parameters" in printed
    assert printed.count("LONG_STEPS = True at the end of step 4") == 2
    table = json.loads(pd.DataFrame([*names["rows"], names["giant"]]).to_json(orient="values"))
    half = "50.0% (25.4% to 74.6%)"
    assert table[0] == ["step 9", "12,942,786", "153 million", "8", half]
    assert table[1] == ["residual", "2,800,098", "148 million"] + ["not measured here"] * 2
    assert table[2] == ["pretrained, frozen"] + ["not measured here"] * 4
    assert len([*(tmp_path / "outputs").rglob("*")]) == 1, "nothing but the folder of step 24"


@pytest.mark.trains
def test_switched_on_they_train_and_afterwards_they_load(environment, tmp_path):
    names, printed = walk(environment | {"LONG_STEPS": "1"}, RANDOM_WEIGHTS | SMALLER)
    assert "Training will take about" in printed
    assert len(pd.read_csv(names["resume_residual"].log_file)) == 2
    assert "Computing outputs for photos: 48 of 48" in printed
    assert "Computing outputs for photos: 12 of 12" in printed
    measured = [*names["rows"], names["giant"]]
    texts = [text for row in measured for text in row.values()]
    assert "not measured here" not in texts and texts[-2] == "no epochs"
    assert names["finished_epochs"] == 0, "step 24's own"

    names, printed = walk(environment | {"LONG_STEPS": "no"}, SMALLER)
    assert "It is loaded instead of training again." in printed
    assert "There is nothing left to train." in printed
    assert names["rows"] == measured[:2]


def test_the_long_steps_can_be_run_again_from_the_end():
    assigned, used = {"long": set(), "later": set()}, set()
    cells = [cell for cell in code_cells(read()) if re.match(r"step-(39|4\d)", cell.id)]
    for cell in cells:
        is_long = cell.id.startswith(("step-39", "step-40"))
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                assigned["long" if is_long else "later"].add(node.id)
            elif isinstance(node, ast.Name) and is_long:
                used.add(node.id)
    assert {"truth", "once", "model"} <= used and "few" in assigned["later"]
    assert not (used - assigned["long"]) & assigned["later"]
