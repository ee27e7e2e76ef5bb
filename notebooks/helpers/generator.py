"""Steps 20 to 23, 29, 39: batches of photos for Keras, from a table of file names and a folder."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from helpers.photos import PhotosError, load_photo

BOX = Image.Resampling.BOX  # averages

# What `ImageDataGenerator` and `flow_from_dataframe` had, and what stands in its place.
REPLACED = {
    "rescale": "make keras.layers.Rescaling(1 / 255) the network's first layer",
    "preprocessing_function": "make it a layer of the network",
    "featurewise_center featurewise_std_normalization samplewise_center "
    "samplewise_std_normalization zca_whitening zca_epsilon": "leave it out, or begin the network "
    "with keras.layers.Normalization",
    "vertical_flip": "add keras.layers.RandomFlip('vertical') to the network",
    "channel_shift_range": "use tint_range, a share of 255, which moves each color by itself",
    "fill_mode cval": "leave it out; the pixels at the edge are repeated",
    "validation_split subset": "split the table (train_test_split); give each half a generator",
    "class_mode": "name y_col for one column of words, or leave it out where there are no answers; "
    "numbers to predict, or several columns, need a keras.utils.PyDataset of your own",
    "weight_col": "give fit a class_weight",
    "save_to_dir save_prefix save_format": "look at generator[0], a batch",
    "validate_filenames drop_duplicates has_ext sort": "change the table beforehand",
    "data_format dtype color_mode interpolation interpolation_order": "leave it out",
}


class PhotoGenerator(keras.utils.PyDataset):
    """Batches of photos named in a table, changed at random if wanted.

    It stands where notebooks had `ImageDataGenerator(...).flow_from_dataframe(...)`, for one column
    of labels in words; notebooks/README.md goes through the old arguments. Each photo is decoded
    once and kept in memory, 49 KB for 128 x 128 pixels. How it is changed depends on the seed, the
    epoch and its position in it, and nothing else. `PhotoGenerator(table, "photos", "name")[0]` is
    a batch, bytes of the shape (batch size, height, width, 3). With `y_col`, a batch is a pair of
    photos and one-hot answers, float32 of the shape (batch size, number of classes).

    Args:
        dataframe: a pandas DataFrame, a row for each photo. It is not changed.
        directory: the folder of the photos; None where the table holds whole paths.
        x_col: the column of file names.
        y_col: the column of labels, which are words, or None for photos without answers.
        target_size: (height, width) in pixels; photos are stretched to it. Or a list of these, one
            for each epoch; the last one stays. The first batch of every epoch has the largest size
            then, since Keras takes the shape of all batches from the first two.
        batch_size: photos in a batch. The last batch of an epoch holds what is left.
        shuffle: whether each epoch has an order of its own.
        seed: an integer that decides what is drawn.
        classes: the labels, in the order of the network's outputs; sorted by default.
        rotation_range, shear_range: photos are turned and slanted by up to so many degrees.
        width_shift_range, height_shift_range: moved by up to this share of the size.
        zoom_range: how much of a photo is seen, in width and height separately: factors between
            0.8 and 1.2 for 0.2, or a pair; those below 1 enlarge.
        horizontal_flip: whether half of the photos are mirrored, left to right.
        brightness_range: all values of a photo are multiplied by a factor, 0.2 or a pair.
        contrast_range: their distances from medium gray (127.5) are.
        tint_range: red, green and blue are each moved by up to this share of 255.

    Attributes: `epoch` (set by `ResumeTraining`, else counted up by Keras), `filenames`,
    `filepaths`, `labels` or `classes` (numbers), `class_indices` (label to number), `samples` or
    `n` (number of photos), `pixels` (all photos in the largest size).

    Raises TypeError for an argument that the old generator had, with advice; ValueError for a
    table, label or setting that does not fit; PhotosError for a bad file.
    """

    def __init__(
        self,
        dataframe,
        directory=None,
        x_col="filename",
        y_col=None,
        target_size=(128, 128),
        batch_size=32,
        shuffle=False,
        seed=42,
        classes=None,
        rotation_range=0,
        shear_range=0,
        width_shift_range=0,
        height_shift_range=0,
        zoom_range=0,
        horizontal_flip=False,
        brightness_range=0,
        contrast_range=0,
        tint_range=0,
        **old_arguments,
    ):
        for name in old_arguments:
            advice = [text for names, text in REPLACED.items() if name in names.split()]
            advice += ["see 'Porting an old notebook' in notebooks/README.md"]
            raise TypeError(f"PhotoGenerator has no argument {name!r}: {advice[0]}.")
        # With one worker, TensorFlow may wait long between epochs; with two, JAX mixes up batches.
        super().__init__(workers=1 if keras.backend.backend() == "jax" else 2)
        for column in [x_col] if y_col is None else [x_col, y_col]:
            if column not in list(dataframe):
                raise ValueError(f"The table has no column {column!r}; it has {[*dataframe]}.")
        if dataframe.empty:
            raise ValueError("The table is empty, so there are no photos to make batches of.")
        if np.ndim(target_size) not in (1, 2) or np.shape(target_size)[-1] != 2:
            raise ValueError(f"target_size is {target_size}; it takes (height, width), in pixels.")
        for name, value, least in [("batch_size", batch_size, 1), ("seed", seed, 0)]:
            if not isinstance(value, (int, np.integer)) or value < least:
                raise ValueError(f"{name} is {value}; it takes a whole number from {least} on.")

        self.sizes = [target_size] if np.ndim(target_size) == 1 else list(target_size)
        self.batch_size, self.shuffle, self.seed, self.epoch = batch_size, shuffle, seed, 0
        height, width = max(self.sizes, key=np.prod)
        self.changes = {
            "rotation": np.deg2rad(rotation_range),
            "shear": np.deg2rad(shear_range),
            "shift_x": width_shift_range / (1 if width_shift_range < 1 else width),
            "shift_y": height_shift_range / (1 if height_shift_range < 1 else height),
            "zoom": factors("zoom_range", zoom_range),
            "flip": bool(horizontal_flip),
            "brightness": factors("brightness_range", brightness_range),
            "contrast": factors("contrast_range", contrast_range),
            "tint": 255 * tint_range,
        }
        self.is_changing = bool({*self.changes.values()} - {0, (1, 1)})  # what changes nothing

        self.filenames = list(dataframe[x_col])
        self.filepaths = [str(Path(directory or "", str(name))) for name in self.filenames]
        self.samples = self.n = len(self.filenames)
        self.labels = self.classes = self.answers = None
        self.class_indices = {}
        if y_col is not None:
            self.class_indices = number_classes(dataframe[y_col], classes)
            self.labels = self.classes = dataframe[y_col].map(self.class_indices).to_numpy(int)
            self.answers = np.eye(len(self.class_indices), dtype="float32")[self.labels]
        self.settings = {"batch_size": batch_size, "shuffle": shuffle, "seed": seed}
        self.settings |= {"sizes": self.sizes, "changes": self.changes}
        changed = [os.path.exists(path) and os.path.getmtime(path) for path in self.filepaths]
        self.pixels = load_photos(tuple(self.filepaths), (width, height), tuple(changed))
        self._plan = (None, None, None, self.pixels)

    def __len__(self):
        return -(-self.n // self.batch_size)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(f"There is no batch {index}; there are {len(self)}, from 0 on.")
        order, draws, pixels = self._plan_epoch()
        positions = slice(index * self.batch_size, (index + 1) * self.batch_size)
        rows, draws = order[positions], draws[positions]
        photos = (self.pixels if index == 0 else pixels)[rows]
        if self.is_changing:
            transforms = self._transforms(draws, *photos.shape[1:3])
            changed = change_photos(photos, transforms, *self._colors(draws))
            photos = keras.ops.convert_to_numpy(changed)
        return photos if self.answers is None else (photos, self.answers[rows])

    def on_epoch_end(self):
        self.epoch += 1

    def size_in(self, epoch):
        """Return the (height, width) that photos have in an epoch, in pixels."""
        return self.sizes[min(epoch, len(self.sizes) - 1)]

    def reset(self):
        """Do nothing: batches are asked for by number. Old notebooks call it before predicting."""

    def _plan_epoch(self):
        """Return this epoch's order, 12 numbers from -1 to 1 for each position, and the pixels."""
        plan, epoch = self._plan, self.epoch
        if plan[0] != epoch:
            random = np.random.default_rng([self.seed, epoch])
            order = random.permutation(self.n) if self.shuffle else np.arange(self.n)
            draws = random.uniform(-1, 1, (self.n, 12))
            pixels, size = plan[-1], tuple(self.size_in(epoch))
            if size == self.pixels.shape[1:3]:
                pixels = self.pixels
            elif size != pixels.shape[1:3]:  # else those of the epoch before will do
                pixels = np.empty((self.n, *size, 3), "uint8")
                for place, photo in enumerate(self.pixels):
                    pixels[place] = Image.fromarray(photo).resize(size[::-1], BOX)
            self._plan = plan = (epoch, order, draws, pixels)
        return plan[1:]

    def _transforms(self, draws, height, width):
        """Return affine transforms around the picture's center, shape (photos, 8).

        The eight numbers say where in the old picture to look for each pixel of the new one; the
        last two would bend the perspective and are 0.
        """
        change = self.changes
        turn = draws[:, 0] * change["rotation"]
        tilt = turn + draws[:, 1] * change["shear"]
        zoom_x, zoom_y = (np.interp(draws[:, column], (-1, 1), change["zoom"]) for column in (2, 3))
        shift_x, shift_y = draws[:, 4] * change["shift_x"], draws[:, 5] * change["shift_y"]
        flip = np.where((draws[:, 6] < 0) & change["flip"], -1, 1)

        a0, a1 = np.cos(turn) * zoom_x * flip, -np.sin(tilt) * zoom_y
        b0, b1 = np.sin(turn) * zoom_x * flip, np.cos(tilt) * zoom_y
        middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
        a2 = middle_x + shift_x * width - a0 * middle_x - a1 * middle_y
        b2 = middle_y + shift_y * height - b0 * middle_x - b1 * middle_y
        none = np.zeros(len(draws))
        return np.stack([a0, a1, a2, b0, b1, b2, none, none], axis=1).astype("float32")

    def _colors(self, draws):
        """Return gains and offsets for each photo and color, both of shape (photos, 1, 1, 3)."""
        change = self.changes
        brightness = np.interp(draws[:, 7:8], (-1, 1), change["brightness"])
        contrast = np.interp(draws[:, 8:9], (-1, 1), change["contrast"])
        offsets = 127.5 * (1 - contrast) + draws[:, 9:12] * change["tint"]
        gains = np.broadcast_to(brightness * contrast, offsets.shape)
        return gains[:, None, None].astype("float32"), offsets[:, None, None].astype("float32")


def change_photos(photos, transforms, gains, offsets):
    """Return photos, bytes, moved by affine `transforms`, then recolored."""
    ops = keras.ops
    photos = ops.image.affine_transform(
        ops.cast(photos, "float32"), transforms, fill_mode="nearest", data_format="channels_last"
    )
    photos = ops.clip(photos * gains + (offsets + 0.5), 0, 255)  # 0.5: the cast cuts off
    return ops.cast(photos, "uint8")


if keras.backend.backend() == "jax":  # compiled once for each shape; TensorFlow needs no help
    import jax

    change_photos = jax.jit(change_photos)


@lru_cache(maxsize=4)
def load_photos(paths, size, changed):
    """Return photos as a read-only uint8 array of the shape (number, height, width, 3).

    They are stretched to `size`, (width, height) in pixels. The last four arrays are kept for cells
    that are run again; `changed`, the files' times, lets other files be loaded. Raises PhotosError.
    """

    def load(path):
        try:
            return np.asarray(load_photo(path, size))
        except Exception as problem:  # decoders raise all kinds of errors
            reason = getattr(problem, "strerror", None) or problem
            raise PhotosError(
                f"{path} is no photo ({reason}). Run step 0 again, or leave it out of the table."
            ) from None

    pixels = np.empty((len(paths), size[1], size[0], 3), "uint8")
    with ThreadPoolExecutor() as pool:
        for number, photo in enumerate(pool.map(load, paths)):
            pixels[number] = photo
    pixels.flags.writeable = False
    return pixels


def factors(name, value):
    """Return the range (lowest, highest) that a share such as 0.2 or a pair of factors means."""
    bounds = value if isinstance(value, (tuple, list)) else (1 - (value or 0), 1 + (value or 0))
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1]:
        raise ValueError(f"{name} is {value}; it takes a share such as 0.2, or a pair of factors.")
    return tuple(bounds)


def number_classes(labels, classes=None):
    """Return a dict of label and number; raise ValueError when labels and classes do not fit."""
    for label in labels.unique().tolist():
        if not isinstance(label, str):
            raise ValueError(
                f"The column {labels.name!r} holds {label!r}, which is no word. Drop empty rows; "
                "make words of numbers (.map({1: 'dog'})); to predict numbers: notebooks/README.md."
            )
    classes = sorted(labels.unique()) if classes is None else list(classes)
    if len(classes) < 2 or not set(labels) <= set(classes):
        raise ValueError(
            f"The column {labels.name!r} holds {sorted(set(labels))}. Name all classes, such as "
            "classes=['cat', 'dog'], or leave y_col out for photos without answers."
        )
    return {label: number for number, label in enumerate(classes)}
