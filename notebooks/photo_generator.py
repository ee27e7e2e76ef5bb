"""Steps 20 to 22, 29 and 39: batches of photos for Keras, from a table of file names and a folder.

`PhotoGenerator` takes the place of `ImageDataGenerator(...).flow_from_dataframe(...)`, which Keras
retired without a successor. It imports one function of step 0, which decodes the photos.
"""

import weakref
from pathlib import Path

import keras
import numpy as np
from get_photos import load_photos

PHOTOS_IN_MEMORY = weakref.WeakValueDictionary()  # see `load_once`


class PhotoGenerator(keras.utils.PyDataset):
    """Batches of photos named in a table, changed at random if wanted.

    Every photo is decoded once and kept in memory as bytes: 49 MB for a thousand photos of
    128 x 128 pixels. The changes are drawn anew for every photo in every epoch, and computed by
    `keras.ops`, so every backend will do; JAX compiles them. What is drawn depends on the seed, the
    number of the epoch (attribute `epoch`) and the photo's position in it, and on nothing else.

    Who ports an old notebook finds its arguments here under the same names:

    | ImageDataGenerator, flow_from_dataframe  | PhotoGenerator                                |
    |------------------------------------------|-----------------------------------------------|
    | `rescale=1/255`                          | `keras.layers.Rescaling(1/255)` as a layer    |
    | `rotation_range`, `shear_range`          | the same, in degrees                          |
    | `width_shift_range`, `height_shift_range`| the same: shares below 1, pixels from 1 on    |
    | `zoom_range`, `brightness_range`         | the same: 0.2 or (0.8, 1.2)                   |
    | `channel_shift_range`                    | the same, in levels of 0 to 255               |
    | `horizontal_flip`                        | the same                                      |
    | (none)                                   | `contrast_range`: 0.2 or (0.8, 1.2)           |
    | (none)                                   | `scale_range`: 0.2 or (0.8, 1.2); `cutout`    |
    | `fill_mode="nearest"`                    | always: the pixels at the edge are repeated   |
    | `dataframe`, `directory`, `x_col`,       | the same                                      |
    | `y_col`, `target_size`, `classes`,       |                                               |
    | `batch_size`, `seed`                     |                                               |
    | `shuffle` (True by default)              | the same (False by default)                   |
    | `class_mode="categorical"`, `None`       | `y_col` given, not given                      |
    | `fit_generator(generator)`               | `fit(generator)`                              |

    Args:
        dataframe: a pandas DataFrame, a row for each photo. It is not changed.
        directory: the folder of the photos.
        x_col: the column of file names.
        y_col: the column of labels (strings), or None for photos without answers.
        target_size: (height, width) in pixels; photos are stretched to it.
        batch_size: photos in a batch. The last batch of an epoch holds what is left.
        shuffle: whether each epoch has an order of its own.
        seed: an integer that decides what is drawn.
        classes: the labels, in the order of the network's outputs; by default those found in
            `y_col`, sorted.
        rotation_range: photos are turned by up to so many degrees, either way.
        width_shift_range, height_shift_range: moved by up to this share of the size.
        shear_range: slanted by up to so many degrees.
        zoom_range: how much of a photo is seen, in width and height separately: factors from
            this range; those below 1 enlarge, those above 1 make smaller.
        scale_range: the same with one factor for both, so that nothing gets wider or slimmer.
        horizontal_flip: whether half of the photos are mirrored, left to right.
        brightness_range: all values of a photo are multiplied by a factor from this range.
        contrast_range: their distances from medium gray (127.5) are.
        channel_shift_range: red, green and blue are each raised or lowered by up to so many levels.
        cutout: half of the photos get a gray square at a random place, its side this share of the
            photo's shorter one. After DeVries and Taylor, "Improved regularization of convolutional
            neural networks with Cutout" (2017), section 3.2.
        workers: threads that prepare batches while the network trains; where `threads_mix_epochs`,
            there are none.

    Batches have the shape (batch size, height, width, 3), bytes from 0 to 255; with labels they
    are pairs of photos and one-hot answers, float32 of the shape (batch size, number of classes).

    Attributes: `class_indices` (label to number), `filenames`, `samples` or `n` (number of
    photos), `epoch` (counted up by Keras after every epoch; may be set), `share` (None, or what
    part of each batch to hand out while several devices train together: the number of this
    process, how many processes, and how many devices there are. Each device gets as many photos;
    those left over at the end of an epoch are left out).

    Raises:
        ValueError: for a column that is not there, an empty table, a label that is none of
            `classes`, fewer than two classes, a batch size below 1, a range that is none, or a
            cutout that is no share.
        PhotosError: for a file that is missing or cannot be decoded.
    """

    def __init__(
        self,
        dataframe,
        directory,
        x_col="filename",
        y_col=None,
        target_size=(128, 128),
        batch_size=32,
        shuffle=False,
        seed=42,
        classes=None,
        rotation_range=0,
        width_shift_range=0,
        height_shift_range=0,
        shear_range=0,
        zoom_range=0,
        horizontal_flip=False,
        brightness_range=0,
        contrast_range=0,
        channel_shift_range=0,
        scale_range=0,
        cutout=0,
        workers=2,
    ):
        super().__init__(workers=1 if threads_mix_epochs() else workers)
        for column in [x_col] if y_col is None else [x_col, y_col]:
            if column not in dataframe:
                raise ValueError(
                    f"The table has no column {column!r}; it has {', '.join(map(repr, dataframe))}."
                )
        if dataframe.empty:
            raise ValueError("The table is empty, so there are no photos to make batches of.")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; a batch needs at least one photo.")
        if not 0 <= cutout <= 1:
            raise ValueError(f"cutout is {cutout}; it takes a share of the side, such as 0.4.")
        height, width = target_size
        self.batch_size, self.shuffle, self.seed, self.epoch = batch_size, shuffle, seed, 0
        self.share = None
        self.changes = {
            "rotation": np.deg2rad(rotation_range),
            "shear": np.deg2rad(shear_range),
            "shift_x": width_shift_range if width_shift_range < 1 else width_shift_range / width,
            "shift_y": height_shift_range
            if height_shift_range < 1
            else height_shift_range / height,
            "zoom": factors("zoom_range", zoom_range),
            "flip": bool(horizontal_flip),
            "brightness": factors("brightness_range", brightness_range),
            "contrast": factors("contrast_range", contrast_range),
            "channel_shift": channel_shift_range,
        }
        # Only where they are used, so that the settings of a generator without them stay the same.
        if scale_range:
            self.changes["scale"] = factors("scale_range", scale_range)
        if cutout:
            self.changes["cutout"] = cutout
        self.moves = rotation_range or shear_range or width_shift_range or height_shift_range
        self.moves = bool(self.moves or zoom_range or scale_range or horizontal_flip)
        self.recolors = bool(brightness_range or contrast_range or channel_shift_range)

        self.directory = Path(directory)
        self.filenames = list(dataframe[x_col])
        self.samples = self.n = len(self.filenames)
        self.labels = self.answers = None
        self.class_indices = {}
        if y_col is not None:
            self.labels = list(dataframe[y_col])
            self.class_indices = number_classes(self.labels, classes, y_col)
            numbers = [self.class_indices[label] for label in self.labels]
            self.answers = np.eye(len(self.class_indices), dtype="float32")[numbers]
        self.pixels = load_once(self.directory, self.filenames, (width, height))
        self.settings = {"batch_size": batch_size, "shuffle": shuffle, "seed": seed}
        self.settings |= {"target_size": list(target_size), "changes": self.changes}
        if classes is not None:
            self.settings["classes"] = list(classes)  # their order decides what is learned
        self._planned = (None, None, None)

    def __len__(self):
        least = 1 if self.share is None else self.share[2]
        return self.n // self.batch_size + (self.n % self.batch_size >= least)

    def on_epoch_end(self):
        self.epoch += 1

    def __getitem__(self, index):
        if not -len(self) <= index < len(self):
            raise IndexError(f"There is no batch {index}; there are {len(self)}, from 0 on.")
        index %= len(self)
        order, draws = self._plan()
        first, last = index * self.batch_size, min((index + 1) * self.batch_size, self.n)
        if self.share is not None:
            process, processes, devices = self.share
            each = (last - first) // devices * devices // processes
            first += process * each
            last = first + each
        positions = slice(first, last)
        rows = order[positions]
        photos = self.pixels[rows]
        if self.moves or self.recolors:
            photos = self._change(photos, draws[positions])
        if "cutout" in self.changes:
            photos = self._cut_out(photos, draws[positions])
        return photos if self.answers is None else (photos, self.answers[rows])

    def _plan(self):
        """Return this epoch's order of photos, and 16 numbers from -1 to 1 for each position."""
        if self._planned[0] != self.epoch:
            random = np.random.default_rng([self.seed, self.epoch])
            order = random.permutation(self.n) if self.shuffle else np.arange(self.n)
            draws = [random.uniform(-1, 1, (self.n, columns)) for columns in (12, 4)]
            self._planned = (self.epoch, order, np.concatenate(draws, axis=1))
        return self._planned[1:]

    def _change(self, photos, draws):
        """Return changed photos, bytes; `draws` has a row of 16 numbers for each of them."""
        transforms = self._transforms(draws) if self.moves else None
        return keras.ops.convert_to_numpy(change_photos(photos, transforms, *self._colors(draws)))

    def _transforms(self, draws):
        """Return affine transforms around the picture's center, shape (photos, 8).

        The eight numbers say where in the old picture to look for each pixel of the new one; the
        last two would bend the perspective and are 0.
        """
        change = self.changes
        height, width = self.pixels.shape[1:3]
        turn = draws[:, 0] * change["rotation"]
        tilt = turn + draws[:, 1] * change["shear"]
        zoom_x, zoom_y = (between(change["zoom"], draws[:, column]) for column in (2, 3))
        if "scale" in change:
            scale = between(change["scale"], draws[:, 12])
            zoom_x, zoom_y = zoom_x * scale, zoom_y * scale
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
        """Return gains and offsets for each photo and channel, both of shape (photos, 1, 1, 3)."""
        change = self.changes
        brightness = between(change["brightness"], draws[:, 7:8])
        contrast = between(change["contrast"], draws[:, 8:9])
        offsets = 127.5 * (1 - contrast) + draws[:, 9:12] * change["channel_shift"]
        gains = np.broadcast_to(brightness * contrast, offsets.shape)
        return gains[:, None, None].astype("float32"), offsets[:, None, None].astype("float32")

    def _cut_out(self, photos, draws):
        """Return photos, bytes, half of them with a gray square somewhere within them."""
        photos = np.require(photos, requirements="W")  # a copy where a backend lends its own array
        sides = np.array(photos.shape[1:3])
        side = round(self.changes["cutout"] * sides.min())
        corners = np.floor((draws[:, 14:16] + 1) / 2 * (sides - side + 1)).astype(int)
        for number in np.flatnonzero(draws[:, 13] < 0):
            top, left = corners[number]
            photos[number, top : top + side, left : left + side] = 128
        return photos


def change_photos(photos, transforms, gains, offsets):
    """Return photos, bytes, moved by `transforms` (or by nothing, for None) and recolored."""
    ops = keras.ops
    photos = ops.cast(photos, "float32")
    if transforms is not None:
        photos = ops.image.affine_transform(
            photos, transforms, fill_mode="nearest", data_format="channels_last"
        )
    photos = ops.clip(photos * gains + (offsets + 0.5), 0, 255)  # 0.5: the cast cuts off
    return ops.cast(photos, "uint8")


if keras.backend.backend() == "jax":
    import jax

    change_photos = jax.jit(change_photos)  # compiled once for each shape, not run piece by piece


def load_once(directory, filenames, size):
    """Return the pixels of photos (see `load_photos`), the same array as long as one is in use.

    TensorFlow keeps every generator that it ever took batches from. Without this, a notebook run
    a second time would keep all photos twice. Files that were changed since are loaded anew.
    """
    try:
        states = [Path(directory, name).stat() for name in filenames]
    except OSError:
        return load_photos(directory, filenames, size)  # which says what is missing
    files = tuple(
        (state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns) for state in states
    )
    key = (str(directory), tuple(filenames), files, size)
    pixels = PHOTOS_IN_MEMORY.get(key)
    if pixels is None:
        pixels = load_photos(directory, filenames, size)
        pixels.flags.writeable = False
        PHOTOS_IN_MEMORY[key] = pixels
    return pixels


def threads_mix_epochs():
    """Return whether Keras would train on batches that its threads had made for an earlier epoch.

    On JAX, on PyTorch and on several GPUs, `fit` takes a batch to build the network by, then starts
    the epoch anew. Keras 3.15 keeps what its threads had made by then, about ten batches, and every
    epoch leaves as many to the next. It has no threads of its own where `workers` is 1.
    """
    if keras.backend.backend() != "tensorflow":
        return True
    import tensorflow as tf

    return tf.distribute.has_strategy()


def factors(name, value):
    """Return the range (lowest, highest) that a share such as 0.2 or a pair of factors means."""
    bounds = value if isinstance(value, (tuple, list)) else (1 - value, 1 + value)
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1]:
        raise ValueError(f"{name} is {value}; it takes a share such as 0.2, or a pair of factors.")
    return tuple(bounds)


def between(bounds, draws):
    """Return numbers between two bounds for draws from -1 to 1."""
    low, high = bounds
    return low + (high - low) * (draws + 1) / 2


def number_classes(labels, classes, column):
    """Return a dict of label and number; raise ValueError when labels and classes do not fit."""
    found = sorted(set(labels))
    if classes is None and len(found) < 2:
        raise ValueError(
            f"The column {column!r} holds the label {found[0]!r} only. Name the classes, such as "
            "classes=['cat', 'dog'], or leave y_col out for photos without answers."
        )
    classes = found if classes is None else list(classes)
    unknown = [label for label in found if label not in classes]
    if unknown:
        raise ValueError(
            f"The column {column!r} holds the label {unknown[0]!r}, which is none of the classes "
            f"{', '.join(map(repr, classes))}."
        )
    return {label: number for number, label in enumerate(classes)}
