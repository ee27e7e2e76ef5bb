"""Step 40: a network that others have trained, and its outputs for photos, computed once."""

import hashlib
import socket
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import keras
import numpy as np
from archives import Progress, within
from files import write_aside
from fingerprint import hash_of

# The address and the MD5 checksum that `keras.applications` has for them.
WEIGHTS = (
    "https://storage.googleapis.com/tensorflow/keras-applications/efficientnet_v2/"
    "efficientnetv2-b0_notop.h5"
)
CHECKSUM = "893217f2bb855e2983157299931e43ff"
PATIENCE = 8  # seconds that the server may keep us waiting


def load_backbone(input_shape, folder, weights="imagenet"):
    """Return EfficientNetV2B0 without its last layer, frozen, or None where it cannot be fetched.

    After Tan and Le, "EfficientNetV2: Smaller models and faster training" (2021). It computes in
    float32, whatever the precision of the notebook, as its outputs are kept and may be used in
    another one.

    Args:
        input_shape: (height, width, 3) of the photos; at least 32 pixels each way.
        folder: where the file of weights (24 MB) is kept. Created when missing.
        weights: "imagenet" for those learned from the 1.3 million photos of ImageNet, None for
            random ones.

    Returns:
        A `keras.Model` that takes photos from 0 to 255, shape (photos, height, width, 3), and gives
        1,280 numbers for each. When its weights cannot be fetched, a sentence is printed that says
        why, and None is returned, after at most 20 seconds.
    """
    if weights is not None:
        try:
            weights = fetch_weights(Path(folder))
        except Exception as problem:  # Keras raises its own, and the network many kinds
            reason = str(getattr(problem, "reason", problem)).splitlines() or ["no answer in time"]
            print(
                f"The pretrained weights cannot be fetched ({reason[0]}). Run this step again when "
                f"there is an internet connection, or put the file {WEIGHTS} into {folder}."
            )
            return None
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        backbone = keras.applications.EfficientNetV2B0(
            include_top=False, weights=weights, input_shape=tuple(input_shape), pooling="avg"
        )
    finally:
        keras.config.set_dtype_policy(before)
    backbone.trainable = False
    return backbone


def fetch_weights(folder):
    """Return the path of the file of weights in `folder`; fetch it when it is not there.

    Raises:
        TimeoutError, OSError, Exception: when the server does not answer or the file is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)  # Keras sets none
    try:
        if not (folder / WEIGHTS.split("/")[-1]).exists():
            within(PATIENCE, partial(urlopen, WEIGHTS)).close()  # is there a network?
        return keras.utils.get_file(
            origin=WEIGHTS, cache_dir=folder, cache_subdir="", file_hash=CHECKSUM
        )
    finally:
        socket.setdefaulttimeout(before)


def outputs_once(backbone, generator, folder, batch_size=128):
    """Return what a network says of all photos of a generator, computed only the first time.

    The outputs are kept in `folder`, in a file named after the pixels and the weights they belong
    to, so that those of other photos, or of another network, are never taken for them.

    Args:
        backbone: a `keras.Model` with one output of shape (photos, numbers).
        generator: a `PhotoGenerator`, or another object with photos in an attribute `pixels`, an
            array of the shape (photos, height, width, 3). They are taken in this order, unchanged.
        folder: where outputs are kept. Created when missing.
        batch_size: how many photos are looked at at a time.

    Returns:
        A float32 array of the shape (photos, numbers).
    """
    parts = map(hash_of, [generator.pixels, *backbone.get_weights()])
    name = hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]
    path = Path(folder) / f"outputs-{name}.npy"
    photos = len(generator.pixels)
    outputs = read_outputs(path, (photos, *backbone.output_shape[1:]))
    if outputs is not None:
        print(f"The outputs for {photos:,} photos were loaded from {path}.")
        return outputs

    batches = []
    with Progress("Computing outputs for photos", photos) as progress:
        for start in range(0, photos, batch_size):
            batch = generator.pixels[start : start + batch_size]
            batches.append(np.asarray(backbone.predict_on_batch(batch), "float32"))
            progress.add(len(batch))
    outputs = np.concatenate(batches)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_aside(path, lambda aside: np.save(aside, outputs))
    except OSError as problem:
        print(f"They could not be kept in {path} ({problem.strerror}).")
    return outputs


def read_outputs(path, shape):
    """Return the array in a file, or None when there is none or it is not whole."""
    try:
        outputs = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return outputs if outputs.shape == shape and outputs.dtype == "float32" else None
