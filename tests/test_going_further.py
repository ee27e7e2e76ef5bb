"""Steps 35 to 42: scores, places that speak for an answer, own photos, and the exported model."""

import os
import subprocess
import sys

import matplotlib

matplotlib.use("agg")
import exported_model
import grad_cam
import honest_score
import keras
import numpy as np
import own_photos
import pandas as pd
import pictures
import pytest
import tensorflow as tf
from fast_layers import BatchNormalization
from keras import layers
from PIL import Image
from practice_set import draw_practice_set
from sklearn.calibration import calibration_curve
from sklearn.metrics import accuracy_score


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        (8, 10, 0.490162, 0.943318),
        (0, 10, 0, 0.277533),
        (10, 10, 0.722467, 1),
        (1, 2, 0.0945, 0.9055),
    ],
)
def test_the_interval_is_wilsons(right, total, low, high):
    assert honest_score.wilson_interval(right, total) == pytest.approx((low, high), abs=1e-4)


def test_the_interval_holds_the_true_share_19_times_in_20():
    random = np.random.default_rng(1)
    shares = random.uniform(0.5, 1, 4000)
    bounds = [honest_score.wilson_interval(random.binomial(200, p), 200) for p in shares]
    inside = np.mean([low <= p <= high for p, (low, high) in zip(shares, bounds, strict=True)])
    assert 0.935 < inside < 0.965


def test_a_score_is_said_with_its_interval(capsys):
    honest_score.say_score("Photos", ["cat"] * 10, ["cat"] * 8 + ["dog"] * 2)
    said = "Photos: 80.0% of 10 right (95% interval: 49.0% to 94.3%)\n"
    assert capsys.readouterr().out == said


def test_reliability_agrees_with_scikit_learn():
    random = np.random.default_rng(2)
    dog = random.random(3000)
    probabilities = np.stack([1 - dog, dog], axis=1)
    answers = (random.random(3000) < dog).astype(int)
    table = honest_score.reliability(answers, probabilities)
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == answers
    expected_right, expected_sure = calibration_curve(right, sure, n_bins=20)
    np.testing.assert_allclose(table["sure"], expected_sure)
    np.testing.assert_allclose(table["right"], expected_right)
    assert table["photos"].sum() == 3000
    assert accuracy_score(answers, probabilities.argmax(axis=1)) == pytest.approx(
        (table["right"] * table["photos"]).sum() / 3000
    )
    assert honest_score.calibration_error(table) < 0.05, "these percentages are true"


def test_a_network_that_is_too_sure_has_a_calibration_error():
    sure = np.array([[0.0, 1.0]] * 10)
    table = honest_score.reliability(np.array([1] * 6 + [0] * 4), sure)
    assert honest_score.calibration_error(table) == pytest.approx(0.4)


def test_the_diagram_has_a_text_alternative(monkeypatch):
    shown = []
    monkeypatch.setattr(pictures, "display", lambda figure, metadata: shown.append(metadata))
    answers = np.array([1, 1, 1, 0])
    honest_score.plot_reliability(answers, pd.DataFrame({"cat": [0.2] * 4, "dog": [0.8] * 4}))
    assert shown[0]["image/png"]["alt"] == "Reliability diagram; 80% sure: 75% right."


def tiny(functional):
    """Return a network whose class 1 asks the place (1, 2) of 4 x 4, class 0 the place (3, 0)."""
    place = layers.Conv2D(1, 1, use_bias=False)
    dense = layers.Dense(2, activation="softmax")
    inner = [place, layers.ReLU(), layers.Flatten(), dense]
    if functional:
        inputs = outputs = keras.Input((4, 4, 3))
        for layer in inner:
            outputs = layer(outputs)
        model = keras.Model(inputs, outputs)
    else:
        model = keras.Sequential([keras.Input((4, 4, 3)), *inner])
    place.kernel.assign(np.ones((1, 1, 3, 1)) / 3)
    kernel = np.zeros((4, 4, 2))
    kernel[1, 2] = -1, 1
    kernel[3, 0] = 1, -1
    dense.kernel.assign(kernel.reshape(16, 2))
    return model


@pytest.mark.parametrize("functional", [False, True])
def test_the_place_that_speaks_for_a_class_is_found(functional):
    photos = np.full((2, 4, 4, 3), 100, np.uint8)
    photos[1] = 50
    heat = grad_cam.grad_cam(tiny(functional), photos)
    assert heat.shape == (2, 2, 4, 4)
    expected = np.zeros((2, 4, 4))
    expected[1, 1, 2] = expected[0, 3, 0] = 1
    np.testing.assert_allclose(heat, [expected] * 2, atol=1e-6)


def test_the_heat_has_the_size_of_the_photo_and_leaves_the_network_as_it_was():
    model = keras.Sequential([keras.Input((16, 12, 3)), layers.Conv2D(4, 3), layers.ReLU()])
    model.add(layers.MaxPooling2D())
    model.add(layers.BatchNormalization())
    model.add(layers.Dropout(0.5))
    model.add(layers.Flatten())
    model.add(layers.Dense(2, activation="softmax"))
    before = model.get_weights()
    photos = np.random.default_rng(3).integers(0, 256, (3, 16, 12, 3), np.uint8)
    heat = grad_cam.grad_cam(model, photos)
    assert heat.shape == (3, 2, 16, 12) and heat.min() >= 0 and heat.max() <= 1
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    warmed = grad_cam.warm(photos[0], heat[0, 0])
    assert warmed.shape == (16, 12, 3) and warmed.dtype == np.uint8


def test_a_network_without_maps_is_refused():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, activation="softmax")])
    with pytest.raises(ValueError, match="needs a network with a ReLU layer"):
        grad_cam.grad_cam(model, np.zeros((1, 4)))


def test_without_photos_of_ones_own_there_are_none(tmp_path, capsys):
    for folder in [tmp_path, tmp_path / "not there"]:
        names, pixels = own_photos.load_own_photos(folder, (128, 96))
        assert list(names) == [] and pixels.shape == (0, 96, 128, 3)
    assert capsys.readouterr().out == ""


def test_photos_of_any_kind_are_loaded(tmp_path, capfd):
    color = (200, 30, 30)
    Image.new("RGB", (1, 1), color).save(tmp_path / "a dot.png")
    Image.new("L", (12_000, 9_000), 90).save(tmp_path / "huge.jpg")
    Image.new("L", (40, 30), 90).save(tmp_path / "gray.jpg")
    Image.new("RGBA", (40, 30), (*color, 0)).save(tmp_path / "transparent.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    sideways = Image.new("RGB", (40, 30), color)
    sideways.paste((0, 0, 255), (0, 0, 20, 30))
    sideways.save(tmp_path / "고양이.jpg", exif=exif, quality=95)
    (tmp_path / ".DS_Store").write_bytes(b"junk")

    names, pixels = own_photos.load_own_photos(tmp_path, (64, 64))
    assert names == ["a dot.png", "gray.jpg", "huge.jpg", "transparent.png", "고양이.jpg"]
    middle = dict(zip(names, pixels[:, 32, 32].tolist(), strict=True))
    assert middle["a dot.png"] == list(color) and middle["transparent.png"] == [255] * 3
    assert middle["gray.jpg"] == middle["huge.jpg"] == [90] * 3
    assert pixels[-1, 8, 32, 2] > 200 > pixels[-1, 56, 32, 2], "blue must be at the top"
    output, errors = capfd.readouterr()
    assert output == errors == ""


def test_what_is_no_photo_gets_a_sentence(tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("I am not a photo.")
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(100))
    (tmp_path / "more").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "fine.png")
    names, pixels = own_photos.load_own_photos(tmp_path, (8, 8))
    assert names == ["fine.png"] and len(pixels) == 1
    said = capsys.readouterr().out
    assert "more is left out: it is a folder.\n" in said
    assert "text.jpg is left out: not a picture that Pillow can decode.\n" in said
    assert "phone.heic is left out: a HEIC photo; run %pip install pillow-heif" in said


def test_a_photo_that_cannot_be_read_gets_a_sentence(tmp_path, monkeypatch, capsys):
    def refuse(path, size):
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "cat.jpg").write_bytes(b"x")
    monkeypatch.setattr(own_photos, "decode", refuse)
    names, _ = own_photos.load_own_photos(tmp_path, (8, 8))
    assert (
        names == []
        and "cat.jpg is left out: [Errno 13] Permission denied" in capsys.readouterr().out
    )


# Executed where nothing of this project can be imported.
USE_EXPORT = """
import sys

import numpy as np
import tensorflow as tf

try:
    import exported_model
    sys.exit("this project is on the path")
except ModuleNotFoundError:
    pass
network = tf.lite.Interpreter(sys.argv[1])
network.allocate_tensors()
entrance, = network.get_input_details()
exit_, = network.get_output_details()
answers = []
for photo in np.load(sys.argv[2]):
    network.set_tensor(entrance["index"], photo[None].astype("float32"))
    network.invoke()
    answers.append(network.get_tensor(exit_["index"])[0])
np.save(sys.argv[3], answers)
"""


def use_export(path, photos, folder):
    """Return what an exported network answers in a process without this project."""
    np.save(folder / "photos.npy", photos)
    files = [path, folder / "photos.npy", folder / "answers.npy"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", USE_EXPORT, *map(str, files)],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return np.load(files[2])


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    """The pixels of 100 drawings, 32 x 32."""
    folder = tmp_path_factory.mktemp("drawings")
    draw_practice_set(folder, train=100, test=2)
    photos = [Image.open(path).resize((32, 32)) for path in sorted((folder / "train").iterdir())]
    return np.stack([np.asarray(photo) for photo in photos])


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_the_exported_network_answers_the_same_without_this_project(policy, drawings, tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = keras.Sequential([keras.Input((32, 32, 3)), layers.Rescaling(1 / 255)])
        for layer in [layers.Conv2D(8, 3), layers.MaxPooling2D(), layers.ReLU()]:
            model.add(layer)
        model.add(BatchNormalization())
        model.add(layers.Dropout(0.25, noise_shape=(1, None, None, None)))
        model.add(layers.Flatten())
        model.add(layers.Dense(2, activation="softmax", dtype="float32"))
        for _ in range(30):
            model(drawings, training=True)  # so that the normalization has its averages
        copy = exported_model.in_32_bits(model)
    finally:
        keras.config.set_dtype_policy(before)
    assert {layer.compute_dtype for layer in copy.layers} == {"float32"}
    path = tmp_path / "고양이 model.tflite"
    path.write_bytes(b"an older one")
    assert exported_model.export_for_phones(copy, path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]

    here = exported_model.predict_in_32_bits(copy, drawings)
    assert np.ptp(here[:, 0]) > 0.01, "answers that are all alike would compare as equal"
    answers = use_export(path, drawings, tmp_path)
    np.testing.assert_allclose(answers, here, atol=0.001)
    np.testing.assert_allclose(exported_model.answers_of_export(path, drawings), here, atol=0.001)
    np.testing.assert_allclose(model.predict(drawings, verbose=0), here, atol=0.02)


def test_shortened_numbers_are_switched_off_and_on_again():
    enabled = tf.config.experimental.tensor_float_32_execution_enabled
    with pytest.raises(OSError), exported_model.all_bits():
        assert not enabled()
        raise OSError
    assert enabled()


def test_an_export_that_fails_leaves_the_older_one(tmp_path, monkeypatch):
    def fail(path, **settings):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    model = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    monkeypatch.setattr(model, "export", fail)
    path = tmp_path / "model.tflite"
    path.write_bytes(b"an older one")
    with pytest.raises(OSError, match="No space left"):
        exported_model.export_for_phones(model, path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"an older one"]


ON_JAX = """
import sys
from pathlib import Path

import exported_model
import keras
import numpy as np

model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
photos = np.random.default_rng(1).integers(0, 256, (20, 8, 8, 3), dtype="uint8")
path = Path(sys.argv[1])
assert exported_model.export_for_phones(model, path)
there = exported_model.answers_of_export(path, photos)
difference = there - exported_model.predict_in_32_bits(model, photos)
print(keras.backend.backend(), abs(difference).max())
"""


def test_on_jax_another_process_exports(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", ON_JAX, tmp_path / "고양이 model.tflite"],
        capture_output=True,
        text=True,
        env=os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    backend, difference = done.stdout.split()[-2:]
    assert backend == "jax"
    assert float(difference) < 0.001, done.stderr
    assert len(list(tmp_path.iterdir())) == 1


def test_what_that_process_says_last_is_passed_on(tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    monkeypatch.setattr(exported_model, "EXPORT", "raise OSError(28, 'No space left on device')")
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    path = tmp_path / "model.tflite"
    path.write_bytes(b"an older one")
    with pytest.raises(RuntimeError, match=r"could not be exported: OSError: .*No space left"):
        exported_model.export_for_phones(model, path)
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"an older one"]


def test_without_tensorflow_a_sentence_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(exported_model.importlib.util, "find_spec", lambda name: None)
    path = tmp_path / "model.tflite"
    assert exported_model.export_for_phones(None, path) is False
    assert "through TensorFlow only, which is not installed" in capsys.readouterr().out
    assert not path.exists()
