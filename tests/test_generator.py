"""Batches of photos: the same ones whatever was done before, changed as is said, or a sentence."""

from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import pandas as pd
import pytest
from helpers.generator import PhotoGenerator
from helpers.photos import PhotosError
from helpers.training import ResumeTraining
from keras import layers
from PIL import Image

SIZE = (24, 32)  # height and width of the photos
CHANGES = {"rotation_range": 15, "shear_range": 5, "width_shift_range": 0.1, "tint_range": 0.08}
CHANGES |= {"height_shift_range": 0.1, "zoom_range": 0.2, "horizontal_flip": True}
CHANGES |= {"brightness_range": 0.2, "contrast_range": 0.2, "shuffle": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with 39 photos of random pixels, and a file that is no photo."""
    folder, random = tmp_path_factory.mktemp("random"), np.random.default_rng(1)
    for number in range(39):
        pixels = random.integers(0, 256, (*SIZE, 3), dtype="uint8")
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "page.jpg").write_text("<html>Please log in.</html>")
    return folder


def table(count=31, first=0, **columns):
    names = [f"{number}.png" for number in range(first, first + count)]
    labels = ["cat", "dog"] * (count // 2) + ["cat"] * (count % 2)
    return pd.DataFrame({"filename": names, "label": labels} | columns)


def make(folder, count=31, first=0, **options):
    options = {"y_col": "label", "target_size": SIZE, "batch_size": 8} | options
    return PhotoGenerator(table(count, first), folder, **options)


def epoch_of(generator, epoch=0):
    """Return all photos that a generator with labels hands out in an epoch."""
    generator.epoch = epoch
    return np.concatenate([generator[number][0] for number in range(len(generator))])


def train(generator, folder, outputs, size=SIZE):
    """Train a new network for three epochs; return it and its history."""
    model = keras.Sequential([keras.Input((*size, 3)), layers.Rescaling(1 / 255)])
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(2, activation="softmax", kernel_initializer="zeros"))
    model.compile(keras.optimizers.SGD(0.5), loss="categorical_crossentropy")
    generators = [generator, make(folder, 8, first=31)]
    options = {"validation_data": generators[1], "epochs": 3, "shuffle": False, "verbose": 0}
    options["callbacks"] = [ResumeTraining(model, generators, folder=outputs)]
    return model, model.fit(generator, **options).history


def test_batches_are_the_same_whoever_looked_before_and_at_once(folder):
    expected = epoch_of(make(folder, **CHANGES), 3)
    generator = make(folder, **CHANGES)
    for index in (3, 0, 1, 2):
        generator[index]
    generator.on_epoch_end()
    list(generator)
    np.testing.assert_array_equal(epoch_of(generator, 3), expected)
    with ThreadPoolExecutor(8) as pool:
        batches = list(pool.map(lambda index: generator[index % 4][0], range(32)))
    np.testing.assert_array_equal(np.concatenate(batches), np.tile(expected, (8, 1, 1, 1)))
    np.testing.assert_array_equal(epoch_of(make(folder, batch_size=7, **CHANGES), 3), expected)
    for seed, epoch in [(42, 2), (43, 3)]:
        other = epoch_of(make(folder, seed=seed, **CHANGES), epoch)
        assert (other != expected).mean(axis=(1, 2, 3)).min() > 0.5, "every photo is changed anew"


def test_trainings_are_the_same_whatever_was_done_with_the_generator(folder, tmp_path):
    model, _ = train(make(folder, **CHANGES), folder, tmp_path / "untouched")
    generator = make(folder, **CHANGES)
    assert len(generator) == 4 and generator[1][0].any()
    model.evaluate(generator, verbose=0)
    first, second = (model.predict(generator, verbose=0) for _ in range(2))
    assert (first != second).any(), "without the callback, each epoch has its own variants"
    other, _ = train(generator, folder, tmp_path / "used")
    for mine, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        assert np.abs(mine - theirs).max() == 0 and np.abs(mine).max() > 0.001


def test_batches_have_the_shapes_the_order_and_the_answers_of_the_table(folder):
    df = table()
    generator = PhotoGenerator(df, str(folder), y_col="label", target_size=SIZE, batch_size=8)
    batches = list(generator)
    assert [photos.shape for photos, _ in batches] == [(8, *SIZE, 3)] * 3 + [(7, *SIZE, 3)]
    assert {(p.dtype.name, a.dtype.name) for p, a in batches} == {("uint8", "float32")}
    numbers = [0, 1] * 15 + [0]
    np.testing.assert_array_equal(np.concatenate([a for _, a in batches]), np.eye(2)[numbers])
    assert list(generator.labels) == list(generator.classes) == numbers
    assert generator.class_indices == {"cat": 0, "dog": 1}
    assert generator.n == generator.samples == 31 and generator.filenames == list(df["filename"])
    as_they_lie = np.stack([np.asarray(Image.open(folder / name)) for name in df["filename"]])
    np.testing.assert_array_equal(np.concatenate([p for p, _ in batches]), as_they_lie)
    np.testing.assert_array_equal(make(folder, 3, y_col=None)[0], as_they_lie[:3])
    pd.testing.assert_frame_equal(df, table())
    with pytest.raises(IndexError, match="no batch 4; there are 4, from 0 on"):
        generator[4]


def test_shuffled_epochs_hold_every_photo_once_with_its_own_answer(folder):
    generator = make(folder, shuffle=True)
    numbers = {photo.tobytes(): number for number, photo in enumerate(make(folder).pixels)}
    orders = []
    for generator.epoch in range(2):
        orders.append([numbers[photo.tobytes()] for photos, _ in generator for photo in photos])
        answers = np.concatenate([answers for _, answers in generator])
        assert list(answers[:, 1]) == [number % 2 for number in orders[-1]]
        assert sorted(orders[-1]) == list(range(31)) != orders[-1]
    assert orders[0] != orders[1]


def test_whole_paths_work_and_what_old_notebooks_ask_for_is_there(folder):
    df = table(4, filename=[str(folder / f"{n}.png") for n in range(4)])
    df = df.astype({"label": "category"})
    generator = PhotoGenerator(df, y_col="label", classes=["dog", "cat"], target_size=SIZE)
    assert generator.filepaths == list(df["filename"])
    assert generator.class_indices == {"dog": 0, "cat": 1} and list(generator.classes) == [1, 0] * 2
    generator.reset()
    np.testing.assert_array_equal(generator[0][0], make(folder, 4)[0][0])
    assert make(folder, 1, classes=["cat", "dog"])[0][1].tolist() == [[1, 0]], "one kind will do"


def variants(picture, tmp_path, **options):
    """Return 300 variants of a picture, a NumPy array, as numbers with a fraction."""
    Image.fromarray(picture).convert("RGB").save(tmp_path / "picture.png")
    df = pd.DataFrame({"filename": ["picture.png"] * 300})
    options |= {"target_size": picture.shape[:2], "batch_size": 300}
    return PhotoGenerator(df, tmp_path, **options)[0].astype(float)


def assert_fills(values, reach, middle=0):
    """Assert that values lie in a range, and come near both its ends."""
    lowest, highest = (values.min() - middle) / reach, (values.max() - middle) / reach
    assert -1.05 < lowest < -0.85 and 0.85 < highest < 1.05


def check_moves(right, above, name, reach):
    """Check where the spot right of the center went, and the one above it (right and down)."""
    turned, tilted = (np.rad2deg(np.arctan2(y, x)) for x, y in (right, above))
    if name == "rotation_range":
        assert_fills(turned, reach)
        np.testing.assert_allclose(np.hypot(*right), 16, atol=0.2)
        np.testing.assert_allclose(tilted + 90, turned, atol=1)
    elif name == "shear_range":
        np.testing.assert_allclose(right.T, [[16, 0]] * 300, atol=0.1)
        assert_fills(tilted + 90, reach)
    elif name == "zoom_range":  # above 1, all is smaller
        assert_fills(16 / right[0], reach, 1)
        assert_fills(-16 / above[1], reach, 1)
        assert abs(np.corrcoef(right[0], above[1])[0, 1]) < 0.2, "drawn for each separately"
    else:
        reach *= 65 if reach < 1 else 1
        moved = right - [[16], [0]]
        np.testing.assert_allclose(moved, above - [[0], [-16]], atol=0.1)
        along, across = moved if name == "width_shift_range" else moved[::-1]
        assert_fills(along, reach)
        np.testing.assert_allclose(across, 0, atol=0.05)


MOVES = [("rotation_range", 30), ("shear_range", 20), ("zoom_range", 0.2)]
MOVES += [("width_shift_range", 0.1), ("width_shift_range", 5)]
MOVES += [("height_shift_range", 0.1), ("height_shift_range", 3)]


@pytest.mark.parametrize(("name", "value"), MOVES)
def test_photos_are_moved_as_is_said(tmp_path, name, value):
    picture = np.zeros((65, 65, 3), "uint8")
    picture[31:34, 47:50, 0] = picture[15:18, 31:34, 1] = 200  # red on the right, green above
    light = variants(picture, tmp_path, **{name: value})[..., :2]
    light /= light.sum(axis=(1, 2), keepdims=True)
    from_center = np.arange(65) - 32
    right = np.einsum("nyxc,x->cn", light, from_center)
    down = np.einsum("nyxc,y->cn", light, from_center)
    check_moves(*np.stack([right, down], axis=1), name, value)


def test_half_of_the_photos_are_mirrored_and_edges_are_repeated(folder, tmp_path):
    generator = make(folder, horizontal_flip=True)
    photos, mirrored = generator.pixels, generator.pixels[:, :, ::-1]
    is_mirrored = (epoch_of(generator) == mirrored).all(axis=(1, 2, 3))
    assert 8 < is_mirrored.sum() < 23
    expected = np.where(is_mirrored[:, None, None, None], mirrored, photos)
    np.testing.assert_array_equal(epoch_of(generator), expected)

    slope = np.repeat(np.arange(0, 240, 10, dtype="uint8")[None], 24, axis=0)
    for photo in variants(slope, tmp_path, width_shift_range=8)[..., 0]:
        moved = (photo[12, 12] - 120) / 10
        expected = 10 * np.clip(np.arange(24) + moved, 0, 23)
        np.testing.assert_allclose(photo, [expected] * 24, atol=1.5)


def test_colors_follow_their_formulas_within_their_ranges(folder, tmp_path):
    generator = make(folder, brightness_range=(1.5, 1.5), contrast_range=[0.8, 0.8])
    expected = np.clip(127.5 + (1.5 * generator.pixels.astype(float) - 127.5) * 0.8, 0, 255)
    np.testing.assert_allclose(epoch_of(generator).astype(float), expected, atol=1)

    gray = np.full((8, 8), 100, "uint8")
    assert_fills(variants(gray, tmp_path, brightness_range=0.2)[:, 0, 0, 0], 20, 100)
    assert_fills(variants(gray, tmp_path, contrast_range=0.5)[:, 0, 0, 0], 13.75, 100)
    colors = variants(gray, tmp_path, tint_range=0.1)[:, 0, 0].T
    for color in colors:
        assert_fills(color, 25.5, 100)
    assert np.abs(np.corrcoef(colors) - np.eye(3)).max() < 0.2, "each color by itself"


def test_photos_grow_from_epoch_to_epoch_and_keras_trains_on_them(folder, tmp_path):
    growing = make(folder, target_size=[(6, 8), (6, 8), (12, 16), SIZE])
    for growing.epoch, size in enumerate([(6, 8), (6, 8), (12, 16), SIZE, SIZE]):
        shapes = [photos.shape[1:3] for photos, _ in growing]
        assert shapes == [SIZE, size, size, size], "the largest first, so that Keras takes all"
    growing.epoch = 0
    means = growing.pixels[8:16].reshape(8, 6, 4, 8, 4, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(growing[1][0], means, atol=1)
    for run in ("once", "again from the first size"):
        _, history = train(growing, folder, tmp_path / run, (None, None))
        assert len(history["loss"]) == 3 and np.isfinite(history["val_loss"]).all()


BAD = {
    "no column": (table(2), {"x_col": "id"}, "no column 'id'; it has ['filename', 'label']."),
    "several columns": (table(2), {"y_col": ["label", "size"]}, "no column ['label', 'size']; it"),
    "an empty table": (table(0), {}, "The table is empty"),
    "numbers": (table(2, label=[0, 1]), {}, "holds 0, which is no word"),
    "a missing label": (table(2, label=["cat", None]), {}, "which is no word"),
    "one class": (table(1), {}, "holds ['cat']. Name all classes, such as classes="),
    "another class": (table(2), {"classes": ["cat", "cow"]}, "holds ['cat', 'dog']. Name all"),
    "a wide zoom": (table(2), {"zoom_range": 1.5}, "zoom_range is 1.5; it takes a share such as"),
    "a turned pair": (table(2), {"zoom_range": (1.2, 0.8)}, "zoom_range is (1.2, 0.8); it takes"),
    "no size": (table(2), {"target_size": 128}, "target_size is 128; it takes (height, width)"),
    "a missing name": (table(2, filename=["0.png", None]), {}, " is no photo (No such file"),
    "a missing file": (table(40), {}, "39.png"),
    "a web page": (table(2, filename=["0.png", "page.jpg"]), {}, "page.jpg is no photo ("),
    "rescale": (table(2), {"rescale": 1 / 255}, "no argument 'rescale': make keras.layers.Resc"),
    "cval": (table(2), {"cval": 0}, "no argument 'cval': leave it out; the pixels at the edge"),
    "no argument": (table(2), {"size": 8}, "no argument 'size': see 'Porting an old notebook' in"),
    "no batches": (table(2), {"batch_size": 0}, "batch_size is 0; it takes a whole number from 1"),
    "no seed": (table(2), {"seed": None}, "seed is None; it takes a whole number from 0 on."),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_answered_in_a_sentence(folder, case):
    df, options, sentence = BAD[case]
    with pytest.raises((ValueError, TypeError, PhotosError)) as raised:
        PhotoGenerator(df, folder, **({"y_col": "label", "target_size": SIZE} | options))
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value) and "Errno" not in str(raised.value)
