"""Steps 35 to 41: what the cells do, and what the helpers they use promise.

All of it holds on JAX as well (README.md, beside this file).
"""

import ast
import shutil
import socket
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import matplotlib

matplotlib.use("agg")
import keras
import numpy as np
import pandas as pd
import pytest
from helpers import charts
from helpers.export import export_for_phones
from helpers.generator import PhotoGenerator
from helpers.heatmap import heat_map, warm
from helpers.scores import compare, plot_reliability
from keras import layers
from packaging.version import Version
from PIL import Image
from run_notebook import code_cells, read
from scipy.stats import binom
from sklearn.metrics import confusion_matrix

CELLS = {cell.id: cell.source for cell in code_cells(read())}
SIDE = 32  # pixels


def pictures(number, seed=1):
    """Return dim noise with a square in the upper left corner: blue, red, blue, red and so on."""
    photos = np.random.default_rng(seed).integers(100, 156, (number, SIDE, SIDE, 3), np.uint8)
    photos[::2, :8, :8] = 30, 30, 220
    photos[1::2, :8, :8] = 220, 30, 30
    return photos


def small_network(*middle, size=(SIDE, SIDE), inside=False):
    """Return step 9's kind of network, smaller; `inside`: ReLU in Conv2D, softmax by itself."""
    keras.utils.set_random_seed(1)
    steps = [keras.Input((*size, 3)), layers.Rescaling(1 / 255)]
    for filters in [4, 8]:
        steps.append(layers.Conv2D(filters, 3, activation="relu" if inside else None))
        steps += [layers.MaxPooling2D()] + [layers.ReLU()] * (not inside)
        steps += [layers.BatchNormalization(), layers.Dropout(0.25)]
    steps += middle or [layers.Flatten(), layers.Dense(16, "relu"), layers.BatchNormalization()]
    steps += [layers.Dense(2), layers.Softmax()] if inside else [layers.Dense(2, "softmax")]
    return keras.Sequential(steps)


@pytest.fixture(scope="module")
def after_34(tmp_path_factory):
    """Return the names that the notebook has after step 34, for few and tiny pictures."""
    root = tmp_path_factory.mktemp("photos with spaces")
    files = [f"{kind}.{n}.jpg" for n in range(30) for kind in ["cat", "dog"]]
    table = pd.DataFrame({"filename": files, "label": [name[:3] for name in files]})
    test_df = pd.DataFrame({"filename": [f"{n}.jpg" for n in range(1, 31)]})
    for folder, names in [("train", files), ("test1", test_df["filename"]), ("notebooks", [])]:
        (root / folder).mkdir()
        for name, photo in zip(names, pictures(len(names)), strict=True):
            Image.fromarray(photo).save(root / folder / name, quality=95)
    photos = SimpleNamespace(train_folder=root / "train", test_folder=root / "test1")
    photos.test_files, photos.answers_file = list(test_df["filename"]), root / "answers.csv"
    test_df.assign(label=["cat", "dog"] * 15, size=1).to_csv(photos.answers_file, index=False)
    table = table.sample(frac=1, random_state=1)
    train_df, validation_df = table[:40], table[40:]

    IMAGE_HEIGHT = IMAGE_WIDTH = SIDE
    IMAGE_SIZE, IMAGE_CHANNELS, EPOCHS, BATCH_SIZE, SEED = (SIDE, SIDE), 3, 4, 16, 42
    AUGMENTATION, MANY_PHOTOS = {"zoom_range": 0.2}, False
    labeled = {"y_col": "label", "target_size": IMAGE_SIZE}
    train_generator = PhotoGenerator(train_df, root / "train", **labeled)
    validation_generator = PhotoGenerator(validation_df, root / "train", **labeled)
    test_generator = PhotoGenerator(test_df, root / "test1", target_size=IMAGE_SIZE)
    model, model_file = small_network(), root / "dogs and 고양이.keras"
    model.save(model_file)
    prediction, class_names = model.predict(test_generator, verbose=0), ["cat", "dog"]
    test_df[class_names] = prediction
    test_df["label"] = [class_names[place] for place in prediction.argmax(axis=1)]
    show_photos, display = charts.show_photos, print
    return globals() | locals()


@pytest.fixture
def names(after_34, monkeypatch):
    """Return those names for one test, which then runs as beside the notebook."""
    monkeypatch.chdir(after_34["photos"].train_folder.parent / "notebooks")
    return dict(after_34)


def run(names, *cells):
    """Run cells of the notebook; return the value of the last one's last line, if it has one."""
    for cell in cells:
        tree = ast.parse(CELLS[cell])
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, cell, "exec"), names)
        value = last and eval(compile(ast.Expression(last.value), cell, "eval"), names)
    return value


def test_photos_of_ones_own_are_shown_and_other_files_passed_over(names, capsys):
    run(names, "step-35-own")
    assert "holds no photos yet" in capsys.readouterr().out and len(names["own_photos"]) == 5
    folder = Path("../my_photos")
    folder.mkdir()
    Image.new("RGBA", (300, 40), "red").save(folder / "Mimi.PNG")
    Image.new("L", (40, 300)).save(folder / "gray.jpeg")
    (folder / ".DS_Store").write_bytes(b"junk")
    run(names, "step-35-own")
    said = capsys.readouterr().out
    assert names["own_photos"].shape == (2, SIDE, SIDE, 3)
    assert "Mimi.PNG says" in said and "holds no photos" not in said


def test_mistakes_places_and_figures_are_those_of_the_network(names, capsys):
    run(names, "step-36-review", "step-36-mistakes", "step-37-look")
    wrong = names["answers"].argmax(axis=1) != names["validation_generator"].labels
    assert 0 < wrong.sum() < 20, "or there would be nothing to compare"
    assert sorted(names["mistakes"].index) == np.flatnonzero(wrong).tolist()
    assert names["mistakes"]["sure"].is_monotonic_decreasing

    counts = run(names, "step-38-score")
    said = capsys.readouterr().out
    assert f"validation: {1 - wrong.mean():.1%} of 20 photos right" in said
    answers = names["prediction"].argmax(axis=1)
    assert f"test: {np.mean(answers == np.arange(30) % 2):.1%} of 30 photos right" in said
    expected = pd.DataFrame(confusion_matrix(np.arange(30) % 2, answers), *[["cat", "dog"]] * 2)
    np.testing.assert_array_equal(counts, expected[counts.columns])
    run(names, "step-38-reliability")


def test_without_mistakes_and_without_answers_it_goes_through_as_well(names, capsys):
    names["photos"] = SimpleNamespace(**vars(names["photos"]) | {"answers_file": None})
    said = names["model"].predict(names["validation_generator"], verbose=0).argmax(axis=1)
    names["validation_df"] = names["validation_df"].assign(label=np.array(["cat", "dog"])[said])
    run(names, *[cell for cell in CELLS if cell.startswith(("step-36", "step-37", "step-38"))])
    said = capsys.readouterr().out
    assert "0 of 20 validation photos" in said and "There is nothing to show" in said
    assert "test:" not in said


POOLING = layers.GlobalMaxPooling2D(keepdims=True)
NETWORKS = {
    "activations inside, softmax outside": lambda: small_network(inside=True),
    "another size": lambda: small_network(size=(48, 36)),
    "any size": lambda: small_network(layers.GlobalAveragePooling2D(), size=(None, None)),
    "a pooling that keeps dimensions": lambda: small_network(POOLING, layers.Flatten()),
    "functional": lambda: keras.Model((model := small_network()).inputs, model.outputs),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_changed_as_readers_do_have_heat_maps_and_stay_as_they_are(network):
    model = NETWORKS[network]()
    height, width = (size or 20 for size in model.input_shape[1:3])
    photos = np.random.default_rng(1).integers(0, 256, (3, height, width, 3), np.uint8)
    before = keras.ops.convert_to_numpy(model(photos))
    heat = heat_map(model, photos)
    assert heat.shape == (3, height, width) and heat.min() >= 0
    np.testing.assert_allclose(heat.max(axis=(1, 2)), 1, atol=1e-6)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(model(photos)), before)


def test_the_heat_is_where_the_evidence_counts_and_cold_places_stay_as_they_are():
    photos = pictures(2)
    for y, x in [(0, 24), (24, 0), (24, 24)]:
        photos[:, y : y + 8, x : x + 8] = photos[:, :8, :8]
    find_colors = layers.Conv2D(2, 1, activation="relu")  # blue, red
    dense = layers.Dense(2, activation="softmax")
    inner = [find_colors, layers.MaxPooling2D(), layers.Flatten(), dense]
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *inner])
    find_colors.kernel.assign(np.array([[[[-1, 1], [0, 0], [1, -1]]]]))
    find_colors.bias.assign([-60, -60])  # dim ones are none
    counts = np.zeros((16, 16, 2, 2))  # the maps have half the size
    counts[:4, 12:] = np.eye(2)  # what lies in the upper right corner
    counts[12:, :4] = 1  # what speaks for both, speaks for none
    dense.kernel.assign(counts.reshape(-1, 2))
    assert keras.ops.convert_to_numpy(model(photos)).argmax(axis=1).tolist() == [0, 1]
    heat = heat_map(model, photos)
    there = heat[:, :8, 24:]
    assert there.mean() > 0.9 and heat.sum() < 1.3 * there.sum()
    warmed, is_cold = warm(photos[0], heat[0]), heat[0] == 0
    np.testing.assert_array_equal(warmed[is_cold], photos[0][is_cold])
    red, _, blue = warmed[4, 28].astype(int) - photos[0, 4, 28]
    assert red > 50 and blue < -50 and warmed.dtype == np.uint8


def test_a_network_without_places_is_refused_in_a_sentence():
    model = keras.Sequential([keras.Input((SIDE, SIDE, 3)), layers.Flatten(), layers.Dense(2)])
    with pytest.raises(ValueError, match="no feature maps"):
        heat_map(model, pictures(2))


def test_reliability_is_what_the_counts_say(capsys):
    sure, right = [0.65] * 6 + [0.95] * 4, [1, 0] * 3 + [1, 1, 1, 0]
    plot_reliability(np.array(right, bool), pd.Series(sure))
    shown = ast.literal_eval(capsys.readouterr().out)
    assert "65% sure, 50% right; 95% sure, 75%" in shown["text/plain"] and "image/png" in shown


def test_networks_are_compared_by_the_photos_that_only_one_gets_right():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(250)])
    first = np.arange(100) < 80
    second = first.copy()
    second[:3], second[80:92] = False, True
    table = compare({"a": (model, 600, first), "b": (model, 90, second), "c": (model, 1, first)})
    assert table.loc["a"].tolist() == ["1,250", "10.0", "80.0% (71.1% to 86.7%)", "", "", ""]
    luck = f"{2 * binom.cdf(3, 15, 0.5):.1%}"  # 12 against 3, or still less even
    assert table.loc["b"].tolist()[3:] == ["12", "3", luck] and table.loc["b", "minutes"] == "1.5"
    assert table.loc["c", "luck"] == "100.0%"


def test_the_residual_network_is_the_published_kind(names, capsys):
    run(names, "step-39-network")
    assert "2,762,722 parameters" in capsys.readouterr().out
    residual, photo = names["residual"], pictures(1)
    for side in [64, 96, 128]:
        assert residual(np.zeros((1, side, side, 3), "uint8")).shape == (1, 2)
    before = keras.ops.convert_to_numpy(residual(photo))
    kernels = [kernel for kernel in residual.trainable_weights if kernel.shape[:2] == (3, 3)]
    assert len(kernels) == 12, "two in each of six blocks"
    for kernel in kernels:
        kernel.assign(7 * kernel)
    np.testing.assert_allclose(residual(photo), before, atol=1e-6)  # a block adds nothing at first


@pytest.mark.parametrize("epochs", [1, 15, 50])
def test_the_plan_reaches_from_small_to_full_size_whatever_the_number_of_epochs(names, epochs):
    names["EPOCHS"] = epochs
    run(names, "step-39-recipe")
    sizes, rates = names["sizes"], [float(names["rate"](step)) for step in range(names["steps"])]
    assert len(sizes) == epochs and sizes[-1] == (SIDE, SIDE)
    assert min(rates) >= 0 and 0 < max(rates) <= 0.1 and (epochs < 15 or rates[-1] < max(rates) / 8)


def test_the_pretrained_network_joins_the_table(names, capsys):
    names["truth"] = names["validation_generator"].labels
    names["networks"] = {"step 9": (names["model"], 60, names["truth"] == 1)}
    inner = [layers.Rescaling(1 / 255), layers.Conv2D(9, 3), layers.Flatten()]
    names["pretrained"] = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *inner])
    run(names, "step-40-regression")
    assert "pretrained" in capsys.readouterr().out and len(names["numbers"]) == 20
    right = names["networks"]["pretrained"][2]
    assert right.mean() > 0.8, "red corners are easy, even for random weights"


def test_without_a_way_to_the_server_one_sentence_is_said_in_time(names, monkeypatch, capsys):
    if Path("~/.keras/models/efficientnetv2-b0_notop.h5").expanduser().exists():
        pytest.skip("the network was fetched before")
    sooner = CELLS["step-40-pretrained"].replace("setdefaulttimeout(15)", "setdefaulttimeout(1)")
    monkeypatch.setitem(CELLS, "step-40-pretrained", sooner)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # never answers
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{listener.getsockname()[1]}")
        urllib.request.install_opener(None)  # the next one reads this variable
        began = time.monotonic()
        run(names, "step-40-pretrained", "step-40-regression")
    urllib.request.install_opener(None)
    socket.setdefaulttimeout(None)
    assert names["pretrained"] is None and time.monotonic() - began < 12
    said = capsys.readouterr().out
    assert "cannot be fetched now. Run this step again" in said and "Error" not in said


def test_the_exported_network_says_the_same(names, capsys):
    run(names, "step-41-export")
    if Version(keras.__version__) < Version("3.13"):
        assert "Exporting takes TensorFlow and Keras 3.13 or later" in capsys.readouterr().out
        return
    exported = names["phone_file"]
    assert exported.name == "dogs and 고양이.tflite" and exported.stat().st_size > 10_000
    assert np.ptp(names["prediction"]) > 0.01, "answers all alike would prove nothing"
    np.testing.assert_allclose(names["on_phone"], names["prediction"], atol=0.001)
    said, chatter = capsys.readouterr()
    assert "step 30, over 30 photos: 0.000" in said and chatter == ""


def test_an_export_that_fails_says_so_in_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "executable", shutil.which("false") or "cmd")
    assert export_for_phones("a.keras", tmp_path / "a.tflite", pictures(1)) is None
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and said.startswith("Exporting takes TensorFlow and Keras 3.13")
