"""Steps 24 and 39: a short name for everything that decides what a training leads to."""

import hashlib
import json

import keras
import numpy as np


def fingerprint(model, generators, settings):
    """Return a short name for everything that decides what a training leads to.

    Two trainings share it when network, size of its input, compilation, photos (names, answers
    and pixels), the generators' settings and `settings` are the same. What changes from run to run
    does not count: the names that Keras numbers on (`conv2d_7`), the precision (the weights are
    float32 whatever it is), and the optimizer's present learning rate; the one that the model was
    first seen with does.

    Args:
        model: a compiled `keras.Model`.
        generators: `PhotoGenerator`s, or others with the attributes `filenames`, `labels`,
            `pixels` (a NumPy array) and `settings` (a dict that JSON can write).
        settings: a dict that JSON can write.
    """
    layers = [(type(layer).__name__, layer.get_config()) for layer in model.layers]
    for _, config in layers:
        config.pop("name", None)
        config.pop("dtype", None)
    photos = [
        [generator.filenames, generator.labels, generator.settings, hash_of(generator.pixels)]
        for generator in generators
    ]
    if not hasattr(model.optimizer, "first_learning_rate"):
        model.optimizer.first_learning_rate = number(model.optimizer.learning_rate)
    compilation = model.get_compile_config()
    optimizer = compilation["optimizer"]["config"]
    for config in [optimizer, optimizer.get("inner_optimizer", {}).get("config", {})]:
        for changing in ["name", "learning_rate"]:
            config.pop(changing, None)
    rate = round(model.optimizer.first_learning_rate, 9)
    parts = [layers, model.input_shape, compilation, rate, photos, settings]
    parts = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(parts.encode()).hexdigest()[:10]


def what_sets_the_rate(callback, epochs):
    """Return, as a dict for `fingerprint`, what decides the learning rate of each epoch.

    Args:
        callback: a `ReduceLROnPlateau`, a `LearningRateScheduler`, or None for a constant rate.
        epochs: how many epochs there shall be; a schedule counts with the rates of all of them.
    """
    if callback is None:
        return {}
    if isinstance(callback, keras.callbacks.LearningRateScheduler):
        return {"rates": [round(float(callback.schedule(n, 1.0)), 9) for n in range(epochs)]}
    return {name: getattr(callback, name) for name in ["patience", "factor", "cooldown", "min_lr"]}


def hash_of(array):
    """Return a hash of a NumPy array's content."""
    return hashlib.blake2b(np.ascontiguousarray(array)).hexdigest()


def number(variable):
    """Return the value of a Keras variable as a float, wherever it lies, be it on several GPUs."""
    return float(keras.ops.convert_to_numpy(variable))
